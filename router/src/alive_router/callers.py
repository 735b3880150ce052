"""Who may call the router: bearer tokens and certificates of callers, with what each may do in which workspaces.

Callers are declared in a TOML file that holds hashes of tokens, never tokens. A file that is replaced holds from the
next call on; one that is broken is refused loudly, and the callers known before stay.
"""

import hashlib
import hmac
import logging
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args

from google.protobuf.message import Message
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from alive_kit.errors import Forbidden, IdentityMissing, WorkspaceNotFound
from alive_kit.tls import is_vouched_for
from alive_kit.validation import is_slug

logger = logging.getLogger(__name__)

Scope = Literal["turns", "sessions", "settings", "usage", "providers", "rollout"]

_EVERY_SCOPE: tuple[Scope, ...] = get_args(Scope)

SCOPES: dict[str, Scope] = {
    "StartTurn": "turns",
    "WatchTurn": "turns",
    "InterruptTurn": "turns",
    "SteerTurn": "turns",
    "ResolveApproval": "turns",
    "ReadItemContent": "turns",
    "ListSessions": "sessions",
    "GetSession": "sessions",
    "ForkSession": "sessions",
    "DeleteSession": "sessions",
    "ListItems": "sessions",
    "GetWorkspace": "settings",
    "UpdateWorkspace": "settings",
    "GetUsage": "usage",
    "ListProviders": "providers",
    "GetProviderInfo": "providers",
    "GetRollout": "rollout",
    "UpdateRollout": "rollout",
}
"""What each call needs."""

_BEARER = "bearer "

FORWARDED_CERTIFICATE = "x-forwarded-client-cert"
"""Where the edge says whose certificate it was shown."""

_PART = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^;,"]*))')
_COMMON_NAME = re.compile(r"(?:^|,)CN=((?:[^,\\]|\\.)*)")

_STRICT = ConfigDict(frozen=True, extra="forbid")


class Token(BaseModel):
    """A bearer token that a caller may show."""

    model_config = _STRICT

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Its hash, in hexadecimal: `make token` prints it."""

    expires: AwareDatetime | None = None
    """When it stops being valid; never without it."""


class Caller(BaseModel):
    """Somebody who may call."""

    model_config = _STRICT

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """For people and logs."""

    owner: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$")]
    """On whose behalf its turns run; several callers may have the same."""

    workspaces: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]*\*?$", min_length=1)], ...]
    """Ids, or beginnings of ids with a ``*`` behind them."""

    scopes: tuple[Scope, ...] = ("turns", "sessions", "settings", "usage", "providers")
    """What it may do; all but changing rollouts without it."""

    tokens: tuple[Token, ...] = ()
    """Any of them will do: the new one beside the old one while they are exchanged."""

    certificates: tuple[str, ...] = ()
    """Names (subject alternative or common) of certificates that it may show instead."""

    def may_use(self, workspace_id: str) -> bool:
        """Whether a workspace is one of its own."""
        return any(_matches(pattern, workspace_id) for pattern in self.workspaces)

    @model_validator(mode="after")
    def _check_identity(self) -> "Caller":
        if not self.tokens and not self.certificates:
            raise ValueError("nobody can be this caller: give it tokens or certificates")
        return self


class CallersFile(BaseModel):
    """The file."""

    model_config = _STRICT

    callers: tuple[Caller, ...]

    @classmethod
    def read(cls, path: Path) -> "CallersFile":
        """Read a file.

        Raises:
            ValueError: it cannot be read, or is not what it should be; the text says where.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror})") from error
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise ValueError(f"{path}: {where}: {problem['msg']}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


ANYBODY = Caller.model_construct(name="anybody", owner="", workspaces=("*",), scopes=_EVERY_SCOPE)
"""Who calls where no callers are declared."""


class Shown(Protocol):
    """What a call shows of its caller; the context of every call does."""

    def invocation_metadata(self) -> Any:
        """Return its metadata."""

    def auth_context(self) -> Any:
        """Return what is known of its connection."""

    def peer(self) -> str:
        """Return whom the connection is with."""


class Callers:
    """Tells who calls, and what that caller may do."""

    def __init__(self, path: Path | None, *, is_behind_edge: bool = False) -> None:
        self._path = path
        self._is_behind_edge = is_behind_edge
        self._version: object = None
        self._known: tuple[Caller, ...] = ()
        if path:
            self._known = CallersFile.read(path).callers
            self._version = _version(path)

    @property
    def are_declared(self) -> bool:
        """Whether there is a file; without one anybody may do anything."""
        return self._path is not None

    def identify(self, shown: Shown) -> Caller:
        """Return who calls.

        Raises:
            IdentityMissing: nobody who is declared.
        """
        if not self._path:
            return ANYBODY
        self._refresh(self._path)
        tokens = _said(shown, "authorization")
        found = self._with_token(tokens) if tokens else self._with_certificate(shown)
        if found is None:
            raise IdentityMissing
        return found

    def admit(self, method: str, request: Message, shown: Shown) -> None:
        """Let a call pass that its caller may make. What is somebody else's is not there.

        Raises:
            IdentityMissing: nobody who is declared calls.
            Forbidden: the caller may not make such calls.
            WorkspaceNotFound: a workspace is not the caller's, whether it exists or not.
        """
        caller = self.identify(shown)
        for scope in _scopes(method, request):
            if scope not in caller.scopes:
                raise Forbidden(
                    f"{caller.name!r} may not call {method}: it needs the scope {scope!r}", scope=str(scope)
                )
        for workspace_id in _workspaces_of(request):
            if is_slug(workspace_id) and not caller.may_use(workspace_id):  # What is no id is refused as such.
                raise WorkspaceNotFound(workspace_id)

    def _with_token(self, shown: list[str]) -> Caller | None:
        """Return whose token is shown. Every hash is compared, so that time tells nothing."""
        if len(shown) != 1 or not shown[0].lower().startswith(_BEARER):
            return None
        digest = hashlib.sha256(shown[0][len(_BEARER) :].strip().encode()).hexdigest()
        now, found = datetime.now(UTC), None
        for caller in self._known:
            for token in caller.tokens:
                is_it = hmac.compare_digest(token.sha256, digest)
                if is_it and (token.expires is None or now < token.expires):
                    found = caller
        return found

    def _with_certificate(self, shown: Shown) -> Caller | None:
        """Return whose certificate is shown: to the router, or to the edge, which alone has a unix socket."""
        if self._is_behind_edge and shown.peer().startswith("unix:"):
            names = {name for said in _said(shown, FORWARDED_CERTIFICATE) for name in names_of(said)}
        elif is_vouched_for(shown):
            names = _names_shown(shown.auth_context())
        else:
            return None
        return next((caller for caller in self._known if names.intersection(caller.certificates)), None)

    def _refresh(self, path: Path) -> None:
        """Read the file again when it has been replaced."""
        version = _version(path)
        if version == self._version:
            return
        self._version = version
        try:
            self._known = CallersFile.read(path).callers
            logger.info("%d callers are declared", len(self._known))
        except ValueError as error:
            logger.error("the new callers are NOT in force, the old ones stay: %s", error)


def _said(shown: Shown, name: str) -> list[str]:
    """Return what metadata says under a name."""
    return [str(value) for key, value in shown.invocation_metadata() or () if key == name]


def _names_shown(known: Mapping[str, Iterable[bytes]]) -> set[str]:
    """Return the names of the certificate that a connection was made with."""
    keys = ("x509_subject_alternative_name", "x509_common_name")
    return {name.decode(errors="replace") for key in keys for name in known.get(key, ())}


def names_of(forwarded: str) -> Iterator[str]:
    """Yield the names of a certificate, from what Envoy forwards of it: ``Subject="CN=…";DNS=…``."""
    for key, quoted, plain in _PART.findall(forwarded):
        value = quoted or plain
        if key in {"DNS", "URI"}:
            yield value
        elif key == "Subject":
            yield from _COMMON_NAME.findall(value)


def _version(path: Path) -> object:
    """Return something that differs once a file has been replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _matches(pattern: str, workspace_id: str) -> bool:
    if pattern.endswith("*"):
        return workspace_id.startswith(pattern[:-1])
    return workspace_id == pattern


def _scopes(method: str, request: Message) -> Iterator[Scope | None]:
    """Yield what a call needs: one that has an agent start needs what starting turns does."""
    yield SCOPES.get(method)
    if getattr(request, "warm", False):
        yield "turns"


def _workspaces_of(request: Any) -> Iterator[str]:
    """Yield every workspace that a request names."""
    fields = request.DESCRIPTOR.fields_by_name
    if "workspace_id" in fields:
        yield request.workspace_id
    if "permissions" in fields:
        yield from request.permissions.extra_directories
    if "settings" in fields:
        yield from request.settings.permissions.extra_directories
