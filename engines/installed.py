"""Tells which optional modules are installed; none is imported to find out."""

import importlib.util


def is_installed(module: str) -> bool:
    """Return whether a module could be imported; only the packages above it are."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # the package above it is missing
        return False
