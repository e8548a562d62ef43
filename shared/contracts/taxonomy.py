"""Labels as a task knows them: every spelling of a label becomes the one in the configuration."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping

from shared.contracts.tasks import Task, UnknownLabels

_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015]+")


class UnknownLabel(ValueError):
    """A label outside the task's taxonomy, where the task does not accept such labels.

    `nearest` is the known label spelled most like it, None when none comes near.
    """

    def __init__(self, label: str, *, task: str, nearest: str | None) -> None:
        hint = f"; the nearest known label is {nearest!r}" if nearest else ""
        super().__init__(f"{_short(label)!r} is not one of the labels of task {task!r}{hint}")
        self.label = label
        self.nearest = nearest


class Taxonomy:
    """The labels of one task, looked up in constant time.

    A label is tried as it is, then without regard to case and white space (NFKC), then with
    `_`, `-`, dashes and spaces taken as one (`Card-Arrival` is `card_arrival`). A looser spelling
    counts only where exactly one label has it: were both `re-order` and `reorder_` there, a
    spelling between the two would stay unknown rather than be guessed. A task without labels
    takes every label as it is.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._labels = {label: label for label in task.labels}
        self._folded = _unambiguous(task.labels, _fold)
        self._joined = _unambiguous(task.labels, _join)

    def find(self, label: str) -> str | None:
        """The task's own spelling of `label`; None when it is not in the taxonomy."""
        if not self._labels:
            return label
        exact = self._labels.get(label) or self._folded.get(_fold(label))
        return exact or self._joined.get(_join(label))

    def normalise(self, label: str) -> str:
        """The label to use for `label`, by the task's policy for unknown ones.

        Raises UnknownLabel where the policy is `dead_letter`.
        """
        known = self.find(label)
        if known is not None:
            return known
        match self._task.unknown_labels:
            case UnknownLabels.KEEP:
                return label
            case UnknownLabels.OTHER:
                return self._task.other_label
            case UnknownLabels.DEAD_LETTER:
                raise UnknownLabel(label, task=self._task.name, nearest=self._nearest(label))

    def _nearest(self, label: str) -> str | None:
        by_spelling = {_join(known): known for known in self._labels}
        # Bounded: the comparison is quadratic, and a label this long is a text, not a misspelling.
        close = difflib.get_close_matches(_join(label[:256]), by_spelling, n=1, cutoff=0.5)
        return by_spelling[close[0]] if close else None


def taxonomies(tasks: Mapping[str, Task]) -> dict[str, Taxonomy]:
    """The taxonomy of every task, by its name."""
    return {name: Taxonomy(task) for name, task in tasks.items()}


def _fold(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def _join(label: str) -> str:
    return _SEPARATORS.sub(" ", _fold(label)).strip()


def _unambiguous(labels: Iterable[str], spell: Callable[[str], str]) -> dict[str, str]:
    spelled: dict[str, str | None] = {}
    for label in labels:
        spelling = spell(label)
        spelled[spelling] = None if spelling in spelled else label
    return {spelling: label for spelling, label in spelled.items() if label is not None}


def _short(label: str) -> str:
    return label if len(label) <= 80 else f"{label[:77]}..."
