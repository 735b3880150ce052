"""Asks a server whether it serves: ``python -m alive_kit.health unix:/path``. For containers' health checks."""

import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 3.0


def main() -> None:
    """Exit with 0 when the server serves, else with 1."""
    with grpc.insecure_channel(sys.argv[1]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # Its types know the asyncio stub only.
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError as error:
            sys.exit(f"{sys.argv[1]}: {error}")
    sys.exit(answer.status != health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    main()
