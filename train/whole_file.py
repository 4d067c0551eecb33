"""Files that are whole or not there."""

import contextlib
import secrets
from pathlib import Path

from realesr.errors import OutputError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place, and rename it; folders are made.

    Raises:
        OutputError: it cannot be written; nothing is left of it, and a file that was there stays.
    """
    part = path.with_name(f".realesr-{secrets.token_hex(6)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path} cannot be written ({reason}): free some space, or choose another place") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
