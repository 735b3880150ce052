"""Serves one provider's service: ``alive-launcher --socket … --service-uid … --program …``.

A request is one line of JSON on a unix socket, with descriptors beside it. Only the service's UID may ask, and all it
can say is which workspace, with which arguments and variables, and whether the agent may write.
"""

import argparse
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alive_launcher.box import Box, Layout
from alive_launcher.boxes import Boxes, CannotStart, Client, log
from alive_launcher.memory import MemoryLimits

UIDS = range(45000, 46000)
"""Agents' UIDs, one for each workspace: that of the workspace's owner."""

_SLUG = re.compile(r"[a-z0-9](?!.*\.\.)([a-z0-9.-]{0,61}[a-z0-9])?")
_PATTERN = re.compile(r"[A-Za-z0-9._*/-]+")
_FILE = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REQUEST_BYTES = 4 << 20
_REQUEST_SECONDS = 10.0
_DESCRIPTORS = 32
_ADOPTION_SECONDS = 3.0


class Launcher:
    """Takes requests and has them carried out."""

    def __init__(self, boxes: Boxes, service_uid: int) -> None:
        self._boxes = boxes
        self._service_uid = service_uid

    def serve(self, listening: socket.socket) -> None:
        """Answer everybody, each in a thread of its own: a box dies with the thread that started it."""
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            with connection:
                answer = self._carry_out(connection, descriptors)
                connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:  # The client is gone: nobody is there to be told.
            pass
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _carry_out(self, connection: socket.socket, descriptors: list[int]) -> Mapping[str, Any]:
        peer = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if peer != self._service_uid:
            log(f"refused UID {peer}")
            return {"error": f"UID {peer} may not ask"}
        try:
            request = _receive(connection, descriptors)
            if "end" in request:
                self._boxes.end(str(request["end"]))
                return {}
            if "mark" in request:
                self._boxes.mark(str(request["mark"]))
                return {}
            if "sweep" in request:
                return {"swept": self._boxes.sweep(str(request["sweep"]))}
            if "probe" in request:
                return {"facts": self._boxes.probe(UIDS[0] if self._boxes.is_root else os.geteuid())}
            for what in ("find", "delete"):
                if what in request:
                    return {"found": self._files(what, request)}
            return {"code": self._start(request, connection, descriptors)}
        except (CannotStart, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log(f"refused: {error}")
            return {"error": str(error)}

    def _start(self, request: Mapping[str, Any], connection: socket.socket, descriptors: list[int]) -> int:
        workspace = _matching(_SLUG, request["workspace"])
        uid = self._owner(workspace)
        variables = {_matching(_VARIABLE, name): str(value) for name, value in request["environment"].items()}
        box = Box(workspace=workspace, uid=uid, environment=variables, read_only=bool(request["read_only"]))
        home = self._boxes.layout.homes / workspace
        paths = [str(home / _file(name)) for name in request["files"]]
        if len(descriptors) != 3 + len(paths):
            raise ValueError("a descriptor for each of the standard streams and for each file is needed")
        client = Client(connection=connection, standard=descriptors[:3])
        files = dict(zip(paths, descriptors[3:], strict=True))
        box_id = str(request["start"])
        log(f"box {box_id}: workspace {workspace}, UID {uid}")
        code = self._boxes.run(box_id, box, [str(word) for word in request["arguments"]], files, client)
        log(f"box {box_id}: ended with {code}")
        return code

    def _files(self, what: str, request: Mapping[str, Any]) -> bool:
        """Find or delete what patterns below a workspace's home match; return whether there was anything."""
        workspace = _matching(_SLUG, request["workspace"])
        patterns = [_matching(_PATTERN, pattern) for pattern in request[what]]
        if any(".." in pattern or pattern.startswith("/") for pattern in patterns):
            raise ValueError("a pattern stays below the home")
        return self._boxes.files(what, self._boxes.layout.homes / workspace, self._owner(workspace), patterns)

    def _owner(self, workspace: str) -> int:
        """Return the UID for a workspace's agents; one that was just made may still be given its owner."""
        path, due = self._boxes.layout.workspaces / workspace, time.monotonic() + _ADOPTION_SECONDS
        allowed = UIDS if self._boxes.is_root else range(os.geteuid(), os.geteuid() + 1)
        while (owner := path.lstat().st_uid) not in allowed or not path.is_dir() or path.is_symlink():
            if time.monotonic() > due:
                cure = f"make it an agent's: `make workspace NAME={workspace}`"
                raise CannotStart(f"workspace {workspace} belongs to UID {owner}: {cure}")
            time.sleep(0.05)
        return owner


def _receive(connection: socket.socket, descriptors: list[int]) -> Mapping[str, Any]:
    connection.settimeout(_REQUEST_SECONDS)
    received = b""
    while not received.endswith(b"\n"):
        chunk, more, _, _ = socket.recv_fds(connection, 1 << 16, _DESCRIPTORS)
        descriptors += more
        received += chunk
        if not chunk or len(received) > _REQUEST_BYTES:
            raise ValueError("the request has no end")
    connection.settimeout(None)
    request: Mapping[str, Any] = json.loads(received)
    return request


def _matching(pattern: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"{text!r} is not allowed")
    return text


def _file(name: object) -> str:
    path = _matching(_FILE, name)
    if {"..", "."} & set(path.split("/")):
        raise ValueError(f"{name!r} leads elsewhere")
    return path


def main() -> None:
    """Serve until SIGTERM; every box ends with it."""
    options = _options()
    layout = Layout(
        program=options.program,
        workspaces=options.workspaces,
        homes=options.homes,
        kept=tuple(options.keep),
        read_only=tuple(options.read_only),
        gateway=options.gateway,
        port=options.port,
        nested=options.nested,
    )
    boxes = Boxes(layout=layout, is_root=os.geteuid() == 0, memory=MemoryLimits(options.memory_mb << 20))
    log(f"memory of each box: {f'{options.memory_mb} MiB' if boxes.memory.hold else 'not limited by itself'}")
    try:
        log(f"boxes can be built: {dict(boxes.probe(UIDS[0] if boxes.is_root else os.geteuid()))}")
    except (CannotStart, OSError) as error:
        log(f"no box can be built: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(options.socket))
        options.socket.chmod(0o660)  # Its directory gives it the group of the service.
        listening.listen(128)
        log(f"serving on {options.socket}")
        launcher = Launcher(boxes, options.service_uid)
        try:
            if options.service:
                threading.Thread(target=launcher.serve, args=(listening,), daemon=True).start()
                sys.exit(_run_service(options))
            launcher.serve(listening)
        finally:
            boxes.end_all()


def _run_service(options: argparse.Namespace) -> int:
    """Run the service under its UID, and return its exit code; SIGTERM is passed on to it."""
    identity = ["--reuid", str(options.service_uid), "--regid", str(options.service_uid)]
    groups = ["--groups", options.service_groups] if options.service_groups else ["--clear-groups"]
    bounds = [*groups, "--no-new-privs", "--inh-caps=-all", "--pdeathsig", "KILL", "--"]
    service = subprocess.Popen(["setpriv", *identity, *bounds, *options.service])  # noqa: S603, S607  # The operator's words.
    signal.signal(signal.SIGTERM, lambda *_: service.terminate())
    return service.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="alive-launcher", description="Starts the agents of one provider in boxes.")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to serve on")
    parser.add_argument("--service-uid", type=int, required=True, help="the only UID that may ask")
    parser.add_argument("--program", type=Path, required=True, help="the vendor's CLI: nothing else is started")
    parser.add_argument("--workspaces", type=Path, required=True, help="directory of the workspaces")
    parser.add_argument("--homes", type=Path, required=True, help="directory of the vendor's files of each workspace")
    parser.add_argument("--keep", action="append", default=[], help="what of a home outlives its box")
    parser.add_argument("--read-only", type=Path, action="append", default=[], help="seen inside, beside /usr")
    parser.add_argument("--gateway", type=Path, help="directory of the key gateway's socket")
    parser.add_argument("--port", type=int, default=43005, help="loopback port inside that leads to the gateway")
    parser.add_argument("--memory-mb", type=int, default=2048, help="memory of a box in MiB, where it can be limited")
    parser.add_argument("--service-groups", default="", help="groups of the service, with commas")
    parser.add_argument("service", nargs="*", help="the service, if the launcher is to start it; it ends with it")
    parser.add_argument("--nested", action="store_true", help="let the CLI build boxes of its own inside")
    return parser.parse_args()


if __name__ == "__main__":
    main()
