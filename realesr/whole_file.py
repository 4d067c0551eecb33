"""Files as a whole: written whole or not at all, and told apart by their bytes."""

import hashlib
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename: nobody ever sees half a file, and nothing is left of one.

    Raises:
        OSError: the folder is missing, full or cannot be written; what was there under this name is still there.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.suffix[1:]}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
