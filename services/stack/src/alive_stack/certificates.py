"""Makes certificates for development: who shows which, and which authority vouches for it.

There is an authority for each role. The router lets in whom ``callers`` vouches for, a provider whom ``router`` vouches
for, and nobody else; so a caller cannot go past the router, nor one provider to another.
"""

import datetime as dt
import os
from collections.abc import Mapping
from pathlib import Path

import trustme

from alive_stack.declarations import EDGE_UID, ROUTER_UID

_VALID = dt.timedelta(days=365)
_CALLERS = """\
# Who may call the router: the holder of caller.pem, everything. For development.
[[callers]]
name = "caller"
owner = "development"
workspaces = ["*"]
scopes = ["turns", "sessions", "settings", "usage", "providers", "rollout"]
certificates = ["caller"]
"""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def make_certificates(directory: Path, providers: Mapping[str, int]) -> list[Path]:
    """Write certificates, keys and authorities below a directory, and return the files.

    Providers are UIDs by name: as root each key gets its owner.

    Each name gets ``<name>.pem`` and ``<name>.key``, each authority ``<role>-ca.pem``, and ``callers.toml`` lets in
    the holder of ``caller.pem``. Each is replaced as a whole, so that a service that watches it never sees half of one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    expires = dt.datetime.now(tz=dt.UTC) + _VALID
    holders = {"callers": {"caller": 0}, "router": {"router": ROUTER_UID, "edge": EDGE_UID}, "providers": providers}
    written = []
    for role, names in holders.items():
        authority = trustme.CA(organization_name="Alive Agents", organization_unit_name=f"{role}, for development")
        written.append(_write(directory / f"{role}-ca.pem", authority.cert_pem.bytes(), 0o644))
        for name, uid in names.items():
            made = authority.issue_cert(name, *_LOOPBACK, common_name=name, not_after=expires)
            chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
            # The key first: a service that looks in between keeps the old pair until both have changed.
            written.append(_write(directory / f"{name}.key", made.private_key_pem.bytes(), 0o400, uid))
            written.append(_write(directory / f"{name}.pem", chain, 0o644))
    return [*written, _write(directory / "callers.toml", _CALLERS.encode(), 0o644)]


def _write(path: Path, content: bytes, mode: int, uid: int = 0) -> Path:
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    fresh.chmod(mode)
    if os.geteuid() == 0:
        os.chown(fresh, uid, uid)
    fresh.rename(path)
    return path
