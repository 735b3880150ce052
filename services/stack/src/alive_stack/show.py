"""Shows a turn's events to people, as they come."""

from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax

from alive.agent.v1 import event_pb2, item_pb2, usage_pb2

_COLOURS = ("magenta", "cyan", "yellow", "green")

_PLAN_MARKS = {
    item_pb2.PLAN_STEP_STATE_PENDING: "☐",
    item_pb2.PLAN_STEP_STATE_IN_PROGRESS: "▶",
    item_pb2.PLAN_STEP_STATE_COMPLETED: "☑",
}


class Show:
    """Shows the events of one provider."""

    def __init__(self, console: Console, provider_id: str, index: int) -> None:
        self._console = console
        colour = _COLOURS[index % len(_COLOURS)]
        self._badge = f"[bold {colour}]{provider_id:>8} │[/] "
        self._streaming = ""

    def event(self, event: event_pb2.Event) -> None:
        """Show one event."""
        match event.WhichOneof("kind"):
            case "turn_started":
                self.line(f"[bold]turn started[/] · {escape(event.turn_started.model)}")
            case "item_delta":
                self._delta(event.item_delta)
            case "item_completed":
                self._item(event.item_completed.item)
            case "notice":
                self.line(f"[dim]notice: {escape(event.notice.message)}[/]")
            case "turn_completed":
                self.line(f"[bold green]turn completed[/] · {_counts(event.turn_completed.usage)}")
            case "turn_failed":
                error = event.turn_failed.error
                self.line(f"[bold red]turn failed[/] · {escape(error.message)}")
            case "turn_interrupted":
                self.line(f"[bold yellow]turn interrupted[/] · {escape(event.turn_interrupted.reason)}")

    def line(self, text: str) -> None:
        """Show a line of one's own markup."""
        self._end_stream()
        self._console.print(self._badge + text, highlight=False, soft_wrap=True)

    def _delta(self, delta: event_pb2.ItemDelta) -> None:
        """Show text while it is being said."""
        if not delta.text:
            return
        if self._streaming != delta.item_id:
            self._end_stream()
            self._console.print(self._badge, end="")
            self._streaming = delta.item_id
        for index, piece in enumerate(delta.text.split("\n")):
            if index:
                self._console.print(f"\n{self._badge}", end="")
            self._console.print(escape(piece), end="", style="italic", highlight=False, soft_wrap=True)

    def _end_stream(self) -> None:
        if self._streaming:
            self._console.print()
            self._streaming = ""

    def _item(self, item: item_pb2.Item) -> None:
        match item.WhichOneof("content"):
            case "message" if item.message.role == item_pb2.ROLE_USER:
                self.line(f"[bold]asked:[/] {escape(item.message.text)}")
            case "message" | "reasoning":
                self._end_stream()  # Its text was shown as it came.
            case "command":
                self._command(item.command)
            case "file_change":
                self._file_change(item.file_change)
            case "plan":
                for step in item.plan.steps:
                    self.line(f"{_PLAN_MARKS.get(step.state, '☐')} {escape(step.text)}")
            case "tool_call":
                server = f"{item.tool_call.server}/" if item.tool_call.server else ""
                self.line(
                    f"[bold]tool[/] {escape(server + item.tool_call.tool)} {escape(item.tool_call.arguments_json)}"
                )
            case "web_search":
                self.line(f"[bold]web search[/] {escape(item.web_search.query)}")
            case kind:
                self.line(f"[bold]{kind}[/]")

    def _command(self, command: item_pb2.CommandItem) -> None:
        code = f" [dim](exit {command.exit_code})[/]" if command.HasField("exit_code") else ""
        self.line(f"[bold]$ {escape(command.command)}[/]{code}")
        for text in command.output.splitlines():
            self.line(f"  {escape(text)}")

    def _file_change(self, file_change: item_pb2.FileChangeItem) -> None:
        for change in file_change.changes:
            kind = item_pb2.FileChangeKind.Name(change.kind).removeprefix("FILE_CHANGE_KIND_").lower()
            self.line(f"[bold]{kind} {escape(change.path)}[/]")
            if change.diff:
                self._console.print(Syntax(change.diff.rstrip("\n"), "diff", background_color="default"))


def _counts(usage: usage_pb2.Usage) -> str:
    cost = f", ${usage.cost.nano_usd / 1e9:.4f}" if usage.HasField("cost") else ""
    requests = f"{usage.model_requests} requests to the model"
    return f"{usage.input_tokens} tokens in, {usage.output_tokens} out, {requests}{cost}"
