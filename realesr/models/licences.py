"""Licences of networks by their SPDX identifiers: which are permissive."""

import re

PERMISSIVE = frozenset(
    {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT", "MIT-0"}
    | {"Unlicense", "WTFPL", "Zlib"}
)
"""SPDX identifiers (https://spdx.org/licenses) of licences that allow use for money, changes and passing on, and ask
for no more than naming the author, keeping the licence's text and telling what was changed."""


def is_permissive(licence: str | None) -> bool:
    """Return whether a licence is permissive: one of `PERMISSIVE`, or a choice ("MIT OR GPL-3.0-only") with one.

    Args:
        licence: SPDX expression; None or an empty text, where none is stated, means all rights reserved.
    """
    choices = re.split(r"\s+OR\s+", licence or "", flags=re.IGNORECASE)
    return any(choice.strip() in PERMISSIVE for choice in choices)
