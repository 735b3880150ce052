"""The settings every provider service reads from its environment, with the prefix ``ALIVE_``."""

import sys
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from alive_kit.admission import Capacity
from alive_kit.tls import TlsFiles, is_open
from alive_kit.turn import Bounds
from alive_kit.warm import Warmth


class ListenSettings(BaseSettings):
    """Where a service listens, and whom it lets in."""

    model_config = SettingsConfigDict(env_prefix="ALIVE_", frozen=True, extra="ignore")

    listen: str
    """Where to serve: ``unix:/path`` or ``host:port``, several with commas. What other hosts can reach needs TLS."""

    tls_cert_file: Path | None = None
    """Certificate to show over TCP. With it every caller must show one too."""

    tls_key_file: Path | None = None
    """Private key of the certificate."""

    tls_clients_ca_file: Path | None = None
    """Authorities that vouch for callers."""

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        files = (self.tls_cert_file, self.tls_key_file, self.tls_clients_ca_file)
        names = "ALIVE_TLS_CERT_FILE, ALIVE_TLS_KEY_FILE and ALIVE_TLS_CLIENTS_CA_FILE"
        if any(files) and not all(files):
            raise ValueError(f"{names} belong together: set all of them")
        if is_open(self.listen) and not all(files):
            raise ValueError(f"ALIVE_LISTEN={self.listen} can be reached from other hosts: set {names}")
        return self

    @property
    def tls(self) -> TlsFiles | None:
        """What the server shows and trusts over TCP."""
        if not (self.tls_cert_file and self.tls_key_file and self.tls_clients_ca_file):
            return None
        return TlsFiles(cert=self.tls_cert_file, key=self.tls_key_file, authorities=self.tls_clients_ca_file)


class ServiceSettings(ListenSettings):
    """What a provider service needs to know about its surroundings."""

    workspaces: Path
    """Directory that holds one directory for each workspace."""

    state_dir: Path
    """The service's private directory."""

    homes: Path | None = None
    """Directory of the vendor's files of each workspace; below the private directory unless a launcher has another."""

    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    mcp_path: str = "/usr/local/bin:/usr/bin:/bin"
    """PATH on which commands of stdio MCP servers are found."""

    authz_listen: str = ""
    """Unix socket on which the key gateway asks for tokens, as ``unix:/path``; without it the service has the key."""

    deadline_seconds: float = Field(default=3600.0, gt=0)
    """How long a turn may run, unless the request says otherwise."""

    idle_seconds: float = Field(default=600.0, gt=0)
    """How long an agent may stay silent, unless the request says otherwise."""

    disconnect_grace_seconds: float = Field(default=60.0, ge=0)
    """How long a turn runs without a reader, unless the request says otherwise."""

    drain_seconds: float = Field(default=30.0, ge=0)
    """How long running turns may go on after SIGTERM."""

    turns: int = Field(default=20, ge=1)
    """How many turns run at once."""

    turns_per_owner: int = Field(default=3, ge=1)
    """How many of them may be of one owner. Where callers have no identity, each workspace is its own owner."""

    turns_per_workspace: int = Field(default=6, ge=1)
    """How many of them may be in one workspace."""

    queue: int = Field(default=200, ge=0)
    """How many turns may wait for a place; those beyond are refused."""

    queue_per_owner: int = Field(default=10, ge=0)
    """How many of those may be of one owner."""

    queue_per_workspace: int = Field(default=20, ge=0)
    """How many of those may be in one workspace."""

    busy_load: float = Field(default=2.0, gt=0)
    """Load average for each CPU above which background turns are refused."""

    overload: float = Field(default=8.0, gt=0)
    """Load average for each CPU above which every turn is refused but the first of a workspace."""

    keep_seconds: float = Field(default=30 * 86_400.0, gt=0)
    """How long the events of a turn are kept. Transcripts are kept until their session is deleted."""

    keep_bytes: int = Field(default=8 << 30, gt=0)
    """How large the service's database may grow before the events of the oldest turns are dropped."""

    outcome_keep_seconds: float = Field(default=90 * 86_400.0, gt=0)
    """How long what became of a turn is kept for the router to book it."""

    warm_seconds: float = Field(default=900.0, ge=0)
    """How long an agent waits for the next turn of its session; 0 ends it with its turn."""

    warm_age_seconds: float = Field(default=3600.0, gt=0)
    """How old an agent may be and still take another turn."""

    warm_agents: int = Field(default=24, ge=0)
    """How many agents may be up before those that wait make room, the longest waiting first; 50 to 150 MB each."""

    warm_ahead: bool = False
    """Whether a session whose agent could not wait gets a fresh one for its next turn as soon as its turn has ended."""

    def warmth(self) -> Warmth:
        """Return how long agents stay up between turns."""
        return Warmth(idle=self.warm_seconds, age=self.warm_age_seconds, agents=self.warm_agents, ahead=self.warm_ahead)

    def capacity(self) -> Capacity:
        """Return how many turns run and wait."""
        return Capacity(
            turns=self.turns,
            turns_of_owner=self.turns_per_owner,
            turns_of_workspace=self.turns_per_workspace,
            queued=self.queue,
            queued_of_owner=self.queue_per_owner,
            queued_of_workspace=self.queue_per_workspace,
        )

    def bounds(self) -> Bounds:
        """Return the bounds that hold for turns."""
        return Bounds(
            deadline=self.deadline_seconds, idle=self.idle_seconds, disconnect_grace=self.disconnect_grace_seconds
        )


def explain(error: ValidationError) -> int:
    """Print one line for each setting that is wrong and return the exit code for it."""
    for problem in error.errors():
        name = "_".join(str(part) for part in problem["loc"]).upper()
        message = str(problem["msg"]).removeprefix("Value error, ")
        print(f"ALIVE_{name}: {message}" if name else message, file=sys.stderr)
    return 2
