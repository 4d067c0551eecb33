"""The command line. Nothing heavy is imported here, so that `realesr --help` is instant."""

from .app import main

__all__ = ["main"]
