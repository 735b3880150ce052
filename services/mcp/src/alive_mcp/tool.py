"""A tool: a plain function, what it does to the world, and how it becomes a tool of an MCP server.

The function takes the context, and whom it may tell and ask, as parameters of those types; a model never sees them. It
returns a text, or a model whose JSON somebody parses. Whatever it raises becomes an error that the model can read.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
from mcp.server.mcpserver import Context as Request
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool as ServedTool
from mcp.types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import BaseModel, TypeAdapter, ValidationError

from alive_mcp.client import Client, InputNeeded
from alive_mcp.context import Context
from alive_mcp.errors import Refused
from alive_mcp.limits import plain

logger = logging.getLogger(__name__)

Body: TypeAlias = Callable[..., Any]

_OWN = (Context, Client)
"""What a function is given that is no parameter of its tool."""

SECONDS = 30.0
"""How long a call may take unless its tool says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool of one of the servers."""

    body: Body
    annotations: ToolAnnotations
    category: str
    """Where `search_tools` lists it."""
    seconds: float | None = SECONDS
    """How long a call may take; None where a person is waited for, whom the client gives a time."""
    named: str = ""
    """Its name where the function cannot have it."""

    @property
    def name(self) -> str:
        """What it is called by."""
        return self.named or self.body.__name__

    @property
    def description(self) -> str:
        """What the model is told about it: the function's docstring."""
        return inspect.getdoc(self.body) or ""


def reads(title: str, *, open_world: bool = False) -> ToolAnnotations:
    """Return that a tool changes nothing."""
    return ToolAnnotations(title=title, read_only_hint=True, idempotent_hint=True, open_world_hint=open_world)


def changes(
    title: str, *, destructive: bool = False, idempotent: bool = False, open_world: bool = False
) -> ToolAnnotations:
    """Return that a tool changes something, what, and whether twice is the same as once."""
    return ToolAnnotations(
        title=title,
        read_only_hint=False,
        destructive_hint=destructive,
        idempotent_hint=idempotent,
        open_world_hint=open_world,
    )


def offered(tools: Iterable[Tool], context: Context) -> list[Tool]:
    """Return the tools that there are in a context: where a turn may only read, those that only read."""
    return [tool for tool in tools if tool.annotations.read_only_hint or not context.read_only]


def served(tool: Tool, context: Context) -> ServedTool:
    """Return a tool as a server offers it."""
    signature = inspect.signature(tool.body, eval_str=True)
    kinds = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    parameters = [parameter for name, parameter in signature.parameters.items() if kinds[name] not in _OWN]

    async def call(request: Request[Any, Any], **arguments: Any) -> CallToolResult | InputRequiredResult:
        given = {Context: context, Client: Client(request, may_ask=context.may_ask)}
        own = {name: given[kind] for name, kind in kinds.items() if kind in _OWN}
        try:
            return _answer(await _bounded(tool, {**own, **arguments}, context), context)
        except InputNeeded as needed:
            return InputRequiredResult(input_requests={InputNeeded.NAME: needed.request})

    asked = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)
    call.__signature__ = inspect.Signature([asked, *parameters], return_annotation=CallToolResult)  # type: ignore[attr-defined]
    made = _CheckedTool.from_function(
        call,
        name=tool.name,
        title=tool.annotations.title,
        description=tool.description,
        context_kwarg="request",
        annotations=tool.annotations,
        structured_output=False,
    )
    made.parameters.pop("title")
    made.parameters["additionalProperties"] = False
    made.fn_metadata.output_schema = _output_schema(signature.return_annotation)
    return made


class _CheckedTool(ServedTool):
    """Says what is wrong with arguments in a sentence, and takes none that it does not know."""

    async def run(self, arguments: dict[str, Any], context: Request[Any, Any], convert_result: bool = False) -> Any:
        known = self.parameters.get("properties", {})
        if unknown := sorted(arguments.keys() - known.keys()):
            names = ", ".join(map(repr, unknown))
            raise ToolError(plain(f"{self.name} has no parameter {names}; it takes {', '.join(known) or 'none'}."))
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            if isinstance(error, UnexpectedToolError):
                logger.exception("%s broke", self.name)
                raise ToolError(f"{self.name} is broken. Do without it, and tell the user.") from None
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(f"{self.name} was not run. {_complaint(error.__cause__)}") from None
            if isinstance(error.__cause__, ToolError):
                raise ToolError(str(error.__cause__)) from None
            raise


async def _bounded(tool: Tool, arguments: Mapping[str, Any], context: Context) -> object:
    """Call a tool's function within its time, in a thread when it does not wait for anything."""
    try:
        with anyio.fail_after(tool.seconds):
            if inspect.iscoroutinefunction(tool.body):
                return await tool.body(**arguments)
            return await anyio.to_thread.run_sync(lambda: tool.body(**arguments), abandon_on_cancel=True)
    except TimeoutError:
        raise ToolError(f"{tool.name} was stopped after {tool.seconds:.0f} s. Try something smaller.") from None
    except Refused as refused:
        raise ToolError(_clean(str(refused), context)) from None


def _answer(result: object, context: Context) -> CallToolResult:
    if isinstance(result, BaseModel):
        text = _clean(result.model_dump_json(by_alias=True, exclude_none=True), context)
        structured = result.__class__.model_validate_json(text).model_dump(
            mode="json", by_alias=True, exclude_none=True
        )
        return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=structured)
    return CallToolResult(content=[TextContent(type="text", text=_clean(str(result), context))])


def _clean(text: str, context: Context) -> str:
    """Return a text without what must not be shown or cannot be sent."""
    for secret in context.secrets:
        text = text.replace(secret, "[hidden]")
    return plain(text)


def _output_schema(returned: Any) -> dict[str, Any] | None:
    """Return the schema of what a tool answers; None where that is a text."""
    if returned is str:
        return None
    return {"type": "object", **TypeAdapter(returned).json_schema(by_alias=True)}


def _complaint(error: ValidationError) -> str:
    """Return what is wrong with arguments, without repeating them."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}" for one in found[:5]]
    return "; ".join(wrong) + "."
