"""A report full of texts that would like to be HTML."""

from __future__ import annotations

HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u2028 ' \" {{ 7*7 }}"
# Fields that are not free text.
_FIXED = ("task", "window", "version", "kind", "measure", "verdict")
_REASONS = ("ambiguous", "certificate", "few_traces", "novel")


def hostile(value: object) -> object:
    """The plain report with every text in it replaced, where any text may be."""
    if isinstance(value, dict):
        return {
            key: item if key in _FIXED or item in _REASONS else hostile(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value
