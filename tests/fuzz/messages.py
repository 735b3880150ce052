"""Messages of any kind, made from the contract's descriptors: a field that comes new is made unasked."""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from alive.agent.v1 import approval_pb2, options_pb2, workspace_service_pb2

OWN, FOREIGN, ABSENT = "rival.example", "acme.example", "nobody.example"
"""Workspaces: the caller's, somebody else's, and one that does not exist."""

_DEEPEST = 4
_INTEGERS = (0, 1, 2, -1, 7, 1000, 2**31 - 1, -(2**31))
_LONG = (2**63 - 1, -(2**63), 253402300799, 315576000001)
_HOSTILE = (
    *("", " ", "\0", "../..", "/etc/passwd", "a/../../b", "a..b", "*", "%s%n{0}", "'; DROP TABLE turns; --"),
    *("\u202e\u0000", "\U0001f426" * 40, "x" * 5000, "{}", "[]", '{"type": "object"}', "null", "-1", "CON", "~root"),
)
_SLUGS = (OWN, OWN, OWN, FOREIGN, ABSENT, "", "../acme.example", "Demo!", "rival.example\n")
_IDS = ("seed", "seed", "own", "other", "", "x" * 200, "a/b", "\0")
_NAMED: dict[str, tuple[str, ...]] = {
    "workspace_id": _SLUGS,
    "turn_id": (*_IDS, *map(str, range(40))),
    "session_id": ("", "", "", *_IDS),
    "fork_id": ("", *_IDS),
    "item_id": ("message-1", "seed-input", *_IDS),
    "approval_id": _IDS,
    "provider_id": ("", "", "red", "red", "blue", "green", "../x"),
    "model": ("", "fake-1", "fake-2", "\0"),
    "command": ("true", "/bin/sh", "../x", ""),
    "page_token": ("", "", "e30=", "WzAsIDFd", "?", "MQ=="),
    "after_cursor": ("", "0" * 16 + "-7", "x"),
    "paths": ("settings", "settings.provider_id", "settings.agent", "nothing", "", "settings..x"),
}
_ALWAYS = frozenset({"workspace_id", "input", "provider_id", "rollout", "settings", "decision"})
"""Fields without which nearly every message would be refused for the same reason."""

_RIGHT: dict[str, Sequence[Any]] = {
    "item_id": ("message-1", "own-input"),
    "approval_id": ("a",),
    "provider_id": ("", "red"),
    "input": ([options_pb2.InputPart(text="hello")],),
    "rollout": (workspace_service_pb2.Rollout(provider_id="blue", enabled=True),),
    "decision": (approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ALLOW_ONCE),),
}
"""What a caller may say in the fields of this name."""

_text = st.one_of(st.sampled_from(_HOSTILE), st.text(st.characters(codec="utf-8"), max_size=30))
_octets = st.one_of(st.binary(max_size=40), st.sampled_from((b"\x89PNG\r\n\x1a\n" + bytes(16), b"{}", bytes(9000))))


def messages(descriptor: Descriptor, own: str, foreign: str) -> st.SearchStrategy[Message]:
    """Return what makes messages of a type: right but for a field or two, about each one's session, and of any kind."""
    new = [""] if descriptor.name == "StartTurnRequest" else []
    turns = ("own", *map(str, range(60)))
    mine = {**_RIGHT, "workspace_id": [OWN], "session_id": [own, *new], "turn_id": turns}
    others = {**_RIGHT, "workspace_id": [FOREIGN], "session_id": [foreign], "turn_id": ["seed"]}
    right = _nearly_right(descriptor, mine)
    return st.one_of(right, right, _nearly_right(descriptor, others), _messages(descriptor, 0))


@st.composite
def _nearly_right(draw: st.DrawFn, descriptor: Descriptor, right: Mapping[str, Sequence[Any]]) -> Message:
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.name in right:
            _set(message, field, draw(st.sampled_from(right[field.name])))
    for field in draw(_some(descriptor.fields, 2)):
        message.ClearField(field.name)
        _fill(draw, message, field, 0)
    return message


@st.composite
def _messages(draw: st.DrawFn, descriptor: Descriptor, depth: int) -> Message:
    message = GetMessageClass(descriptor)()
    fields = [field for field in descriptor.fields if depth < _DEEPEST or field.message_type is None]
    always = [field for field in fields if field.name in _ALWAYS or field.name.endswith("_id")]
    more = draw(_some(fields, 3))
    for field in {field.number: field for field in (*always, *more)}.values():
        _fill(draw, message, field, depth)
    return message


def _some(fields: Sequence[FieldDescriptor], most: int) -> st.SearchStrategy[list[FieldDescriptor]]:
    if not fields:
        return st.just([])
    return st.lists(st.sampled_from(list(fields)), max_size=most, unique_by=lambda field: field.number)


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        getattr(message, field.name).extend(value)
    elif field.message_type:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def _fill(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    value = _value(field, depth)
    if field.is_repeated and field.message_type and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        for _ in range(draw(st.integers(0, 2))):
            _put(getattr(message, field.name), draw(_value(entry["key"], depth)), draw(_value(entry["value"], depth)))
    elif field.is_repeated:
        _set(message, field, draw(st.lists(value, min_size=field.name == "input", max_size=3)))
    else:
        _set(message, field, draw(value))


def _put(entries: Any, key: Any, value: Any) -> None:
    if isinstance(value, Message):
        entries[key].CopyFrom(value)
    else:
        entries[key] = value


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return _messages(field.message_type, depth + 1)
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return _octets
        case FieldDescriptor.CPPTYPE_STRING:
            known = _NAMED.get(field.name)
            return st.one_of(*[st.sampled_from(known)] * 9, _text) if known else _text
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.sampled_from([*(value.number for value in field.enum_type.values), 99, -1])
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats(width=32)
        case _:
            return _integers(field)


def _integers(field: FieldDescriptor) -> st.SearchStrategy[int]:
    is_long = field.cpp_type in {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
    is_signed = field.cpp_type in {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}
    numbers = _INTEGERS + (_LONG if is_long else ())
    return st.sampled_from([number for number in numbers if is_signed or number >= 0])
