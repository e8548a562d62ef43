"""What has a form of its own: addresses, numbers and keys. Names of people have none; for those
name Presidio (`shared.redaction.presidio:redact`) or a function of your own."""

from __future__ import annotations

import ipaddress
import re

# Digits may stand before what begins here: what is a number becomes one, and then nothing does.
_START, _END = "(?<![A-Za-z_])", "(?![A-Za-z0-9])"
_KEY = "[-_A-Za-z0-9]"
_GAP = r"[ \t\xa0\u2007\u202f]?"
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "[SECRET]",
        re.compile(
            rf"{_START}(?:(?:[sp]k[-_]|rk_(?:live|test)_|gh[opsur]_|github_pat_|glpat-|xox[a-z]-|AIza|AKIA)"
            rf"{_KEY}{{12,}}|hf_[A-Za-z0-9]{{20,}}|ASIA[A-Z0-9]{{16}})\b"
            rf"|(?<![-A-Za-z_])eyJ{_KEY}{{8,1000}}(?:\.{_KEY}+){{1,4}}"  # a JSON Web Token
        ),
    ),
    ("[EMAIL]", re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")),
    (
        "[URL]",
        re.compile(rf"{_START}(?:(?:https?|ftp)://|www\.)[^\s<>\"']{{1,2000}}", re.IGNORECASE),
    ),
    (
        "[IBAN]",
        re.compile(
            rf"{_START}[A-Z]{{2}}\d{{2}}(?:{_GAP}[A-Z0-9]{{4}}){{2,7}}(?:{_GAP}[A-Z0-9]{{1,3}})?{_END}"
        ),
    ),
    (  # In small letters words look like its groups: all but the first, a bank's, need a digit.
        "[IBAN]",
        re.compile(
            rf"{_START}[A-Z]{{2}}\d{{2}}(?:[A-Z0-9]{{11,}}|(?=(?:{_GAP}[A-Z0-9]){{11}}){_GAP}[A-Z0-9]{{4}}"
            rf"(?:{_GAP}(?=[A-Z]{{0,3}}\d)[A-Z0-9]{{4}}){{1,6}}"
            rf"(?:{_GAP}(?=[A-Z]{{0,2}}\d)[A-Z0-9]{{1,3}})?){_END}",
            re.IGNORECASE,
        ),
    ),
    ("[IP]", re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")),
)
_MAYBE_IPV6 = re.compile(
    r"(?<![0-9A-Za-z:\]])(?=[0-9a-f]{0,4}:[0-9a-f]{0,4}:)[0-9a-f:]{2,40}(?![0-9A-Za-z:\[])",
    re.IGNORECASE,
)

# What may stand between two digits of a number: blanks, dots and dashes of all kinds, slashes,
# brackets, and marks of direction, which nobody sees.
_BETWEEN = (
    r"[ \t\xa0\xb7\u1680\u2000-\u2015\u202a-\u202f\u205f-\u2064\u2212\u3000\ufe58\ufe63\ufeff\uff0d"
    r"().\-/]{0,3}"
)
_YEAR, _DAY = r"(?:19|20)\d\d", r"(?:0?[1-9]|[12]\d|3[01])"
# Digits that are no number of anything: dates, times, versions, and from one amount to another.
_PLAIN = "|".join(
    (
        rf"{_YEAR}[-./]{_DAY}[-./]{_DAY}(?![-./]?\d)",
        rf"{_DAY}[-./]{_DAY}[-./]{_YEAR}(?![-./]?\d)",
        r"\d\d:\d\d:\d\d[.,]\d{3,9}(?!\d)",
        r"\bv\d+(?:\.\d+)+",
        rf"[1-9]\d{{0,5}}(?: [-–—] |[–—])[1-9]\d{{0,5}}(?!{_BETWEEN}\d)",
    )
)
# Nine digits and more whatever is beside them, up to a card's where they come in groups; fewer
# where they stand alone.
_NUMBER = re.compile(
    rf"(?<!\d)(?P<plain>{_PLAIN})"
    rf"|\+?\(?\d(?:(?:{_BETWEEN}\d){{8,18}}(?!\d)|(?:{_BETWEEN}\d){{8,}})"
    rf"|\+?\(?(?<![A-Za-z_\d])\d(?:{_BETWEEN}\d){{6,7}}(?![A-Za-z_\d])"
)
_CARD_DIGITS = range(13, 20)


def redact_patterns(text: str) -> str:
    """The text with keys, e-mail and web addresses, IBANs, IP addresses, card and telephone numbers
    replaced by what they are. Linear in the text's length."""
    for name, pattern in _PATTERNS:
        text = pattern.sub(name, text)
    return _NUMBER.sub(_number, _MAYBE_IPV6.sub(_ipv6, text))


def _ipv6(match: re.Match[str]) -> str:
    """Times have colons too, and `std::byte` has two of them."""
    address = match[0]
    end = ":" if address.endswith(":") and not address.endswith("::") else ""
    try:
        ipaddress.IPv6Address(address.removesuffix(end))
    except ValueError:
        return address
    return f"[IP]{end}" if any(character.isdigit() for character in address) else address


def _number(match: re.Match[str]) -> str:
    if match["plain"] is not None:
        return match[0]
    digits = [int(character) for character in match[0] if character.isdigit()]
    if len(digits) in _CARD_DIGITS and _luhn(digits):
        return "[CARD]"
    return "[PHONE]" if len(digits) <= 15 else "[NUMBER]"


def _luhn(digits: list[int]) -> bool:
    """The check digit of a card number (ISO/IEC 7812)."""
    doubled = [2 * d - 9 * (2 * d > 9) if i % 2 else d for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
