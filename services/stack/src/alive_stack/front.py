"""What callers reach: the router, and the edge before it where one is wanted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alive_stack.declarations import EDGE_UID, ROUTER_UID, WORKSPACES_GID, Declaration
from alive_stack.host import Host
from alive_stack.processes import Service

COMMON = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
"""Variables of every service."""

PASSED_ON = ("ALIVE_LOG_LEVEL", "ALIVE_DEADLINE_SECONDS", "ALIVE_IDLE_SECONDS", "ALIVE_DRAIN_SECONDS")
"""The operator's variables that router and providers are given."""

_ROUTER_SETTINGS = (
    *PASSED_ON,
    "ALIVE_DEFAULT_PROVIDER",
    "ALIVE_DISABLED_PROVIDERS",
    "ALIVE_DATABASE_URL",
    "ALIVE_HANDOVER_BYTES",
    "ALIVE_CALLERS_FILE",
    "ALIVE_ROLLOUT",
    "ALIVE_TURN_KEEP_SECONDS",
    "ALIVE_USAGE_KEEP_SECONDS",
)
_EDGE_SETTINGS = ("ALIVE_DRAIN_SECONDS", "ALIVE_EDGE_ORIGINS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The router and its edge, on one host."""

    host: Host
    venvs: Path
    providers: list[Declaration]
    listen: str
    """Where callers reach them."""
    environment: Mapping[str, str]
    """The operator's variables."""

    @property
    def has_edge(self) -> bool:
        """Whether callers reach the router by way of an edge."""
        return self.environment.get("ALIVE_EDGE", "").lower() in {"true", "1"}

    def services(self) -> list[Service]:
        """Return them, in the order in which they start."""
        return [self._router(), *([self._edge()] if self.has_edge else [])]

    def _router(self) -> Service:
        where = {"ALIVE_LISTEN": self.listen}
        if self.has_edge:
            where = {
                "ALIVE_LISTEN": f"unix:{self.host.router_socket}",
                "ALIVE_EDGE_LISTEN": f"unix:{self.host.edge_socket}",
            }
        environment = {
            **COMMON,
            **where,
            "ALIVE_WORKSPACES": str(self.host.workspaces),
            "ALIVE_STATE_DIR": str(self.host.private("router")),
            **given(self.environment, (*_ROUTER_SETTINGS, *(_flag(provider.name) for provider in self.providers))),
            "ALIVE_PROVIDERS": self._endpoints(),
        }
        groups = (WORKSPACES_GID, *(provider.uid for provider in self.providers))
        return self._service("router", ROUTER_UID, groups, environment)

    def _edge(self) -> Service:
        environment = {
            **COMMON,
            "ALIVE_LISTEN": self.listen,
            "ALIVE_ROUTER": f"unix:{self.host.router_socket}",
            "ALIVE_EDGE_AUTHZ": f"unix:{self.host.edge_socket}",
            "ALIVE_STATE_DIR": str(self.host.private("edge")),
            **given(self.environment, _EDGE_SETTINGS),
            "ALIVE_PROVIDERS": self._endpoints(),
        }
        return self._service("edge", EDGE_UID, tuple(provider.uid for provider in self.providers), environment)

    def _service(self, name: str, uid: int, groups: tuple[int, ...], environment: Mapping[str, str]) -> Service:
        return Service(
            name=name,
            command=(str(self.venvs / name / "bin/python"), "-m", f"alive_{name}"),
            environment=environment,
            uid=uid,
            groups=groups,
            log=self.host.logs / f"{name}.log",
        )

    def _endpoints(self) -> str:
        """Return where the providers are."""
        endpoints = [f"{provider.name}=unix:{self.host.socket(provider.name)}" for provider in self.providers]
        return self.environment.get("ALIVE_PROVIDERS") or ",".join(endpoints)


def given(environment: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """Return those of some variables that the operator has set."""
    return {name: environment[name] for name in names if name in environment}


def _flag(name: str) -> str:
    """Return the variable that switches a provider off for everybody."""
    return f"ENABLE_{name.upper().replace('-', '_')}_PROVIDER"
