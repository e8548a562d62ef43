"""The tasks file for a command: what is wrong with it, or with the name given, ends the command."""

from __future__ import annotations

from pathlib import Path

from services.ctl.output import fail
from shared.contracts.tasks import InvalidTasks, Task, load_tasks


def tasks_in(path: Path) -> dict[str, Task]:
    """All of them; a file that cannot be used ends the command (exit code 2)."""
    try:
        return load_tasks(path)
    except InvalidTasks as error:
        fail(str(error), code=2)


def tasks_if_any(path: Path) -> dict[str, Task]:
    """None where there is no file: the services' own may be elsewhere."""
    return tasks_in(path) if path.exists() else {}


def task_in(path: Path, name: str) -> Task:
    """The one that `--task` names; another name ends the command too."""
    known = tasks_in(path)
    if name not in known:
        fail(f"--task {name}: not in {path}; it has {', '.join(sorted(known))}", code=2)
    return known[name]
