"""Messages of every shape, built from their descriptors: a field that comes new to the contract is fuzzed unasked."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

DEPTH = 5
"""How deep messages are nested."""

TEXTS = (
    "",
    " ",
    "a",
    "\0",
    "a\0b",
    "\r\nx-evil: 1",
    "../../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "file:/etc/passwd",
    "~root",
    "link",
    "-rf",
    "--version",
    "%2e%2e%2f",
    "%s%n{0}{}",
    "' OR 1=1; DROP TABLE turns; --",
    "$(id) `id` ${HOME}",
    "<script>",
    "[script:none]",
    "{",
    "[]",
    '{"type": "object"}',
    '{"a": ' * 2000,
    '{"type": "object", "properties": ' * 400 + "{}" + "}" * 400,
    "1" * 5000,
    "NaN",
    "http://[",
    "http://127.0.0.1:9/",
    "http://a:b:c",
    "\u202e\u0000\ufeff\ud7ff\ue000\uffff",
    "e\u0301\U0001f469\u200d\U0001f4bb",
    "\U0010ffff" * 64,
    "x" * 128,
    "x" * 129,
    "x" * 70_000,
    "WzAsIHt9XQ==",
    "9223372036854775807",
    "0123456789abcdef-999999999999999999",
)
"""Texts that something once took amiss."""

HUGE = ("x" * (1 << 20), "\U0001f600" * (1 << 20), " " * (9 << 20), "y" * (17 << 20))
"""Texts up to and beyond what a request may hold."""

BYTES = (b"", b"\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff" + bytes(64), b"GIF89a", bytes(6 << 20), b"\xff" * 100)

RAW = (b"\xff" * 10, b"\x0b" * 5000, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xc3\x28", b"\x0a\x01\xff", b"\0", b"{}")
"""Bytes that are no message: endless numbers and groups, lengths beyond the end, texts that are none."""

_INTEGERS = (-(1 << 63), -(1 << 31), -1, 0, 1, 2, 100, 101, 1000, 1001, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_LONG = (1 << 32, (1 << 53) + 1, 253_402_300_800, (1 << 63) - 1, (1 << 64) - 1)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}

Known = Mapping[str, Sequence[Any]]
"""Values that fit a field of this name; of a message: nothing, it is only set more often."""


class Messages:
    """Strategies for messages, which often hold what is known to fit."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._messages: dict[tuple[str, int], st.SearchStrategy[Message]] = {}
        self._scalars: dict[str, st.SearchStrategy[Any]] = {}

    def of(self, descriptor: Descriptor, depth: int = DEPTH) -> st.SearchStrategy[Message]:
        """Return a strategy for messages: those fields set for which something is known, and a few others."""
        key = (descriptor.full_name, depth)
        if key not in self._messages:
            self._messages[key] = self._built(descriptor, depth)
        return self._messages[key]

    def _built(self, descriptor: Descriptor, depth: int) -> st.SearchStrategy[Message]:
        message_class = GetMessageClass(descriptor)
        fields = [field for field in descriptor.fields if depth or not field.message_type]
        usual = [field for field in fields if field.name in self._known]

        @st.composite
        def build(draw: Any) -> Message:
            message = message_class()
            random = Random(draw(_SEEDS))  # One draw for all of it: thousands of messages a minute are wanted.
            others = random.sample(fields, min(len(fields), random.choice(_OTHERS if depth == DEPTH else _INNER)))
            for field in [field for field in usual if random.random() > _LEFT_OUT] + others:
                value = draw(self._value(field, depth))
                self._set(message, field, [value] * (random.choice(_COUNTS) if _is_small(value) else 1), draw)
            return message

        return build()

    def _set(self, message: Message, field: FieldDescriptor, values: list[Any], draw: Any) -> None:
        """Set a field, or add to it."""
        if field.message_type and field.message_type.GetOptions().map_entry:
            value = draw(self._value(field.message_type.fields_by_name["value"], 0))
            getattr(message, field.name)[values[0].key] = value
        elif field.is_repeated:
            getattr(message, field.name).extend(values)
        elif field.message_type:
            getattr(message, field.name).CopyFrom(values[0])
        else:
            setattr(message, field.name, values[0])

    def _value(self, field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
        if field.message_type:
            return self.of(field.message_type, depth - 1)
        if field.full_name not in self._scalars:
            self._scalars[field.full_name] = self._scalar(field)
        return self._scalars[field.full_name]

    def _scalar(self, field: FieldDescriptor) -> st.SearchStrategy[Any]:
        pool, known = _pool(field), list(self._known.get(field.name, ()))
        if known:
            return st.sampled_from(known * (8 * len(pool) // len(known)) + pool)
        if field.type == FieldDescriptor.TYPE_STRING:
            return st.sampled_from(pool) | st.text(max_size=4)
        return st.sampled_from(pool)


def _is_small(value: Any) -> bool:
    size = value.ByteSize() if isinstance(value, Message) else len(str(value))
    return size < 8192


_SEEDS = st.integers(0, (1 << 32) - 1)
_LEFT_OUT = 0.06
_OTHERS = [0, 0, 0, 1, 1, 2, 4]
_INNER = [1, 1, 2, 3]
_COUNTS = [1] * 12 + [2, 3, 1001]


def _pool(field: FieldDescriptor) -> list[Any]:
    """Return what a field may hold at its edges, and beyond where the wire has room for it."""
    if field.enum_type:
        return [*field.enum_type.values_by_number, 99, -1, (1 << 31) - 1]
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return [False, True]
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return [*BYTES]
        case FieldDescriptor.CPPTYPE_STRING:
            return [*TEXTS] * 4 + [*HUGE]
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return [0.0, -1.0, 1e308, float("inf"), float("nan")]
    least, most = _RANGES[field.cpp_type]
    return [value for value in (*_INTEGERS, *_LONG) if least <= value <= most]


def raw(message: Message) -> st.SearchStrategy[bytes]:
    """Return a strategy for bytes that are no message, or one that is cut or has a wrong byte in it."""
    data = message.SerializeToString()[:4096]

    def spoilt(place: int, byte: int) -> bytes:
        return data[:place] + bytes([byte]) + data[place + 1 :]

    places = st.integers(0, len(data))
    return st.sampled_from(RAW) | st.builds(spoilt, places, st.integers(0, 255)) | places.map(lambda end: data[:end])
