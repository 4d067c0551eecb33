"""Picks the share of a folder's images that one of several commands enlarges, each on a computer or GPU of its own."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from realesr.cli.files import Found
from realesr.errors import UsageError

SLURM = "slurm"
"""What stands for the place in a Slurm job array."""


@dataclass(frozen=True)
class Shard:
    """One of several shares that are about equally large, the same in every run."""

    number: int = 1
    """From 1 to `count`."""
    count: int = 1

    def has(self, image: Found) -> bool:
        """Return whether an image is in this share: by a hash of its path below the folder that was named."""
        path = (image.below / image.path.name).as_posix()
        digest = hashlib.sha256(os.fsencode(path)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def shard_from(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """Return the share that `--shard` names: "2/8", or "slurm" for the task of a job array; all images by default.

    Source of the variables: Slurm's sbatch(1), job arrays.

    Raises:
        UsageError: it is neither, the number is outside 1 to the count, or this is no task of a job array.
    """
    if text is None:
        return Shard()
    if text == SLURM:
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP")
        values = [environment.get(name, "") for name in names]
        if not all(re.fullmatch("[0-9]{1,9}", value) for value in values) or int(values[3]) < 1:
            raise UsageError(f"got --shard slurm, but {', '.join(names)} are not all set: start it by 'sbatch --array'")
        task, first, last, step = map(int, values)
        return Shard((task - first) // step + 1, (last - first) // step + 1)
    match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"got --shard {text}, expected a number and a count, such as 2/8 (1/8 to 8/8), or slurm")
    return Shard(int(match[1]), int(match[2]))
