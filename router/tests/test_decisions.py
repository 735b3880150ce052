"""What the edge is told beside where a stream leads."""

from google.rpc import status_pb2

from alive_kit.errors import StreamLost, status_of
from alive_router.decisions import _led


def test_how_a_call_would_end_is_as_the_router_says_it() -> None:
    """For each turn and each provider, whatever they are called: most of it is made once."""
    for provider_id in ("red", "turn", "red"):
        for turn_id in ("turn", "red", "turn-2"):
            lost = status_pb2.Status.FromString(_led(provider_id, turn_id).lost)
            expected = status_of(StreamLost(provider_id, turn_id))

            assert lost.message == expected.message
            assert [detail.type_url for detail in lost.details] == [detail.type_url for detail in expected.details]
            assert sorted(lost.details[0].value) == sorted(expected.details[0].value)  # A map has no order.
