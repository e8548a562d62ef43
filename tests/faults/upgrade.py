"""The same system with services of an older release, upgraded one by one under traffic."""

from __future__ import annotations

import random
import re
import subprocess
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from tests.faults.ports import LOOPBACK
from tests.faults.system import SERVICES, TASK, System
from tests.faults.traffic import Mix, Traffic

ROOT = Path(__file__).resolve().parents[2]
_TICK, _REQUESTS_A_TICK, _TRACES_A_TICK = 0.2, 5, 3
_STOP_SECONDS, _READY_SECONDS = 30.0, 180.0


class NoHistory(RuntimeError):
    """This checkout does not have the older release's commit."""


def release(commit: str, folder: Path) -> Path:
    """The files of `commit`, in `folder`. Raises NoHistory."""
    try:
        made = subprocess.run(
            ["git", "archive", "--format=tar", commit, "services", "shared", "schemas", "tests"],
            cwd=ROOT, capture_output=True, check=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise NoHistory("there is no git here") from error
    except subprocess.CalledProcessError as error:
        raise NoHistory(f"no {commit} in this checkout: {error.stderr.decode().strip()}") from error
    with tarfile.open(fileobj=BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


class MixedReleases(System):
    """Every service begins with the code in `old`. `keys`: services that trust the keyring alone;
    the others of this release believe unsigned versions, as the old ones do."""

    def __init__(self, folder: Path, encoder: Path, old: Path) -> None:
        super().__init__(folder, encoder, direct=True)
        self._old = old
        self.old = set(SERVICES)
        self.keys: set[str] = set()

    def replace(self, service: str, *, old: bool = False, keys: bool = False) -> None:
        """Stop it as a deployment does, start it with the other code; ready when this returns."""
        self._down.add(service)
        code = self.services[service].terminate(_STOP_SECONDS)
        # The old trainer fits in a thread, whose last line of log can abort the interpreter's end:
        # as good as a kill, and no fault of this release.
        if code != 0 and service not in self.old:
            raise RuntimeError(f"{service} ended with {code}: {self.services[service].tail(5)}")
        (self.old.add if old else self.old.discard)(service)
        (self.keys.add if keys else self.keys.discard)(service)
        self.services[service] = self._fleet.start(self._child(service))
        self.services[service].wait_ready(_READY_SECONDS)
        self._down.discard(service)

    def handled(self, router: str) -> int:
        """Requests of the task that this process has answered from its surrogate."""
        labels = rf'(?=.*task="{TASK}")(?=.*outcome="(?:handled|audited)")'
        wanted = rf"^tracer_decisions_total{{{labels}.*}} (\S+)"
        found = re.findall(wanted, self._metrics(router), re.MULTILINE)
        return int(sum(map(float, found)))

    def epoch(self, router: str) -> int:
        """Of the pointer that this process follows."""
        found = re.search(
            rf'^tracer_router_active_epoch{{task="{TASK}"}} (\S+)',
            self._metrics(router), re.MULTILINE,
        )  # fmt: skip
        return int(float(found[1])) if found else 0

    def active(self) -> tuple[str | None, int]:
        """Version and epoch, as Redis has them."""
        with self.redis.client() as client:
            version, epoch = client.hmget(f"tracer:{{{TASK}}}:active", "version", "epoch")
        return (version or b"").decode() or None, int(epoch or 0)

    def _metrics(self, service: str) -> str:
        port = self.services[service].health_port
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def _command(self, name: str, module: str) -> list[str]:
        command = super()._command(name, module)
        if name not in self.old:
            return command
        # Where a process starts and PYTHONPATH come first, before this tree, which is installed.
        return ["env", "-C", str(self._old), f"PYTHONPATH={self._old}", *command]

    def _trusting(self, name: str) -> dict[str, str]:
        return super()._trusting(name) if name in self.keys else {"TRACER_UNSIGNED": "allow"}


class Pump:
    """Traffic that goes on while services come and go; `day` may be moved on."""

    def __init__(self, traffic: Traffic, name: str) -> None:
        self.day = 1
        self._traffic, self._name = traffic, name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pump")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        chance, mix, tick = random.Random(self._name), Mix(bad=0.0), 0
        while not self._stop.wait(_TICK):
            tick += 1
            name = f"{self._name}-{tick}"
            self._traffic.requests(chance, self.day, _REQUESTS_A_TICK, mix, f"r{name}")
            self._traffic.traces(chance, self.day, _TRACES_A_TICK, mix, f"t{name}")


@contextmanager
def pumping(traffic: Traffic, name: str) -> Iterator[Pump]:
    pump = Pump(traffic, name)
    pump.start()
    try:
        yield pump
    finally:
        pump.stop()


def until(holds: Callable[[], bool], seconds: float, why: Callable[[], object]) -> None:
    """Raises AssertionError with `why()`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)
