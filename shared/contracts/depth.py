"""How deep JSON from outside may be nested."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Of a document, and of an event's metadata. A deferral holds its request a level deeper than that
# came, and what was decoded must be encoded again wherever it goes.
MAX_DEPTH = 64


def too_deep(document: Any, limit: int = MAX_DEPTH) -> bool:
    """Whether objects and lists are nested in each other more than `limit` times."""
    level = [document]
    for _ in range(limit):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return True


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return (child for child in node.values() if isinstance(child, dict | list))
    if isinstance(node, list):
        return (child for child in node if isinstance(child, dict | list))
    return ()
