"""Keeps patches with a teacher's answers on the disk, in bytes, and reads any of them without loading the others.

    FOLDER/teacher.json                what they were made with
    FOLDER/held_out/                   patches of images that nothing is learned from
    FOLDER/000000/lr.npy               64 patches, (64, 3, h, w) uint8
    FOLDER/000000/answers.npy          the teacher's answers, (64, 3, h * scale, w * scale) uint8
    FOLDER/000000/patches.jsonl        a line a patch: its image, and everything that was drawn
    FOLDER/000001/ ...

A folder of patches is written under another name and then renamed, so that it is there whole or not at all. Patches are
read by their place in the file and not through a memory map: mapped pages would count as memory of this process, and a
file that is cut off while it is mapped ends the process.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.machine.whole_file import not_written, whole_folder

SHARD = 64
"""Patches in a folder: what is lost at most where a process is killed."""

HELD_OUT = "held_out"
_LR, _ANSWERS, _RECORDS = "lr.npy", "answers.npy", "patches.jsonl"

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Patches and answers of one folder, all of one size."""

    folder: Path
    patch_px: int
    """Side of the patches, in LR px."""
    scale: int

    def shard_bytes(self) -> int:
        """Return the bytes of a folder of SHARD patches, but for their records."""
        return SHARD * 3 * self.patch_px**2 * (1 + self.scale**2)

    def whole_shards(self) -> int:
        """Return how many folders of patches are there, counted from the first without a gap."""
        number = 0
        while self._shard(number).is_dir():
            number += 1
        return number

    def write(self, number: int | None, lr: Bytes, answers: Bytes, records: Sequence[Mapping[str, Any]]) -> None:
        """Write a folder of patches, whole or not at all.

        Args:
            number: of the folder; None for the patches that are held out.
            lr: (N, 3, h, w), N = SHARD unless they are held out.
            answers: (N, 3, h * scale, w * scale).
            records: what JSON takes, one a patch.

        Raises:
            OutputError: it cannot be written; what is there stays.
        """
        target = self.folder / HELD_OUT if number is None else self._shard(number)
        try:
            with whole_folder(target) as part:
                np.save(part / _LR, lr)
                np.save(part / _ANSWERS, answers)
                lines = "".join(json.dumps(record) + "\n" for record in records)
                (part / _RECORDS).write_text(lines, encoding="utf-8")
        except OSError as error:
            raise not_written(self.folder, error, "free some space; the same command goes on") from error

    def held_out(self) -> tuple[Bytes, Bytes, list[str]]:
        """Return all patches that are held out, the answers to them, and the stems of their images' names.

        Raises:
            InputError: they are not there, or damaged.
        """
        folder = self.folder / HELD_OUT
        try:
            lr, answers = np.load(folder / _LR), np.load(folder / _ANSWERS)
            records = [json.loads(line) for line in (folder / _RECORDS).read_text("utf-8").splitlines()]
            return lr, answers, [Path(record["image"]).stem for record in records]
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise self._damaged(folder) from error

    def read(self, patch: int, lr: Bytes, answer: Bytes) -> None:
        """Read one patch into (3, h, w), and the answer to it into (3, h * scale, w * scale); both C-contiguous.

        Raises:
            InputError: it is not there, or damaged.
        """
        number, place = divmod(patch, SHARD)
        folder = self._shard(number)
        for name, pixels in ((_LR, lr), (_ANSWERS, answer)):
            try:
                _read_into(folder / name, place, pixels)
            except (OSError, ValueError) as error:
                raise self._damaged(folder) from error

    def _shard(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def _damaged(self, folder: Path) -> InputError:
        return InputError(f"{folder} lacks patches or is damaged: delete it, and the same command makes it anew")


def _read_into(path: Path, place: int, pixels: Bytes) -> None:
    """Read the array at one place of an .npy file of SHARD arrays of this shape.

    Its header, whatever the length, is what the file has beside them. Source: NumPy, numpy.lib.format, "Format
    Version 1.0".
    """
    with path.open("rb", buffering=0) as file:
        header = file.seek(0, 2) - SHARD * pixels.nbytes
        if header < 64 or header % 64:  # numpy pads headers to a multiple of 64
            raise ValueError("another size than that of its patches")
        file.seek(header + place * pixels.nbytes)
        if file.readinto(pixels.data.cast("B")) != pixels.nbytes:
            raise ValueError("cut off")
