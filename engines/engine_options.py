"""Checks the options of one engine: switches that no other engine has, as words."""

import difflib
from collections.abc import Mapping, Sequence

from realesr.errors import UsageError


def checked_options(engine: str, given: Mapping[str, str], known: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the given options over the defaults.

    Args:
        engine: its name, for messages.
        given: name -> value, as the user wrote them.
        known: name -> the values that it may have, the default first.

    Returns:
        A value for every known option.

    Raises:
        UsageError: an option that the engine does not have, or a value that the option does not have.
    """
    for key, value in given.items():
        if key not in known:
            raise UsageError(f"engine {engine} got the option {key}, {_known_keys(key, known)}")
        if value not in known[key]:
            expected = _either([f"{key}={one}" for one in known[key]])
            raise UsageError(f"engine {engine} got the option {key}={value}, expected {expected}")
    return {key: values[0] for key, values in known.items()} | dict(given)


def _known_keys(key: str, known: Mapping[str, tuple[str, ...]]) -> str:
    if not known:
        return "but it has no options"
    nearest = difflib.get_close_matches(key.lower(), known, n=1)
    return f"expected {_either(sorted(known))}" + "".join(f": did you mean {name}?" for name in nearest)


def _either(words: Sequence[str]) -> str:
    """Return words as a choice: ("a", "b", "c") -> "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
