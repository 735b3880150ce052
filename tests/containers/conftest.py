"""The whole system in containers, from images that are built here."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from alive_stack.certificates import make_certificates
from alive_stack.declarations import declared
from alive_stack.stack import free_address

CHECKOUT = Path(__file__).parents[2]
BASE = "python:3.11-slim-bookworm"
DOCKER = "/usr/bin/docker"
"""Debian's own: another one on the PATH may be too new for its daemon."""
PROGRAMS = (DOCKER, "dockerd", "docker-compose", "mmdebstrap")
BUILD_SECONDS = 1200
BOUND = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """A system that runs."""

    directory: Path
    address: str
    """Where the router answers callers."""
    edge_address: str
    """Where the edge does."""
    model_port: int
    environment: dict[str, str]

    def compose(self, *words: str) -> str:
        """Run Compose and return what it says."""
        files = [
            word for name in ("compose.yaml", "compose.scripted.yaml", "compose.edge.yaml") for word in ("-f", name)
        ]
        return run("docker-compose", "-p", self.project, *files, *words, cwd=self.directory, env=self.environment)

    @property
    def project(self) -> str:
        """The name by which Compose tells its containers from others."""
        return self.directory.name

    def container(self, service: str) -> str:
        """Return the container of a service."""
        return f"{self.project}_{service}_1"

    def inside(self, service: str, *words: str) -> str:
        """Run a command in a container, as its own user, and return what it says, whether it succeeds or not."""
        words = (DOCKER, "exec", self.container(service), *words)
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=BOUND)
        return done.stdout + done.stderr

    def call(self, method: str, request: str = "{}", *, holder: str = "caller") -> str:
        """Call the router as the holder of a certificate, and return the answer."""
        return self.grpcurl("-d", request, self.address, method, holder=holder)

    def grpcurl(self, *words: str, holder: str = "caller") -> str:
        """Run grpcurl as the holder of a certificate, and return the answer."""
        certs = self.directory / "certs"
        tls = ("-cacert", f"{certs}/router-ca.pem", "-cert", f"{certs}/{holder}.pem", "-key", f"{certs}/{holder}.key")
        done = subprocess.run(
            [str(Path(sys.executable).parent / "grpcurl"), *tls, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=BOUND,
        )
        return done.stdout + done.stderr


def run(*words: str, timeout: float = BOUND, **options: object) -> str:
    """Run a program and return what it says; fail with all of it when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout, **options)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def answers() -> bool:
    """Whether a Docker daemon answers."""
    return subprocess.run([DOCKER, "version"], capture_output=True, check=False, timeout=BOUND).returncode == 0


@pytest.fixture(scope="session")
def docker() -> Iterator[None]:
    """Have a Docker daemon: the one that runs, or one of our own until the end."""
    if os.geteuid() != 0:
        pytest.skip("containers: only root can start a Docker daemon here")
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"containers: {', '.join(missing)} missing: apt-get install docker.io docker-compose mmdebstrap")
    daemon = None
    if not answers():
        with open("/tmp/alive-dockerd.log", "wb") as log:
            daemon = subprocess.Popen(["dockerd"], stdout=log, stderr=log, start_new_session=True)
        due = time.monotonic() + 30
        while not answers():
            if daemon.poll() is not None or time.monotonic() > due:
                daemon.kill()
                pytest.skip("containers: no Docker daemon can start here; see /tmp/alive-dockerd.log")
            time.sleep(0.2)
    yield
    if daemon:
        daemon.terminate()
        daemon.wait(timeout=BOUND)


@pytest.fixture(scope="session")
def images(docker: None) -> None:
    """Build every image, on a stand-in for the public base image where that is not there."""
    if not run(DOCKER, "images", "-q", BASE).strip():
        with tempfile.TemporaryDirectory() as name:
            archive = f"{name}/base.tar"
            # Whoever vouches for the package index here is known to the base image, as on this host.
            authorities = 'mkdir -p "$1/etc/ssl/certs" && cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"'
            packages = "--include=python3,python3-venv,ca-certificates"
            words = ("mmdebstrap", "--quiet", "--variant=minbase", packages, f"--customize-hook={authorities}")
            run(*words, "bookworm", archive, timeout=BUILD_SECONDS)
            changes = ("ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt", 'CMD ["python3"]')
            run(DOCKER, "import", *(word for change in changes for word in ("--change", change)), archive, BASE)
    run("make", "-s", "images", f"DOCKER={DOCKER}", cwd=CHECKOUT, timeout=BUILD_SECONDS)


@pytest.fixture(scope="session")
def containers(images: None) -> Iterator[Containers]:
    """Run the system as docker/compose.yaml says, with the scripted model."""
    with tempfile.TemporaryDirectory(prefix="alive", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        prepare(directory)
        ports = [free_address().rpartition(":")[2] for _ in range(3)]
        environment = {
            "PATH": os.environ["PATH"],
            "ALIVE_CERTS": f"{name}/certs",
            "ALIVE_SECRETS": f"{name}/secrets",
            "ALIVE_SANDBOX": "prefer",
            "ALIVE_PORT": ports[0],
            "ALIVE_MODEL_PORT": ports[1],
            "ALIVE_EDGE_PORT": ports[2],
        }
        system = Containers(
            directory=directory,
            address=f"127.0.0.1:{ports[0]}",
            edge_address=f"127.0.0.1:{ports[2]}",
            model_port=int(ports[1]),
            environment=environment,
        )
        try:
            system.compose("up", "-d")
            wait_until_healthy(system)
            yield system
        finally:
            if os.environ.get("ALIVE_KEEP_CONTAINERS") is None:
                system.compose("down", "-v", "-t", "5")


def prepare(directory: Path) -> None:
    """Write what an operator prepares: certificates, secrets, and the compose files.

    Compose 1, which Debian has, cannot ask for an unmasked /proc: there the wall is a level lower, and a container that
    is started without Compose shows the whole of it (`test_the_whole_wall_stands_in_a_container`).
    """
    make_certificates(directory / "certs", {provider.name: provider.uid for provider in declared(CHECKOUT)})
    (directory / "secrets").mkdir()
    for vendor in ("anthropic", "openai"):
        path = directory / "secrets" / f"{vendor}_api_key"
        path.write_text(f"canary-{vendor}-key\n")
        os.chown(path, 43005, 43005)
        path.chmod(0o400)
    text = (CHECKOUT / "docker/compose.yaml").read_text()
    text = re.sub(r".*systempaths=unconfined\n", "", text)
    text = text.replace("seccomp:seccomp.json", f"seccomp:{CHECKOUT}/docker/seccomp.json")
    (directory / "compose.yaml").write_text(text)
    for name in ("compose.scripted.yaml", "compose.edge.yaml"):
        shutil.copy(CHECKOUT / "docker" / name, directory)


def wait_until_healthy(system: Containers) -> None:
    """Return once every container with a health check is healthy and every provider is ready."""
    due = time.monotonic() + BOUND
    while True:
        states = [inspect(system.container(name)) for name in ("router", "edge", "claude", "codex", "gateway")]
        providers = system.call("alive.agent.v1.WorkspaceService/ListProviders")
        if all(state["Health"]["Status"] == "healthy" for state in states) and providers.count('"usable": true') == 2:
            return
        assert time.monotonic() < due, system.compose("logs", "--tail", "20") + providers
        time.sleep(0.5)


def inspect(container: str) -> dict[str, dict[str, str]]:
    """Return the state of a container."""
    return json.loads(run(DOCKER, "inspect", "--format", "{{json .State}}", container))
