"""Reads sizes and times from the command line: 200MB, 1.5GB, 90s, 1h."""

import re

from realesr.errors import UsageError

BYTES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
"""Unit in lower case -> bytes."""

SECONDS = {"": 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
"""Unit in lower case -> seconds."""

_QUANTITY = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]*)", re.ASCII)


def bytes_from(text: str, flag: str) -> int:
    """Return the bytes that a text such as "200MB" states; raise UsageError where it states none."""
    return round(_amount(text, BYTES, f"expected {flag} as a size such as 200MB or 1.5GB"))


def seconds_from(text: str, flag: str) -> float:
    """Return the seconds that a text such as "30s" or "1h" states; raise UsageError where it states none."""
    return _amount(text, SECONDS, f"expected {flag} as a time such as 30s, 10min or 1h")


def _amount(text: str, units: dict[str, float], expected: str) -> float:
    """Return a number times its unit."""
    match = _QUANTITY.fullmatch(text.strip().lower())
    if match is None or match[2] not in units:
        raise UsageError(f"got {text}, {expected}")
    return float(match[1]) * units[match[2]]
