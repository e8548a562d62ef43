"""Each task's own endpoint, or the one of the teacher's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from services.teacher.answers import Answer, Teaches
from services.teacher.anthropic_client import AnthropicTeacher
from services.teacher.client import OpenAITeacher
from services.teacher.config import TeacherSettings
from shared.bus.errors import Fatal
from shared.clock import Clock
from shared.contracts.events import Input
from shared.contracts.tasks import Task
from shared.contracts.teaching import Provider, TeacherEndpoint

_NO_KEY = "none"  # endpoints on this machine usually want none, the clients do


class Teachers:
    """Asks each task's endpoint; tasks of equal settings share one."""

    def __init__(self, by_task: Mapping[str, Teaches]) -> None:
        self._by_task = by_task

    def __call__(self, task: Task, text: Input, *, timeout: float) -> Answer:
        """Raises PassingFault, EndpointRefuses or CannotAnswer."""
        return self._by_task[task.name](task, text, timeout=timeout)

    def probe(self, *, timeout: float) -> None:
        """Raises PassingFault or EndpointRefuses of the first one that is not there."""
        for each in self._endpoints():
            each.probe(timeout=timeout)

    def close(self) -> None:
        for each in self._endpoints():
            each.close()

    def _endpoints(self) -> list[Teaches]:
        return list({id(each): each for each in self._by_task.values()}.values())


def teachers(
    settings: TeacherSettings,
    tasks: Mapping[str, Task],
    *,
    clock: Clock,
    environment: Mapping[str, str] = os.environ,
) -> Teachers:
    """Raises Fatal naming the variable when a task's key is not there."""
    made: dict[TeacherEndpoint | None, Teaches] = {}
    by_task: dict[str, Teaches] = {}
    for name, task in tasks.items():
        if task.teacher not in made:
            made[task.teacher] = (
                _default(settings, clock)
                if task.teacher is None
                else _endpoint(task.teacher, key_of(task.teacher, name, environment), clock)
            )
        by_task[name] = made[task.teacher]
    return Teachers(by_task)


def _default(settings: TeacherSettings, clock: Clock) -> Teaches:
    return OpenAITeacher(
        base_url=settings.teacher_base_url,
        api_key=settings.teacher_api_key.get_secret_value(),
        model=settings.teacher_model,
        clock=clock,
        temperature=settings.teacher_temperature,
        max_tokens=settings.teacher_max_tokens,
    )


def _endpoint(endpoint: TeacherEndpoint, key: str, clock: Clock) -> Teaches:
    if endpoint.provider is Provider.ANTHROPIC:
        return AnthropicTeacher(
            base_url=endpoint.base_url,
            api_key=key,
            model=endpoint.model,
            clock=clock,
            temperature=endpoint.sent_temperature,
            max_tokens=endpoint.max_tokens,
        )
    return OpenAITeacher(
        base_url=endpoint.base_url,
        api_key=key,
        model=endpoint.model,
        clock=clock,
        temperature=endpoint.sent_temperature,
        max_tokens=endpoint.max_tokens,
        azure_version=endpoint.api_version,
    )


def key_of(endpoint: TeacherEndpoint, task: str, environment: Mapping[str, str]) -> str:
    """The key in the variable that the task names, or in the file that `<variable>_FILE` names.

    Raises Fatal, which never holds the key.
    """
    variable = endpoint.api_key_env
    if variable is None:
        return _NO_KEY
    path = environment.get(f"{variable}_FILE")
    try:
        key = Path(path).read_text().strip() if path else environment.get(variable, "")
    except (OSError, UnicodeDecodeError) as error:
        raise Fatal(f"{variable}_FILE: {path} cannot be read: {type(error).__name__}") from None
    if not key:
        raise Fatal(
            f"task {task!r}: teacher.api_key_env names {variable}, which is not set; set it, or "
            f"{variable}_FILE to a file that holds the key"
        )
    return key
