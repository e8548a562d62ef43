"""The phrases, and how a template becomes a text."""

from __future__ import annotations

import random
import re
from pathlib import Path

import msgspec

_FOLDER = Path(__file__).parent
_CHOICE = re.compile(r"\{([^{}]*)\}")
_PERHAPS = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"<([a-z]+)>")
_SPACES = re.compile(r"\s+")


class Intent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Templates of one label: what is asked for, and the stories told around it."""

    asks: tuple[str, ...]
    contexts: tuple[str, ...]


class Vague(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A template that leaves open which of `labels` is meant."""

    text: str
    labels: tuple[str, str]


class Phrases(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slots: dict[str, tuple[str, ...]]
    greetings: tuple[str, ...]
    closings: tuple[str, ...]
    names: tuple[str, ...]
    softeners: tuple[str, ...]
    asides: tuple[str, ...]
    joints: tuple[str, ...]
    vague: tuple[Vague, ...]


def load_intents() -> dict[str, Intent]:
    """Label -> templates, in the order of the file."""
    return msgspec.yaml.decode((_FOLDER / "intents.yaml").read_bytes(), type=dict[str, Intent])


def load_phrases() -> Phrases:
    return msgspec.yaml.decode((_FOLDER / "phrases.yaml").read_bytes(), type=Phrases)


class Grammar:
    """Expands templates: `{a|b}` one of these, `[a]` perhaps, `<slot>` a value of the slot."""

    def __init__(self, phrases: Phrases, chance: random.Random) -> None:
        self._slots = {**phrases.slots, "name": phrases.names}
        self._chance = chance

    def expand(self, template: str) -> str:
        """Raises KeyError for a slot that does not exist."""
        text = template
        while _CHOICE.search(text):
            text = _CHOICE.sub(lambda found: self._chance.choice(found[1].split("|")), text)
        text = _PERHAPS.sub(lambda found: found[1] if self._chance.random() < 0.5 else "", text)
        text = _SLOT.sub(lambda found: self._chance.choice(self._slots[found[1]]), text)
        return _SPACES.sub(" ", text).strip()
