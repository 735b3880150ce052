"""Events as a response carries them on the wire.

Responses hold one repeated field, so that serialized events placed one behind the other are a response: they are put
together, kept, relayed and taken apart without being built again.
"""

from collections.abc import Iterator

from alive.agent.v1 import agent_service_pb2, event_pb2

_EVENTS_TAG = bytes([agent_service_pb2.StartTurnResponse.EVENTS_FIELD_NUMBER << 3 | 2])
"""What stands before each event of a response on the wire: its field's number, and that a length follows."""


def frame(event: event_pb2.Event) -> bytes:
    """Return a response that holds the event."""
    serialized = event.SerializeToString()
    left, length = len(serialized), bytearray()
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    length.append(left)
    return b"".join((_EVENTS_TAG, length, serialized))


def split(response: bytes) -> Iterator[bytes]:
    """Yield the events of a response, each as a response of its own."""
    start = 0
    while start < len(response):
        length, position = _length(response, start + len(_EVENTS_TAG))
        yield response[start : (start := position + length)]


def _length(response: bytes, position: int) -> tuple[int, int]:
    """Return the length that is written at a position, seven bits in each byte, and the position behind it."""
    length = shift = 0
    while True:
        byte = response[position]
        length |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte <= 0x7F:
            return length, position
