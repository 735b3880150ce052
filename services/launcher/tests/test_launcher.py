"""The launcher over its socket, with real boxes: who may ask, what may be asked, what is inside, what is left."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

OWNER = 45007 if os.geteuid() == 0 else os.geteuid()
NEIGHBOUR = 45008 if os.geteuid() == 0 else os.geteuid()
SECONDS = 20
MEMORY_MB = 128

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="no boxes: apt-get install bubblewrap socat")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give each workspace a UID of its own")


@dataclass(slots=True)
class Answer:
    """What came of a request."""

    said: dict[str, Any]
    output: str = ""


@dataclass(slots=True)
class Client:
    """Asks a launcher whose program is a shell."""

    directory: Path
    process: "subprocess.Popen[str]"
    said: str = ""
    """What the launcher said at its start."""
    next_id: int = 0
    opened: list[socket.socket] = field(default_factory=list)

    def send(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> socket.socket:
        """Send a request and return its connection."""
        connection = socket.socket(socket.AF_UNIX)
        self.opened.append(connection)
        connection.settimeout(SECONDS)
        connection.connect(str(self.directory / "launcher.sock"))
        socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], list(descriptors))
        return connection

    def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """Send a request and return the answer."""
        return answer_of(self.send(request, descriptors))

    def start(self, script: str, **fields: Any) -> tuple[socket.socket, int]:
        """Start a box and return its connection, and where its output can be read."""
        self.next_id += 1
        request = {
            "start": f"box-{self.next_id}",
            "workspace": "demo",
            "arguments": ["-c", script],
            "environment": {"PATH": "/usr/bin:/bin", "TOKEN": "canary-token"},
            "files": [],
            "read_only": False,
            **fields,
        }
        read, write = os.pipe()
        with open(os.devnull) as nothing:
            connection = self.send(request, [nothing.fileno(), write, write])
        os.close(write)
        return connection, read

    def run(self, script: str, **fields: Any) -> Answer:
        """Run a script in a box to its end."""
        connection, read = self.start(script, **fields)
        with open(read) as output:
            text = output.read()
        return Answer(said=answer_of(connection), output=text)


def answer_of(connection: socket.socket) -> dict[str, Any]:
    """Return what a launcher answers."""
    with connection.makefile() as answer:
        return json.loads(answer.readline() or '{"error": "nothing"}')


@contextlib.contextmanager
def launching(*, service_uid: int | None = None) -> Iterator[Client]:
    """Run a launcher with the capabilities it needs and no others, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        for workspace, uid in (("demo", OWNER), ("neighbour", NEIGHBOUR)):
            (directory / "workspaces" / workspace).mkdir(parents=True)
            (directory / "workspaces" / workspace / "mine.txt").write_text(f"of {workspace}\n")
            os.chown(directory / "workspaces" / workspace, uid, -1)
        (directory / "homes").mkdir()
        (directory / "homes").chmod(0o1733)
        (directory / "gateway").mkdir()
        bounded = ["setpriv", "--no-new-privs", "--bounding-set=-all,+setuid,+setgid,+kill", "--inh-caps=-all", "--"]
        options = {
            "--socket": directory / "launcher.sock",
            "--service-uid": os.geteuid() if service_uid is None else service_uid,
            "--program": "/bin/sh",
            "--workspaces": directory / "workspaces",
            "--homes": directory / "homes",
            "--keep": ".vendor/sessions",
            "--gateway": directory / "gateway",
            "--memory-mb": MEMORY_MB,
        }
        words = [str(word) for option in options.items() for word in option]
        process = subprocess.Popen(
            [*(bounded if os.geteuid() == 0 else []), sys.executable, "-m", "alive_launcher", *words],
            env={"PATH": "/usr/sbin:/usr/bin:/bin"},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        client = Client(directory, process)
        try:
            for line in process.stderr:
                client.said += line
                if "serving on" in line:
                    break
            yield client
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)
            for connection in client.opened:
                connection.close()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Return the client of a launcher that runs."""
    with launching() as running:
        yield running


def running(words: str) -> bool:
    """Whether a process with these words runs anywhere."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and words.encode() in (entry / "cmdline").read_bytes().replace(b"\0", b" "):
                return True
    return False


def test_a_box_says_what_its_program_says(client: Client) -> None:
    """Its output, and its exit code."""
    answer = client.run("echo hello; exit 7")

    assert answer.output == "hello\n"
    assert answer.said == {"code": 7}


def test_its_process_is_nobody_but_the_agent(client: Client) -> None:
    """No capability, none to be gained, no user namespace to be made."""
    answer = client.run("id -u; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; unshare -Ur true || echo none")

    assert answer.output.split() == [
        str(OWNER), "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1", *answer.output.split()[7:],
    ]  # fmt: skip
    assert answer.output.endswith("none\n")


def test_it_sees_its_own_workspace_alone(client: Client) -> None:
    """Nothing of other workspaces, of the host, of other processes; nothing but loopback."""
    root = client.directory
    answer = client.run(
        f"cat mine.txt; ls {root}/workspaces {root}/homes; ls /root /home /srv /var/lib 2>&1;"
        " echo $(ls -d /proc/[0-9]* | wc -l) processes, $(grep -c : /proc/net/dev) interface"
    )
    processes = int(answer.output.splitlines()[-1].split()[0])

    assert answer.output.startswith("of demo\n")
    assert "neighbour" not in answer.output
    assert answer.output.count("No such file") == 4
    assert processes < 10
    assert answer.output.endswith(", 1 interface\n")


def test_it_writes_in_its_workspace_alone(client: Client) -> None:
    """As its own UID. What is not kept of its home is gone afterwards."""
    home = client.directory / "homes/demo"
    script = (
        f"echo x > new.txt; echo x > {home}/.vendor/sessions/s; echo x > {home}/rules; echo x > /usr/x; echo x > /x"
    )
    answer = client.run(script)
    seen = client.run(f"ls -A {home} {home}/.vendor/sessions")

    assert answer.output.count("Read-only file system") == 2
    assert (client.directory / "workspaces/demo/new.txt").stat().st_uid == OWNER
    assert "rules" not in seen.output
    assert seen.output.endswith("s\n")
    assert not (home / "rules").exists()


def test_a_read_only_box_writes_nowhere(client: Client) -> None:
    """But in its temporary directory."""
    answer = client.run("echo x > other.txt; echo x > /tmp/x && echo tmp", read_only=True)

    assert "Read-only file system" in answer.output
    assert answer.output.endswith("tmp\n")


def test_variables_are_those_declared_and_on_no_command_line(client: Client) -> None:
    """Everybody on the host can read command lines."""
    connection, read = client.start("env; echo ready; sleep 60")
    with open(read) as output:
        lines = []
        while "ready\n" not in lines:
            lines.append(output.readline())
        seen = running("canary-token")
        connection.close()
        output.read()

    assert {line.partition("=")[0] for line in lines[:-1]} <= {"PATH", "TOKEN", "PWD"}
    assert not seen


def test_a_file_is_handed_over_without_a_disk(client: Client) -> None:
    """It is where it was said to be, cannot be changed, and is gone with the box."""
    path = client.directory / "homes/demo/.vendor/config.toml"
    descriptor = os.memfd_create("handed")
    os.write(descriptor, b"secret = 1\n")
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(os.devnull) as nothing, tempfile.TemporaryFile() as output:
        standard = [nothing.fileno(), output.fileno(), output.fileno()]
        request = {
            "start": "handed",
            "workspace": "demo",
            "arguments": ["-c", f"cat {path}; echo more >> {path} || echo kept; rm {path} || echo there"],
            "environment": {},
            "files": [".vendor/config.toml"],
            "read_only": False,
        }
        client.ask(request, [*standard, descriptor])
        output.seek(0)
        said = output.read().decode()
    os.close(descriptor)

    assert said.startswith("secret = 1\n")
    assert "kept\n" in said
    assert "there\n" in said
    assert not path.exists() or path.read_text() == ""


def test_nothing_outlives_a_box(client: Client) -> None:
    """Processes that left their session, were orphaned, or ignore every signal."""
    answer = client.run("setsid sh -c 'trap \"\" TERM HUP INT; sleep 4711 & sleep 4712' & sleep 0.2; echo over")

    assert answer.output == "over\n"
    assert not running("sleep 471")


def test_whoever_goes_away_takes_the_box_along(client: Client) -> None:
    """The connection is the box's life."""
    connection, read = client.start("echo on; sleep 4713")
    with open(read) as output:
        output.readline()
        connection.close()
        output.read()  # Ends when the last process of the box has.

    assert not running("sleep 4713")


def test_a_box_is_ended_by_name_and_for_good(client: Client) -> None:
    """Before it begins, while it runs, and again afterwards."""
    assert client.ask({"end": "never-begun"}) == {}
    assert "ended" in client.run("echo no", start="never-begun").said["error"]
    connection, read = client.start("echo on; sleep 4714", start="named")
    with open(read) as output:
        output.readline()
        assert client.ask({"end": "named"}) == {}
        assert not running("sleep 4714")
        assert output.read() == ""
    assert answer_of(connection) == {"code": 137}
    assert client.ask({"end": "named"}) == {}


def test_boxes_end_with_their_launcher() -> None:
    """Killed, so that it cannot see to it itself."""
    with launching() as client:
        _, read = client.start("echo on; setsid sleep 4715")
        with open(read) as output:
            output.readline()
            client.process.kill()
            output.read()

        assert not running("sleep 4715")


@pytest.mark.parametrize(
    "fields",
    [
        {"workspace": "../demo"},
        {"workspace": "demo/../neighbour"},
        {"workspace": ""},
        {"workspace": 7},
        {"workspace": "missing.example"},
        {"environment": {"A=B": "c"}},
        {"environment": ["A"]},
        {"files": ["../../escape"]},
        {"files": ["/etc/passwd"]},
        {"files": ["one"]},
        {"start": None, "arguments": None},
    ],
)
def test_what_is_not_allowed_is_refused(client: Client, fields: dict[str, Any]) -> None:
    """Nothing is started, and the launcher goes on."""
    answer = client.run("echo started", **fields)

    assert "error" in answer.said
    assert answer.output == ""
    assert client.run("echo on").output == "on\n"


def test_nonsense_is_refused(client: Client) -> None:
    """What is no request at all."""
    assert "error" in client.ask({})
    connection = client.send({})
    connection.close()
    assert client.run("echo on").output == "on\n"


@needs_root
def test_a_workspace_that_is_no_agents_is_refused_with_a_cure(client: Client) -> None:
    """Root's own, and a link to another one."""
    (client.directory / "workspaces/roots").mkdir()
    (client.directory / "workspaces/link").symlink_to("neighbour")
    roots, link = client.run("echo started", workspace="roots"), client.run("echo started", workspace="link")

    assert "make workspace NAME=roots" in roots.said["error"]
    assert "error" in link.said
    assert roots.output == link.output == ""


@needs_root
def test_only_its_service_may_ask() -> None:
    """Not even root."""
    with launching(service_uid=43002) as client:
        assert client.ask({"probe": True}) == {"error": "UID 0 may not ask"}


@needs_root
def test_it_says_what_stands(client: Client) -> None:
    """As seen from inside and from outside of a box."""
    facts = client.ask({"probe": True})["facts"]

    assert facts == {"own_uid": True, "own_proc": True, "network": False, "no_new_privileges": True}


def test_a_fork_bomb_hits_its_limit(client: Client) -> None:
    """And nobody else notices."""
    answer = client.run("i=0; while [ $i -lt 600 ]; do sleep 30 & i=$((i+1)); done; echo all")

    assert "all" not in answer.output
    assert "Resource temporarily unavailable" in answer.output or "Cannot fork" in answer.output
    assert client.run("echo on").output == "on\n"


def test_a_memory_bomb_hits_its_limit(client: Client) -> None:
    """What is taken by a box is not taken from others; nothing of its control group is left."""
    if f"memory of each box: {MEMORY_MB} MiB" not in client.said:
        pytest.skip("memory: the launcher may not make control groups here")
    take = "/usr/bin/python3 -c 'b = bytearray(%d << 20); print(len(b) >> 20)'"
    bomb, modest = client.run(take % (MEMORY_MB * 2)), client.run(take % (MEMORY_MB // 4))

    assert bomb.output != f"{MEMORY_MB * 2}\n"
    assert bomb.said != {"code": 0}
    assert modest.output == f"{MEMORY_MB // 4}\n"
    assert not list(Path("/sys/fs/cgroup").rglob(f"alive-{client.process.pid}-*"))


@contextlib.contextmanager
def waiting(client: Client, script: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """Have a box that goes on line by line; yield its id, and what has it go on and returns what it says then."""
    fifo = client.directory / "workspaces/demo/fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    connection, read = client.start(script)
    box_id = f"box-{client.next_id}"

    def go_on() -> str:
        fifo.write_text("\n")
        return output.readline().strip()

    with open(read) as output:
        assert output.readline() == "up\n"
        yield box_id, go_on
        client.ask({"end": box_id})
    fifo.unlink()
    connection.close()


def sleepers() -> set[str]:
    """Return how long whoever sleeps for such a test does."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, seconds = (entry / "cmdline").read_text().rstrip("\0").partition("\0")
            found |= {seconds} if name == "sleep" and seconds.startswith("5430") else set()
    return found


def test_a_sweep_ends_what_came_after_the_mark(client: Client) -> None:
    """Daemons and their children; what was there before stays, and another sweep finds nothing."""
    script = (
        "sleep 54301 & echo up; read x <fifo;"
        " setsid sh -c 'sleep 54302 & sleep 54303' & sleep 54304 & echo on; read x <fifo"
    )
    with waiting(client, script) as (box_id, go_on):
        client.ask({"mark": box_id})
        assert go_on() == "on"
        swept = [client.ask({"sweep": box_id}) for _ in range(2)]
        left = sleepers()

    assert swept == [{"swept": True}] * 2
    assert left == {"54301"}


def test_a_sweep_says_when_something_marked_is_gone(client: Client) -> None:
    """Whoever noted it counts on it."""
    with waiting(client, "sleep 54305 & echo up; read x <fifo; kill $!; wait; echo on; read x <fifo") as (
        box_id,
        go_on,
    ):
        client.ask({"mark": box_id})
        before = client.ask({"sweep": box_id})
        assert go_on() == "on"
        after = client.ask({"sweep": box_id})

    assert (before, after) == ({"swept": True}, {"swept": False})


def test_a_sweep_needs_a_mark_and_a_box(client: Client) -> None:
    """Nothing counts as there before, so nothing is shown."""
    with waiting(client, "echo up; read x <fifo") as (box_id, _):
        unmarked = client.ask({"sweep": box_id})
    gone = client.ask({"sweep": box_id})

    assert unmarked == {"swept": False}
    assert "no such box" in gone["error"]
