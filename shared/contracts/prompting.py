"""The words exchanged with the teacher: how a request is asked, and how an answer is read."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from shared.contracts.events import Input
from shared.contracts.tasks import Task

DIGEST_DIGITS = 16
TEXT, LABELS = "{{ text }}", "{{ labels }}"
LABEL = "label"  # the field of a structured answer
ANSWER_ONLY = "Answer with the label only."
_FIRST = "Text 1: "
_SECOND = "\nText 2: "
_WRAPPING = " \t\r\n\"'`*“”‘’"
_REASONING = re.compile(r"^\s*<think>.*?(?:</think>|\Z)", re.DOTALL)  # cut short: all of it
_LEAD = re.compile(r"^(?:label|answer|category|intent)\s*[:=]\s*", re.IGNORECASE)


def system_prompt(task: Task) -> str:
    """The task's instruction, its labels (where it has a taxonomy) and the form of the answer."""
    parts = [task.prompt]
    if LABELS in task.prompt:
        parts = [task.prompt.replace(LABELS, "\n".join(f"- {label}" for label in task.labels))]
    elif task.labels:
        parts.append("Labels:\n" + "\n".join(f"- {label}" for label in task.labels))
    parts.append(ANSWER_ONLY)
    return "\n\n".join(parts)


def prompt_digest(task: Task) -> str:
    """What names the prompt in traces: the first 16 hex digits of its SHA-256.

    It changes with the instruction, the taxonomy, the message's template and with asking for
    structured answers.
    """
    asked = system_prompt(task)
    if task.message != TEXT:
        asked += f"\0message {task.message}"
    if answers_structured(task):
        asked += "\0structured"
    return hashlib.sha256(asked.encode()).hexdigest()[:DIGEST_DIGITS]


def answers_structured(task: Task) -> bool:
    """Whether the task's teacher is asked for one of the labels by a schema."""
    return task.teacher is not None and task.teacher.structured and bool(task.labels)


def answer_schema(task: Task) -> dict[str, Any]:
    """The JSON Schema of a structured answer."""
    return {
        "type": "object",
        "properties": {LABEL: {"type": "string", "enum": list(task.labels)}},
        "required": [LABEL],
        "additionalProperties": False,
    }


def asked_message(task: Task, text: Input) -> str:
    """The user's message to the teacher."""
    return task.message.replace(TEXT, user_message(text))


def user_message(text: Input) -> str:
    """The text to classify; a pair becomes two labelled lines."""
    if isinstance(text, str):
        return text
    first, second = text
    return f"{_FIRST}{first}{_SECOND}{second}"


def read_answer(content: str) -> str:
    """The label in an answer: without reasoning, quotes, emphasis or a closing full stop.

    Returns "" for an answer that holds nothing else.
    """
    return readings(content)[-1]


def readings(content: str) -> list[str]:
    """An answer read ever more loosely, for labels that end with a full stop or begin with a star:
    without reasoning, then without quotes and emphasis, then without all that is no label's."""
    answer = _REASONING.sub("", content).strip()
    bare = answer.strip(_WRAPPING)
    led = _LEAD.sub("", bare).strip(_WRAPPING)
    return [answer, bare, led, led.removesuffix(".").strip(_WRAPPING)]
