"""Checks requests before anything is started or stored.

Every violation carries the field's path as the contract spells it, so that a caller can find it. Checks that need
the file system (does the image exist in the workspace?) live in `inputs`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from alive.agent.v1 import agent_service_pb2, options_pb2, resolved_pb2, session_pb2, workspace_service_pb2
from alive_kit.errors import InvalidField
from alive_kit.output_schema import schema_complaint

REQUEST_BYTES = 8 << 20
"""The largest request that is accepted."""

IMAGE_BYTES = 5 << 20
"""The largest image that is accepted."""

SETTINGS_BYTES = 256 << 10
"""The largest settings of a workspace that are accepted."""

TEXT_BYTES = 4 << 20
"""The longest text part that is accepted."""

LONGEST_SECONDS = 7 * 86_400
"""The longest duration that is accepted."""

LISTED = 1000
"""Workspaces or owners that a rollout lists at most."""

_EARLIEST, _LATEST = 0, 253_402_300_800
"""Seconds since 1970, up to the year 10000."""

_SLUG = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PROGRAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}

Violation = tuple[str, str]


def check_start_turn(request: agent_service_pb2.StartTurnRequest) -> None:
    """Refuse a malformed StartTurn.

    Raises:
        InvalidField: names every field that is wrong.
    """
    _refuse(_start_turn(request))


def check_update_workspace(request: workspace_service_pb2.UpdateWorkspaceRequest) -> None:
    """Refuse a malformed UpdateWorkspace.

    Raises:
        InvalidField: names every field that is wrong.
    """
    _refuse(_update_workspace(request))


def check_get_usage(request: workspace_service_pb2.GetUsageRequest) -> None:
    """Refuse a malformed GetUsage.

    Raises:
        InvalidField: names every field that is wrong.
    """
    _refuse(_get_usage(request))


def check_update_rollout(request: workspace_service_pb2.UpdateRolloutRequest) -> None:
    """Refuse a malformed UpdateRollout.

    Raises:
        InvalidField: names every field that is wrong.
    """
    _refuse(_update_rollout(request))


def check_provider_id(value: str) -> None:
    """Refuse what cannot be a provider's id; empty is none.

    Raises:
        InvalidField: it is malformed.
    """
    _refuse(_provider_id("provider_id", value))


def check_ids(request: Message) -> None:
    """Refuse a request whose ids are missing or malformed; for requests that hold little else.

    Raises:
        InvalidField: names every field that is wrong.
    """
    _refuse(_ids(request))


def check_input(request: agent_service_pb2.SteerTurnRequest) -> None:
    """Refuse input whose parts are missing or malformed.

    Raises:
        InvalidField: names every part that is wrong.
    """
    _refuse(_input(request))


def check_resolved(resolved: resolved_pb2.ResolvedTurn) -> None:
    """Refuse ids of the router's that are malformed.

    Raises:
        InvalidField: names every field that is wrong.
    """
    _refuse(chain(_optional_id("turn_id", resolved.turn_id), _optional_id("session_id", resolved.session_id)))


def check_page(request: session_pb2.ListSessionsRequest | session_pb2.ListItemsRequest) -> None:
    """Refuse a request for a page whose ids or size are wrong.

    Raises:
        InvalidField: names every field that is wrong.
    """
    _refuse(_page(request, 500 if isinstance(request, session_pb2.ListSessionsRequest) else 1000))


def is_slug(text: str) -> bool:
    """Whether a text can be a workspace's or a provider's id."""
    return bool(_SLUG.fullmatch(text)) and ".." not in text


def _refuse(violations: Iterator[Violation]) -> None:
    found = dict(violations)
    if found:
        raise InvalidField(found)


def _ids(request: Message) -> Iterator[Violation]:
    """Check every field named ``*_id``; all but those a service may choose are required."""
    for field in request.DESCRIPTOR.fields:
        if not field.name.endswith("_id"):
            continue
        value: str = getattr(request, field.name)
        if field.name == "workspace_id":
            yield from _workspace_id(value)
        elif not _ID.fullmatch(value):
            yield (field.name, _id_complaint(value))
    yield from _enums(request)


def _page(request: session_pb2.ListSessionsRequest | session_pb2.ListItemsRequest, most: int) -> Iterator[Violation]:
    yield from _ids(request)
    if request.page_size > most:
        yield ("page_size", f"is {request.page_size}: at most {most}")


def _start_turn(request: agent_service_pb2.StartTurnRequest) -> Iterator[Violation]:
    if request.ByteSize() > REQUEST_BYTES:
        yield ("input", f"the request has {request.ByteSize()} bytes: at most {REQUEST_BYTES} are accepted")
        return
    yield from _workspace_id(request.workspace_id)
    yield from _optional_id("turn_id", request.turn_id)
    yield from _optional_id("session_id", request.session_id)
    yield from _provider_id("provider_id", request.provider_id)
    yield from _input(request)
    yield from _mcp_servers("mcp_servers", request.mcp_servers)
    for field, value in request.ListFields():
        if check := _PARTS.get(field.name):
            yield from check(field.name, value)
    yield from _enums(request)


def _update_workspace(request: workspace_service_pb2.UpdateWorkspaceRequest) -> Iterator[Violation]:
    settings = request.settings
    if settings.ByteSize() > SETTINGS_BYTES:
        yield ("settings", f"have {settings.ByteSize()} bytes: at most {SETTINGS_BYTES} are accepted")
        return
    yield from _workspace_id(request.workspace_id)
    if not request.HasField("settings") and not request.update_mask.paths:
        yield ("settings", "is required: say what to change")
    yield from _provider_id("settings.provider_id", settings.provider_id)
    yield from _agent("settings.agent", settings.agent)
    yield from _permissions("settings.permissions", settings.permissions)
    yield from _limits("settings.limits", settings.limits)
    yield from _mcp_servers("settings.mcp_servers", settings.mcp_servers)
    for index, provider_id in enumerate(settings.failover.provider_ids):
        if not is_slug(provider_id):
            yield (f"settings.failover.provider_ids[{index}]", f"{provider_id!r} is not a provider's id")
    for name in ("soft_tokens", "hard_tokens", "soft_micro_usd", "hard_micro_usd"):
        if settings.usage_limits.HasField(name) and not getattr(settings.usage_limits, name):
            yield (f"settings.usage_limits.{name}", "must be at least 1; leave it unset for no limit")
    for index, path in enumerate(request.update_mask.paths):
        if not _is_path_of(settings, path):
            yield (f"update_mask.paths[{index}]", f"settings have no field {path!r}")
    yield from _enums(request)


def _get_usage(request: workspace_service_pb2.GetUsageRequest) -> Iterator[Violation]:
    if request.workspace_id:
        yield from _workspace_id(request.workspace_id)
    yield from _provider_id("provider_id", request.provider_id)
    for name in ("owner_id", "model"):
        yield from _name(name, getattr(request, name))
    for name in ("start_time", "end_time"):
        moment: Timestamp = getattr(request, name)
        if not _EARLIEST <= moment.seconds < _LATEST or not 0 <= moment.nanos < 1_000_000_000:
            yield (name, "is no time between the years 1970 and 9999")


def _update_rollout(request: workspace_service_pb2.UpdateRolloutRequest) -> Iterator[Violation]:
    rollout = request.rollout
    if not rollout.provider_id:
        yield ("rollout.provider_id", "is required")
    yield from _provider_id("rollout.provider_id", rollout.provider_id)
    if rollout.percentage > 100:
        yield ("rollout.percentage", f"is {rollout.percentage}: at most 100")
    for name in ("workspace_ids", "owner_ids"):
        if len(getattr(rollout, name)) > LISTED:
            yield (f"rollout.{name}", f"are more than {LISTED}: use percentage")
    for index, workspace_id in enumerate(rollout.workspace_ids):
        if not is_slug(workspace_id):
            yield (f"rollout.workspace_ids[{index}]", "must be a workspace's id")
    for index, owner_id in enumerate(rollout.owner_ids):
        yield from _name(f"rollout.owner_ids[{index}]", owner_id)


def _name(field: str, value: str) -> Iterator[Violation]:
    if len(value) > 128 or any(character.isspace() or not character.isprintable() for character in value):
        yield (field, "must be a name: at most 128 characters, no spaces")


def _workspace_id(value: str) -> Iterator[Violation]:
    if not value:
        yield ("workspace_id", "is required")
    elif not is_slug(value):
        yield ("workspace_id", "must be a slug: lower-case letters, digits, '-' and '.', at most 63, without '..'")


def _provider_id(field: str, value: str) -> Iterator[Violation]:
    if value and not is_slug(value):
        yield (field, "must be a slug, for example the id ListProviders shows")


def _optional_id(field: str, value: str) -> Iterator[Violation]:
    if value and not _ID.fullmatch(value):
        yield (field, _id_complaint(value))


def _id_complaint(value: str) -> str:
    return "must be letters, digits, '.', '_' or '-', at most 128" if value else "is required"


def _input(request: agent_service_pb2.StartTurnRequest | agent_service_pb2.SteerTurnRequest) -> Iterator[Violation]:
    if not request.input:
        yield ("input", "is required: say what the agent is to do")
    for index, part in enumerate(request.input):
        field = f"input[{index}]"
        match part.WhichOneof("content"):
            case "text":
                if not part.text.strip():
                    yield (f"{field}.text", "must not be empty")
                elif len(part.text.encode()) > TEXT_BYTES:
                    yield (f"{field}.text", f"is over {TEXT_BYTES} bytes: put it into a file of the workspace")
            case "image":
                yield from _image(f"{field}.image", part.image)
            case "file":
                yield from _relative(f"{field}.file.path", part.file.path)
            case _:
                yield (field, "has no content: set text, image or file")


def _image(field: str, image: options_pb2.ImageInput) -> Iterator[Violation]:
    match image.WhichOneof("source"):
        case "data":
            if len(image.data) > IMAGE_BYTES:
                yield (f"{field}.data", f"has {len(image.data)} bytes: at most {IMAGE_BYTES} are accepted")
            elif not image_type(image.data):
                yield (f"{field}.data", "is not a PNG, JPEG, GIF or WebP image")
        case "path":
            yield from _relative(f"{field}.path", image.path)
        case _:
            yield (field, "has no source: set data or path")


def image_type(data: bytes) -> str:
    """Return the MIME type of what begins as a PNG, JPEG, GIF or WebP image does; empty for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime_type for magic, mime_type in _MAGIC.items() if data.startswith(magic)), "")


def _relative(field: str, path: str) -> Iterator[Violation]:
    parts = PurePosixPath(path).parts
    if not parts:
        yield (field, "is required")
    elif path.startswith("/") or ".." in parts or "\0" in path:
        yield (field, "must be a path inside the workspace, relative and without '..'")


def _tool_context(field: str, context: options_pb2.ToolContext) -> Iterator[Violation]:
    if not _is_header(context.session_cookie):
        yield (f"{field}.session_cookie", "must be one line of ASCII, as a Cookie header says it")
    if not _is_header(context.user_id):
        yield (f"{field}.user_id", "must be one line of ASCII")
    for index, provider_id in enumerate(context.connected_providers):
        if not is_slug(provider_id):
            yield (f"{field}.connected_providers[{index}]", "must be a provider's id, for example github")


def _agent(field: str, agent: options_pb2.AgentOptions) -> Iterator[Violation]:
    for name in ("model", "effort"):
        yield from _name(f"{field}.{name}", getattr(agent, name))
    if agent.HasField("system_prompt"):
        yield from _system_prompt(f"{field}.system_prompt", agent.system_prompt)
    if agent.output_schema and (complaint := schema_complaint(agent.output_schema)):
        yield (f"{field}.output_schema", complaint)


def _system_prompt(field: str, prompt: options_pb2.SystemPrompt) -> Iterator[Violation]:
    name = prompt.WhichOneof("text")
    if name is None:
        yield (field, "has no text: set append or replace")
    elif not getattr(prompt, name).strip():
        yield (f"{field}.{name}", "must not be empty")
    elif "\0" in getattr(prompt, name):
        yield (f"{field}.{name}", "must not hold NUL, which no program can be told")


def _permissions(field: str, permissions: options_pb2.Permissions) -> Iterator[Violation]:
    for index, workspace_id in enumerate(permissions.extra_directories):
        if not is_slug(workspace_id):
            yield (f"{field}.extra_directories[{index}]", "must be a workspace's id")
    yield from _durations(field, permissions)
    yield from _tool_rules(f"{field}.tools", permissions.tools)


def _tool_rules(field: str, tools: options_pb2.ToolRules) -> Iterator[Violation]:
    for name in ("allowed", "denied"):
        for index, tool in enumerate(getattr(tools, name)):
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", tool):
                yield (f"{field}.{name}[{index}]", f"{tool!r} is not a tool's name")


def _limits(field: str, limits: options_pb2.Limits) -> Iterator[Violation]:
    for set_field, value in limits.ListFields():
        if set_field.name.startswith("max_") and value == 0:
            yield (f"{field}.{set_field.name}", "must be at least 1; leave it unset for no limit")
    yield from _durations(field, limits)


def _mcp_servers(field: str, servers: Iterable[options_pb2.McpServer]) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, server in enumerate(servers):
        path = f"{field}[{index}]"
        if not _NAME.fullmatch(server.name):
            yield (f"{path}.name", "must be lower-case letters, digits, '_' or '-', at most 64")
        elif server.name in seen:
            yield (f"{path}.name", f"{server.name!r} is used twice")
        seen.add(server.name)
        match server.WhichOneof("transport"):
            case "stdio":
                yield from _stdio(f"{path}.stdio", server.stdio)
            case "http":
                yield from _http(f"{path}.http", server.http)
            case _:
                yield (path, "has no transport: set stdio or http")
        yield from _tool_rules(f"{path}.tools", server.tools)
        yield from _durations(path, server)


def _stdio(field: str, stdio: options_pb2.StdioTransport) -> Iterator[Violation]:
    if not _PROGRAM.fullmatch(stdio.command):
        yield (f"{field}.command", "must be a program's name, found on the service's PATH; not a path")
    for name in [*stdio.env, *stdio.env_names]:
        if not _VARIABLE.fullmatch(name):
            yield (f"{field}.env", f"{name!r} is not a variable's name")
    for name, values in (("args", stdio.args), ("env", stdio.env.values())):
        if any("\0" in value for value in values):
            yield (f"{field}.{name}", "must not hold NUL, which no program can be told")


def _http(field: str, http: options_pb2.HttpTransport) -> Iterator[Violation]:
    if not _is_address(http.url):
        yield (f"{field}.url", "must be an http or https address")
    for name, value in http.headers.items():
        if not _HEADER.fullmatch(name) or not _is_header(value):
            yield (f"{field}.headers", f"{name!r} is no header's name, or its value is not one line of ASCII")
    for name in http.header_env_names:
        if not _HEADER.fullmatch(name):
            yield (f"{field}.header_env_names", f"{name!r} is no header's name")
    for name in [*http.header_env_names.values(), *filter(None, [http.bearer_token_env_name])]:
        if not _VARIABLE.fullmatch(name):
            yield (f"{field}.header_env_names", f"{name!r} is not a variable's name")


def _is_header(text: str) -> bool:
    """Whether a text can be the value of an HTTP header."""
    return text.isprintable() and text.isascii()


def _is_address(url: str) -> bool:
    """Whether a text is an address that HTTP clients understand."""
    try:
        address = urlsplit(url)
        return address.scheme in {"http", "https"} and bool(address.hostname) and address.port != 0
    except ValueError:
        return False


def _durations(field: str, message: Message) -> Iterator[Violation]:
    """Check the durations of a message; above the longest the timers of some CLIs would run over."""
    for set_field, value in message.ListFields():
        if isinstance(value, Duration):
            has_one_sign = value.seconds >= 0 and 0 <= value.nanos < 1_000_000_000
            if not has_one_sign or not 0 < value.ToNanoseconds() <= LONGEST_SECONDS * 10**9:
                yield (f"{field}.{set_field.name}", "must be longer than nothing, and at most 7 days")


def _is_path_of(message: Message, path: str) -> bool:
    fields = message.DESCRIPTOR.fields_by_name
    for name in path.split("."):
        if name not in fields:
            return False
        inner = fields[name].message_type
        fields = inner.fields_by_name if inner else {}
    return True


def _enums(message: Message, prefix: str = "") -> Iterator[Violation]:
    """Find enum values that this version of the contract does not know, at any depth."""
    for field, value in message.ListFields():
        if field.enum_type is not None and not field.is_repeated:
            if value not in field.enum_type.values_by_number:
                known = ", ".join(known.name for known in field.enum_type.values[1:])
                yield (f"{prefix}{field.name}", f"{value} is no value of it: there is {known}")
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            children = value if field.is_repeated else [value]
            for index, child in enumerate(children):
                where = f"{prefix}{field.name}[{index}]" if field.is_repeated else f"{prefix}{field.name}"
                yield from _enums(child, f"{where}.")


_PARTS: dict[str, Callable[[str, Any], Iterator[Violation]]] = {
    "agent": _agent,
    "permissions": _permissions,
    "limits": _limits,
    "tool_context": _tool_context,
    "delivery": _durations,
}
"""How the parts of a StartTurnRequest are checked. Most turns leave most of them out."""
