"""The words exchanged with the teacher: how a request is asked, and how an answer is read."""

from __future__ import annotations

import hashlib
import re

from shared.contracts.events import Input
from shared.contracts.tasks import Task

DIGEST_DIGITS = 16
ANSWER_ONLY = "Answer with the label only."
_FIRST = "Text 1: "
_SECOND = "\nText 2: "
_WRAPPING = " \t\r\n\"'`*“”‘’"
_REASONING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_LEAD = re.compile(r"^(?:label|answer|category|intent)\s*[:=]\s*", re.IGNORECASE)


def system_prompt(task: Task) -> str:
    """The task's instruction, its labels (where it has a taxonomy) and the form of the answer."""
    parts = [task.prompt]
    if task.labels:
        parts.append("Labels:\n" + "\n".join(f"- {label}" for label in task.labels))
    parts.append(ANSWER_ONLY)
    return "\n\n".join(parts)


def prompt_digest(task: Task) -> str:
    """What names the prompt in traces: the first 16 hex digits of its SHA-256.

    It changes with the instruction and with the taxonomy.
    """
    return hashlib.sha256(system_prompt(task).encode()).hexdigest()[:DIGEST_DIGITS]


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
    answer = _REASONING.sub("", content).strip(_WRAPPING)
    answer = _LEAD.sub("", answer).strip(_WRAPPING)
    return answer.removesuffix(".").strip(_WRAPPING)
