"""What has a form of its own: addresses, numbers and keys. Names of people have none; for those
name Presidio (`shared.redaction.presidio:redact`) or a function of your own."""

from __future__ import annotations

import re

_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("[SECRET]", re.compile(r"\b(?:sk|pk|ghp|gho|xox[abp]|AKIA)[-_A-Za-z0-9]{12,}\b")),
    ("[EMAIL]", re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")),
    ("[URL]", re.compile(r"\b(?:https?|ftp)://[^\s<>\"']{1,2000}", re.IGNORECASE)),
    ("[IBAN]", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")),
    ("[IP]", re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")),
)
_DIGITS = re.compile(r"(?<![\w.])\+?\(?\d(?:[ ().\-/]{0,2}\d){6,18}(?!\w)")
_CARD_DIGITS = range(13, 20)


def redact_patterns(text: str) -> str:
    """The text with keys, e-mail and web addresses, IBANs, IP addresses, card and telephone numbers
    replaced by what they are. Linear in the text's length."""
    for name, pattern in _PATTERNS:
        text = pattern.sub(name, text)
    return _DIGITS.sub(_number, text)


def _number(match: re.Match[str]) -> str:
    digits = [int(character) for character in match[0] if character.isdigit()]
    if len(digits) in _CARD_DIGITS and _luhn(digits):
        return "[CARD]"
    return "[PHONE]" if len(digits) <= 15 else "[NUMBER]"


def _luhn(digits: list[int]) -> bool:
    """The check digit of a card number (ISO/IEC 7812)."""
    doubled = [2 * d - 9 * (2 * d > 9) if i % 2 else d for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
