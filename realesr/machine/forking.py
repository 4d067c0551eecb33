"""Refuses the work of a forked process whose parent had threads of its own.

fork(2) copies the one thread that calls it. What other threads held, such as locks and pools of workers, stays as it
was for ever, so that the engines' libraries and libvips wait for workers that are not there.
"""

import os

from realesr.errors import EngineError

_process_id: int | None = None
"""Process that opened the first network."""


def check_not_forked() -> None:
    """Remember the process that opens its first network; raise EngineError in children that were forked from it."""
    global _process_id
    if _process_id is None:
        _process_id = os.getpid()
    if _process_id != os.getpid():
        raise EngineError(
            "this process was forked from one that had opened a network, whose threads are missing here: start it by "
            "multiprocessing's 'spawn' or 'forkserver', or fork before the first network is opened"
        )
