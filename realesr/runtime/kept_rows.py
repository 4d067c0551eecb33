"""Keeps the finished rows of a large image beside its output, so that a job that was killed goes on where it was.

    network -> KeptBands.add -> the same bands -> encoder
                   |
                   +-> .realesr-<name>.<stream>.rows   every finished band, raw
                   +-> .realesr-<name>.<stream>.state  checkpoint: bands so far, and what the next one is computed from

A checkpoint holds the hash of the rows before it, and of itself. Whatever does not fit, because of a damaged file,
another image, network, engine or processor, is not used. Keeping must never end a job: where the disk is full it stops.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from realesr.runtime.rows import Band, FinishedBand, rounded_to_levels

WORTH_SECONDS = 3.0
"""Expected time of the network from which on rows are kept: below it, doing all again costs less than a look."""
CHECKPOINT_SHARE = 0.03
"""Most of the time that checkpoints may take."""
CHECKPOINT_SECONDS = 0.3
"""Least time between two checkpoints."""
KEPT_DAYS = 7
"""Rows of a job that nobody has gone on with are deleted after this time, by the next job in their folder."""
_PATTERNS = (".realesr-*.rows", ".realesr-*.state", ".realesr-*.state.part")
_READ_BYTES = 1 << 20
_tidied_folders: set[Path] = set()
"""Folders in which this process has looked for old rows: a folder may hold many thousand images."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What the next band is computed from."""

    done: int
    """Number of bands' pieces, strips or rows of tiles, that are done."""
    arrays: Arrays
    """States of strips, or the rows that the next tiles fade into."""


class KeptRows:
    """The finished rows of one image: a stream for each pass of the network."""

    def __init__(self, target: Path, identity: Callable[[], Mapping[str, object]]) -> None:
        """Find what earlier runs have kept.

        Args:
            target: path of the output; the rows lie beside it.
            identity: returns everything that the pixels depend on; called when rows are first looked for or kept.
        """
        digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
        self._place = target.with_name(f".realesr-{digest}")
        self._identity = identity
        self._streams: list[KeptBands] = []
        folder = target.parent.absolute()
        if folder not in _tidied_folders:
            _tidied_folders.add(folder)
            _remove_old(folder)

    def stream(self, name: str, *, as_levels: bool = False) -> "KeptBands":
        """Return the bands of one pass of the network; `as_levels`: kept and handed on clamped, in 8 bits."""
        bands = KeptBands(self._place.with_name(f"{self._place.name}.{name}"), self._identity, as_levels=as_levels)
        self._streams.append(bands)
        return bands

    @property
    def notices(self) -> list[str]:
        """Return the line for a user whose job has gone on from an earlier run's rows; empty for any other."""
        rows = max((stream.found_rows for stream in self._streams), default=0)
        return [f"gone on behind {rows:,} finished rows of an earlier run"] if rows else []

    def close(self) -> None:
        """Close the files, and leave them for another run."""
        for stream in self._streams:
            stream.close()

    def discard(self) -> None:
        """Delete the files: the image is complete."""
        for stream in self._streams:
            stream.discard()


class KeptBands:
    """The finished bands of one pass of the network over one image."""

    def __init__(self, path: Path, identity: Callable[[], Mapping[str, object]], *, as_levels: bool) -> None:
        self._rows_path, self._state_path = (path.with_name(f"{path.name}.{kind}") for kind in ("rows", "state"))
        self._partial_path = self._state_path.with_name(f"{self._state_path.name}.part")
        self._of_image = identity
        self._as_levels = as_levels
        self._identity = self._plan = ""
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._heights: list[int] = []
        """Rows of each band that was kept."""
        self._width_px = self._height_px = 0
        self.found_rows = 0
        """Rows of the result that an earlier run had finished."""
        self._is_wanted = True
        self._started = self._checkpoint_due = 0.0

    def begin(self, plan: object, height_px: int, width_px: int) -> Checkpoint | None:
        """Begin an image, and return the checkpoint of an earlier run that went the same way, if there is one.

        Args:
            plan: how the image is cut; its repr counts.
            height_px: of the result. Likewise `width_px`.
        """
        self._height_px, self._width_px = height_px, width_px
        self._plan = repr(plan)
        self._started = time.monotonic()
        if not self._state_path.exists():
            self._remove()
            return None
        found = self._read_state()
        if found is None:
            self._remove()
        self.found_rows = sum(self._heights)
        return found

    def bands(self) -> Iterator[Band | FinishedBand]:
        """Yield the bands of the earlier run up to its checkpoint."""
        with self._rows_path.open("rb") as file:
            for rows in list(self._heights):
                content = file.read(self._band_bytes(rows))
                yield np.frombuffer(content, self._dtype).reshape(3, rows, self._width_px)

    def add(self, band: Band, checkpoint: Callable[[], Checkpoint]) -> Band | FinishedBand:
        """Keep the next band where the image is worth it, and return it, as levels where those are kept.

        Args:
            band: (3, rows, width) float32, not clamped.
            checkpoint: returns what the band after this one is computed from.
        """
        if not self._is_wanted or not band.shape[1]:
            return band
        try:
            if self._file is None:
                self._is_wanted = self._expected_seconds(band.shape[1]) >= WORTH_SECONDS
                if not self._is_wanted:
                    return band
                self._open()
            kept = rounded_to_levels(band, 8).astype(np.uint8) if self._as_levels else band
            self._append(kept)
            if time.monotonic() >= self._checkpoint_due:
                self._write_state(checkpoint())
        except OSError:  # a full or read-only disk: the output may still fit
            self.discard()
            return band
        return kept

    def close(self) -> None:
        """Close the files, and leave them."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._is_wanted = False

    def discard(self) -> None:
        """Close and delete the files."""
        self.close()
        self._remove()

    @property
    def _dtype(self) -> Any:
        return np.dtype(np.uint8 if self._as_levels else np.float32)

    def _band_bytes(self, rows: int) -> int:
        return 3 * rows * self._width_px * int(self._dtype.itemsize)

    def _expected_seconds(self, rows: int) -> float:
        return (time.monotonic() - self._started) * self._height_px / rows

    def _open(self) -> None:
        self._identity = self._identified()
        self._file = self._rows_path.open("wb", buffering=0)

    def _identified(self) -> str:
        """Return the hash of all that the pixels depend on."""
        facts = {**self._of_image(), "plan": self._plan, "size": [self._height_px, self._width_px]}
        facts["dtype"] = self._dtype.str
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def _append(self, band: Band | FinishedBand) -> None:
        assert self._file is not None
        content = np.ascontiguousarray(band).data.cast("B")
        self._hash.update(content)
        written = 0
        while written < len(content):
            written += self._file.write(content[written:])
        self._heights.append(band.shape[1])

    def _write_state(self, checkpoint: Checkpoint) -> None:
        started = time.monotonic()
        record = {
            "identity": self._identity,
            "done": checkpoint.done,
            "heights": self._heights,
            "rows_sha256": self._hash.hexdigest(),
            "arrays": [[name, array.dtype.str, array.shape] for name, array in checkpoint.arrays.items()],
        }
        line, digest = json.dumps(record).encode() + b"\n", hashlib.sha256()
        with self._partial_path.open("wb") as file:
            file.write(digest.hexdigest().encode() + b"\n")  # the right one takes its place
            # Array by array: strips of a wide photo keep a gigabyte.
            for part in (memoryview(line), *map(_flat_bytes, checkpoint.arrays.values())):
                digest.update(part)
                file.write(part)
            file.seek(0)
            file.write(digest.hexdigest().encode())
        self._partial_path.replace(self._state_path)
        taken = time.monotonic() - started
        self._checkpoint_due = time.monotonic() + max(CHECKPOINT_SECONDS, taken / CHECKPOINT_SHARE)

    def _read_state(self) -> Checkpoint | None:
        """Return the checkpoint of an earlier run, ready to go on from it; None where it is damaged or of another."""
        try:
            with self._state_path.open("rb") as file:
                digest = file.readline()
                if hashlib.file_digest(file, "sha256").hexdigest().encode() + b"\n" != digest:
                    return None
                file.seek(len(digest))
                record = json.loads(file.readline())
                arrays = _arrays(record["arrays"], file)
            self._identity = self._identified()
            if record["identity"] != self._identity or not self._rows_match(record["heights"], record["rows_sha256"]):
                return None
            self._heights = record["heights"]
            self._file = self._rows_path.open("rb+", buffering=0)
            self._file.truncate(sum(map(self._band_bytes, self._heights)))
            self._file.seek(0, os.SEEK_END)
            return Checkpoint(done=record["done"], arrays=arrays)
        except (OSError, ValueError, KeyError, TypeError):
            self.close()
            self._is_wanted = True
            return None

    def _rows_match(self, heights: list[int], digest: str) -> bool:
        """Return whether the rows up to the checkpoint are those that were written; goes on with their hash."""
        left = sum(map(self._band_bytes, heights))
        self._hash = hashlib.sha256()
        with self._rows_path.open("rb") as file:
            while left and (part := file.read(min(left, _READ_BYTES))):
                self._hash.update(part)
                left -= len(part)
        return not left and self._hash.hexdigest() == digest

    def _remove(self) -> None:
        self._heights, self._hash = [], hashlib.sha256()
        for path in (self._state_path, self._partial_path, self._rows_path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _flat_bytes(array: NDArray[Any]) -> memoryview:
    """Return an array's values as bytes, without a copy where they lie in one piece."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _arrays(described: list[list[Any]], file: BufferedReader) -> dict[str, NDArray[Any]]:
    """Read the arrays of a checkpoint; raises ValueError where their sizes are not those of the data."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, kind, shape in described:
        arrays[name] = np.empty(shape, np.dtype(kind))
        if file.readinto(_flat_bytes(arrays[name])) != arrays[name].nbytes:
            raise ValueError(f"{name} ends early")
    return arrays


def _remove_old(folder: Path) -> None:
    """Delete rows that nobody has gone on with."""
    oldest = time.time() - KEPT_DAYS * 86_400
    for pattern in _PATTERNS:
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < oldest:
                    path.unlink()
