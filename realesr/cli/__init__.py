"""The command line. Nothing heavy is imported here, so that `realesr --help` is instant."""

import sys

try:
    from .app import main
except KeyboardInterrupt:  # signals are listened to once all is imported
    sys.exit(130)

__all__ = ["main"]
