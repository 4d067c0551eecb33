"""Shares a batch among processes that work on one folder: each claims the file that it is about to write.

A claim is a lock file beside the target. It ends with its process, so nobody waits for one that was killed.
"""

import contextlib
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import sleep

from realesr.cli import stopping
from realesr.cli.files import Job, make_folder
from realesr.errors import OutputError
from realesr.machine.held_file import LockFile, remove_abandoned, take_lock

POLL_SECONDS = 1.0
"""How often a process looks for claims of others that have ended, once nothing else is left to do."""

COARSE_NS = 10_000_000
"""Most by which times of files lag behind, as they follow the kernel's tick. Source: Linux' CONFIG_HZ, 100 or more."""

_HELD_FILES = (".realesr-*.claim", ".realesr-*.image.part")


def claim_path(target: Path) -> Path:
    """Return the path of the lock file that stands for a target; short, whatever the target's name is."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()
    return target.with_name(f".realesr-{digest[:16]}.claim")


def remove_abandoned_files(folders: Iterable[Path]) -> None:
    """Delete the claims and half-written images that killed processes have left in these folders."""
    for folder, pattern in itertools.product(set(folders), _HELD_FILES):
        with contextlib.suppress(OSError):
            remove_abandoned(folder, pattern)


def claimed(jobs: Sequence[Job], on_wait: Callable[[int], None]) -> Iterator[tuple[Job, LockFile]]:
    """Yield each job with the claim of its target, which the caller releases; those that others have claimed come last.

    A job comes in any case, once nobody else has claimed it: whether it is still to be done is the caller's question.

    Args:
        jobs: what is to be done, in this order.
        on_wait: called once with the number of jobs that are left, when others have claimed all of them.
    """
    has_waited = False
    while jobs:
        left = []
        for job in jobs:
            with contextlib.suppress(OutputError):  # whoever does the job has the reason
                make_folder(job.target.parent)
            claim = take_lock(claim_path(job.target))
            if claim is None:
                left.append(job)
            else:
                yield job, claim
        if len(left) == len(jobs):
            if not has_waited:
                on_wait(len(left))
            has_waited = True
            stopping.check()
            sleep(POLL_SECONDS)
        jobs = left


def is_done_by_another(job: Job, claim: LockFile, *, overwrite: bool, age_ns: int) -> bool:
    """Return whether a target that was to be written when this run began has been written since.

    Args:
        job: the job, whose target this process has claimed.
        claim: the claim. By its time the run's begin is known on the disk's clock, which need not be this computer's.
        overwrite: whether a file of that name may have been there before.
        age_ns: time since this run began.
    """
    try:
        found = job.target.stat()
    except (OSError, ValueError):
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    if not overwrite:
        return True
    # The time of the last change of the file's entry: that of its renaming.
    return claim.taken_ns is not None and found.st_ctime_ns > claim.taken_ns - age_ns + COARSE_NS
