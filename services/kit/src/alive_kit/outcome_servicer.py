"""The OutcomeService of a provider: the router reads what became of turns."""

from alive.agent.v1 import outcome_service_pb2
from alive_kit.errors import Forbidden
from alive_kit.outbox import Outbox
from alive_kit.rpc import Context
from alive_kit.tls import is_from_router


class OutcomeServicer:
    """OutcomeService over an outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def WatchOutcomes(self, request: outcome_service_pb2.WatchOutcomesRequest, context: Context) -> None:
        """Stream outcomes to the router, and to nobody else."""
        if not is_from_router(context):
            raise Forbidden("outcomes are for the router: call through its unix socket, or with its certificate")
        async for response in self._outbox.follow(request.after_cursor):
            await context.write(response.SerializeToString())
