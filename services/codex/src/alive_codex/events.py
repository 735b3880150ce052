"""Translates Codex's notifications into events: one small function for each method. As of codex 0.163.0."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from alive.agent.v1 import event_pb2, item_pb2, options_pb2
from alive_codex.app_server import Notification
from alive_codex.audit import Audit
from alive_codex.failures import attempt_of, wait_of
from alive_codex.items import is_known, item_of, plan_item, status_of
from alive_codex.prices import PRICES
from alive_codex.usage import usage_of
from alive_kit.events import (
    item_completed,
    item_started,
    model_retry,
    notice,
    text_delta,
    unknown_vendor_event,
    usage_updated,
)
from alive_kit.provider import TurnSpec
from alive_kit.usage import Tally

Params = Mapping[str, Any]
Events = Iterator[event_pb2.Event]

QUIET = {
    "item/fileChange/outputDelta": "not shown: the item has the diff",
    "item/fileChange/patchUpdated": "not shown: the item has the diff",
    "item/mcpToolCall/progress": "not shown: the item has the result",
    "rawResponse/completed": "not shown: its items were",
    "remoteControl/status/changed": "not shown: nothing is controlled remotely",
    "serverRequest/resolved": "not shown: approval_resolved says it",
    "skills/changed": "not shown: about the home, not the turn",
    "thread/name/updated": "not shown: sessions have no names",
    "thread/readState/changed": "not shown: for the vendor's own screens",
    "thread/settings/updated": "not shown: they were asked for",
    "thread/started": "not shown: turn_started follows",
    "thread/status/changed": "not shown: the turn's events say it",
    "turn/completed": "the terminal event",
    "turn/diff/updated": "not shown: the sum of the file changes",
}
"""Notifications that are left out, and why."""

_HARMLESS = ("could not find bubblewrap on PATH",)
"""Warnings about what is meant to be so: the sandbox's program comes with the CLI."""

_SERVER_STATUS = {
    "starting": event_pb2.MCP_SERVER_STATUS_STARTING,
    "ready": event_pb2.MCP_SERVER_STATUS_READY,
}

USAGE = "thread/tokenUsage/updated"
"""What the CLI says of the tokens of a thread."""


class Translator:
    """The translation of one turn."""

    def __init__(self, spec: TurnSpec, model: str, sandbox: "options_pb2.Sandbox.ValueType") -> None:
        self.spec = spec
        self._model = model
        self._sandbox = sandbox
        self._open: dict[str, item_pb2.Item] = {}
        self._void: set[str] = set()
        self._plans = 0
        self._turn_id = ""
        self._has_begun = False
        self._limits: object = None
        self._total: object = None
        self.audit = Audit()
        self.tally = Tally(PRICES)
        self.servers: dict[str, event_pb2.McpServerState] = {}
        """The MCP servers as last heard of."""
        self.retries = 0
        """How often the CLI asked the model again."""
        self.asks_again = False
        """Whether the model's latest answer asked for a tool, so that it will be asked again."""
        self.answer = ""
        """The latest message of the agent."""

    def follow(self, before: "Translator") -> None:
        """Know what was known of the thread after the turn before."""
        self.servers.update(before.servers)
        self._total = before._total

    def begin(self) -> event_pb2.Event:
        """Return that the turn has started, by what is known of its thread."""
        self._has_begun = True
        request = self.spec.request
        started = event_pb2.TurnStarted(
            model=self._model,
            resumed=self.spec.resume is not None,
            approval_policy=request.permissions.approval_policy or options_pb2.APPROVAL_POLICY_BYPASS,
            sandbox=self._sandbox,
            mcp_servers=self.servers.values(),
        )
        return event_pb2.Event(turn_started=started)

    def translate(self, notification: Notification) -> Events:
        """Yield what a notification means."""
        translation = _TRANSLATIONS.get(notification.method)
        if translation is not None:
            yield from translation(self, notification.params)
        elif notification.method not in QUIET:
            yield unknown_vendor_event(notification.method)

    def open_items(self) -> list[item_pb2.Item]:
        """Return the items that have begun and not ended."""
        return list(self._open.values())

    def _turn_started(self, params: Params) -> Events:
        self._turn_id = params["turn"]["id"]
        if not self._has_begun:
            yield self.begin()

    def _item_started(self, params: Params) -> Events:
        vendor = params["item"]
        if vendor["type"] == "userMessage":
            return  # The kit says what the user said.
        self.audit.shown(vendor["id"])
        if not is_known(vendor):
            yield unknown_vendor_event(f"item/{vendor['type']}")
            return
        item = item_of(vendor, self.spec.workspace)
        self._open[item.item_id] = item
        yield item_started(item)

    def _item_completed(self, params: Params) -> Events:
        vendor = params["item"]
        if not is_known(vendor) or vendor["id"] in self._void:
            return
        if vendor["id"] not in self._open:
            yield from self._item_started(params)
        started = self._open.pop(vendor["id"])
        item = item_of(vendor, self.spec.workspace)
        item.start_time.CopyFrom(started.start_time)
        if item.HasField("message"):
            self.answer = item.message.text
        yield item_completed(item, status_of(vendor))

    def _text(self, params: Params) -> Events:
        if params["itemId"] in self._open:
            yield text_delta(params["itemId"], params["delta"])

    def _summary_part(self, params: Params) -> Events:
        if params["summaryIndex"] and params["itemId"] in self._open:
            yield text_delta(params["itemId"], "\n\n")

    def _output(self, params: Params) -> Events:
        if params["itemId"] in self._open:
            delta = event_pb2.ItemDelta(item_id=params["itemId"], output=params["delta"])
            yield event_pb2.Event(item_delta=delta)

    def _terminal_input(self, params: Params) -> Events:
        yield notice("command_input", "The agent typed into a running command.", item_id=str(params.get("itemId", "")))

    def _plan_text(self, params: Params) -> Events:
        if params["itemId"] in self._open:
            yield event_pb2.Event(item_delta=event_pb2.ItemDelta(item_id=params["itemId"], plan=params["delta"]))

    def _plan(self, params: Params) -> Events:
        self._plans += 1
        item = plan_item(f"{params['turnId']}-plan-{self._plans}", params)
        yield item_started(item)
        yield item_completed(item)

    def _raw_item(self, params: Params) -> Events:
        yield from self.audit.hear(params.get("item") or {})

    def _usage(self, params: Params) -> Events:
        # A resumed thread begins by repeating what its last turn used, and an interrupted one repeats its last request.
        total, self._total = self._total, params["tokenUsage"]["total"]
        if params["turnId"] != self._turn_id or total == self._total:
            return
        self.asks_again = self.audit.take_calls_open()
        request_id = str(self.tally.requests + 1)
        self.tally.count(request_id, self._model, usage_of(params["tokenUsage"]["last"]))
        yield usage_updated(self.tally.total())

    def _error(self, params: Params) -> Events:
        if not params.get("willRetry"):
            yield notice(
                "model_error", "The model's vendor answered with an error.", severity=event_pb2.SEVERITY_WARNING
            )
            return
        self.retries += 1
        error = params["error"]
        attempt, attempts = attempt_of(str(error.get("message", "")))
        wait = wait_of(str(error.get("additionalDetails", "")))
        yield from self._retract()
        yield model_retry(
            "The request to the model failed; asking again.",
            attempt=attempt,
            max_attempts=attempts,
            delay_ms=wait.total_seconds() * 1000 if wait else 0,
        )

    def _retract(self) -> Events:
        """Take back what an abandoned attempt streamed."""
        for item_id, item in list(self._open.items()):
            if item.WhichOneof("content") in {"message", "reasoning"}:
                self._void.add(item_id)
                del self._open[item_id]
                reason = "the connection to the model broke"
                yield event_pb2.Event(item_retracted=event_pb2.ItemRetracted(item_id=item_id, reason=reason))
                yield item_completed(item, item_pb2.ITEM_STATUS_FAILED)

    def _server_status(self, params: Params) -> Events:
        state = event_pb2.McpServerState(
            name=params["name"],
            status=_SERVER_STATUS.get(params["status"], event_pb2.MCP_SERVER_STATUS_FAILED),
            error="it did not start" if params.get("error") else "",
        )
        self.servers[state.name] = state
        if state.status == event_pb2.MCP_SERVER_STATUS_FAILED:
            yield notice(
                "mcp_server_failed",
                f"The MCP server {state.name} did not start; the turn goes on without its tools.",
                severity=event_pb2.SEVERITY_WARNING,
                server=state.name,
            )

    def _rate_limits(self, params: Params) -> Events:
        limits = params.get("rateLimits") or {}
        primary = limits.get("primary") or {}
        if limits == self._limits or not primary:
            return
        self._limits = limits
        used = str(primary.get("usedPercent", ""))
        yield notice("rate_limit", f"{used} percent of the vendor's rate limit are used.", used_percent=used)

    def _warning(self, params: Params) -> Events:
        text = str(params.get("message") or params.get("summary") or "")
        if not any(words in text for words in _HARMLESS):
            yield notice("vendor_warning", "The agent's CLI warns.", severity=event_pb2.SEVERITY_WARNING, text=text)

    def _rerouted(self, params: Params) -> Events:
        asked, model = str(params.get("fromModel", "")), str(params.get("toModel", ""))
        message = f"{model} answers instead of {asked}."
        self._model = model
        yield notice("model_changed", message, severity=event_pb2.SEVERITY_WARNING, asked=asked, model=model)

    def _checked(self, params: Params) -> Events:
        """Say that the vendor's own checks have a part in the turn: why it takes longer, or what it found."""
        found = {name: value for name, value in params.items() if name not in {"threadId", "turnId"}}
        yield notice("vendor_check", "The model's vendor checks the turn.", found=json.dumps(found, ensure_ascii=False))

    def _refused(self, params: Params) -> Events:
        asked = str(params.get("method", ""))
        yield notice("vendor_request_refused", "The agent asked for something that is not offered.", asked=asked)


_TRANSLATIONS: dict[str, Callable[[Translator, Params], Events]] = {
    "turn/started": Translator._turn_started,
    "item/started": Translator._item_started,
    "item/completed": Translator._item_completed,
    "item/agentMessage/delta": Translator._text,
    "item/reasoning/summaryPartAdded": Translator._summary_part,
    "item/reasoning/summaryTextDelta": Translator._text,
    "item/reasoning/textDelta": Translator._text,
    "item/commandExecution/outputDelta": Translator._output,
    "item/commandExecution/terminalInteraction": Translator._terminal_input,
    "item/plan/delta": Translator._plan_text,
    "turn/plan/updated": Translator._plan,
    "rawResponseItem/completed": Translator._raw_item,
    USAGE: Translator._usage,
    "error": Translator._error,
    "mcpServer/startupStatus/updated": Translator._server_status,
    "account/rateLimits/updated": Translator._rate_limits,
    "warning": Translator._warning,
    "configWarning": Translator._warning,
    "deprecationNotice": Translator._warning,
    "model/rerouted": Translator._rerouted,
    "model/safetyBuffering/updated": Translator._checked,
    "model/verification": Translator._checked,
    "turn/moderationMetadata": Translator._checked,
    "serverRequest/refused": Translator._refused,
}

TRANSLATED = {
    "turn/started": "turn_started",
    "item/started": "item_started",
    "item/completed": "item_completed",
    "item/agentMessage/delta": "item_delta",
    "item/reasoning/summaryPartAdded": "item_delta",
    "item/reasoning/summaryTextDelta": "item_delta",
    "item/reasoning/textDelta": "item_delta",
    "item/commandExecution/outputDelta": "item_delta",
    "item/commandExecution/terminalInteraction": "notice command_input",
    "item/plan/delta": "item_delta",
    "turn/plan/updated": "item plan",
    "rawResponseItem/completed": "item command or tool_call, for calls that have no item of their own",
    USAGE: "usage_updated",
    "error": "notice model_retry or model_error; item_retracted for what was streamed",
    "mcpServer/startupStatus/updated": "state in turn_started; notice mcp_server_failed",
    "account/rateLimits/updated": "notice rate_limit",
    "warning": "notice vendor_warning",
    "configWarning": "notice vendor_warning",
    "deprecationNotice": "notice vendor_warning",
    "model/rerouted": "notice model_changed",
    "model/safetyBuffering/updated": "notice vendor_check",
    "model/verification": "notice vendor_check",
    "turn/moderationMetadata": "notice vendor_check",
    "serverRequest/refused": "notice vendor_request_refused",
}
"""Notifications that become events, and which."""
