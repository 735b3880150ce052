"""Mutual TLS over TCP: who may call is whom one authority vouches for. Certificates are read anew when they change.

On a unix socket the permissions of its directory say who may call; nothing here applies.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
from pydantic import BaseModel, ConfigDict

_LOOPBACK = ("127.", "localhost:", "[::1]:")


class Connected(Protocol):
    """A call's connection; the context of every call tells of it."""

    def auth_context(self) -> Any:
        """Return what is known of who is at its other end."""


class TlsFiles(BaseModel):
    """What one side of a connection shows and trusts, as PEM files."""

    model_config = ConfigDict(frozen=True)

    cert: Path
    """Its own certificate, and those up to the authority."""

    key: Path
    """The certificate's private key."""

    authorities: Path
    """The authorities that vouch for the other side."""

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Return key, certificate and authorities.

        Raises:
            OSError: one of them cannot be read.
        """
        return self.key.read_bytes(), self.cert.read_bytes(), self.authorities.read_bytes()

    def version(self) -> Sequence[tuple[int, int]]:
        """Return something that differs once a file has been replaced."""
        found = [path.stat() for path in (self.cert, self.key, self.authorities)]
        return [(each.st_ino, each.st_mtime_ns) for each in found]


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that require a certificate of every caller, and follow the files.

    Raises:
        OSError: a file cannot be read.
    """
    known = files.version()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal known
        try:
            version = files.version()
            if version == known:
                return None
            fresh = _configuration(files)
        except OSError:  # It is being replaced; the next connection finds it.
            return None
        known = version
        return fresh

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files),
        fetch,  # type: ignore[arg-type]  # None means unchanged, says grpc.
        require_client_authentication=True,
    )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Return credentials for a connection to a server; they do not follow the files.

    Raises:
        OSError: a file cannot be read.
    """
    key, cert, authorities = files.read()
    return grpc.ssl_channel_credentials(authorities, key, cert)


def is_open(address: str) -> bool:
    """Whether one of several addresses can be reached from other hosts."""
    return not all(each.startswith(("unix:", *_LOOPBACK)) for each in address.split(","))


def is_vouched_for(context: Connected) -> bool:
    """Whether a call came over mutual TLS."""
    return bool(context.auth_context().get("transport_security_type") == [b"ssl"])


def is_from_router(context: "grpc.aio.ServicerContext[object, object]") -> bool:
    """Whether a call that reached a provider came from the router.

    On a unix socket the permissions of the socket's directory are the router's identity, and over TCP its
    certificate. Where there is neither nobody is the router.
    """
    return context.peer().startswith("unix:") or is_vouched_for(context)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    key, cert, authorities = files.read()
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=authorities)
