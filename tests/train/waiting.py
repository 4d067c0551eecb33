"""Makes the tests fail where the host waits for a GPU."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PROTOTYPE = "Synchronization debug mode is a prototype feature"
"""How the warning begins that torch gives once a process (torch/csrc/cuda/Module.cpp, THCPModule_cudaSetSyncDebugMode).
Where warnings are errors, it is raised after the mode has been set."""


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Let CUDA calls that wait for the GPU raise RuntimeError, and put torch's mode back whatever happens."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        _set_mode("error")
        yield
    finally:
        _set_mode(before)


def _set_mode(mode: int | str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=PROTOTYPE, category=UserWarning)
        torch.cuda.set_sync_debug_mode(mode)
