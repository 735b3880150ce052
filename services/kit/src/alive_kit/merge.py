"""Merges a request with its workspace's settings and the ids the router chose.

Fields of the request win over the workspace's. Scalars and messages are merged field by field, lists of the request
replace the workspace's, and MCP servers are joined by name.
"""

import hashlib
import uuid

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from alive.agent.v1 import agent_service_pb2, resolved_pb2, workspace_service_pb2


def merge(
    request: agent_service_pb2.StartTurnRequest, resolved: resolved_pb2.ResolvedTurn
) -> agent_service_pb2.StartTurnRequest:
    """Return the complete request: ids chosen, settings merged in."""
    merged = agent_service_pb2.StartTurnRequest()
    merged.CopyFrom(request)
    merged.turn_id = request.turn_id or resolved.turn_id or f"turn-{uuid.uuid4()}"
    settings = resolved.settings
    for name in ("agent", "permissions", "limits"):
        if settings.HasField(name):
            underlay(getattr(merged, name), getattr(settings, name))
    _add_servers(merged, settings)
    return merged


def digest(request: agent_service_pb2.StartTurnRequest) -> bytes:
    """Return what tells a request apart from another one under the same id; its history makes no difference."""
    told = agent_service_pb2.StartTurnRequest()
    told.CopyFrom(request)
    told.ClearField("history")
    return hashlib.sha256(told.SerializeToString(deterministic=True)).digest()


def underlay(message: Message, defaults: Message) -> None:
    """Fill the fields a message does not set from another of the same type."""
    for field, value in defaults.ListFields():
        if field.is_repeated:
            if not getattr(message, field.name):
                getattr(message, field.name).MergeFrom(value)
        elif field.message_type is not None and not _is_choice(field.message_type):
            underlay(getattr(message, field.name), value)
        elif not _is_set(message, field.name):
            _assign(message, field.name, value)


def _add_servers(
    request: agent_service_pb2.StartTurnRequest, settings: workspace_service_pb2.WorkspaceSettings
) -> None:
    named = {server.name for server in request.mcp_servers}
    request.mcp_servers.extend(server for server in settings.mcp_servers if server.name not in named)


def _is_choice(descriptor: Descriptor) -> bool:
    """Whether a message is taken whole: one with a oneof, or a well-known type such as a duration."""
    real = [oneof for oneof in descriptor.oneofs if not oneof.name.startswith("_")]
    return bool(real) or descriptor.full_name.startswith("google.protobuf.")


def _is_set(message: Message, name: str) -> bool:
    return any(field.name == name for field, _ in message.ListFields())


def _assign(message: Message, name: str, value: object) -> None:
    if isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
