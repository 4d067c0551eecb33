"""Trains in one process or many: those that torchrun has started, or that are started here in the same way."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from realesr.errors import UsageError
from realesr.machine.cgroup import usable_cores

_SECONDS_AFTER_FAILURE = 120.0
"""Time that the other processes get, from one's end to the next, to save and end after one has failed."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The rank of this process among all that train together, and its device."""

    rank: int
    size: int
    device: torch.device
    rank_here: int = 0
    """Rank among the processes of this machine."""

    @property
    def is_first(self) -> bool:
        """Return whether this process writes files and messages for all."""
        return self.rank == 0


def join_world(device: str = "auto") -> World:
    """Join the processes that torchrun has started; without it, this process is alone.

    Args:
        device: "auto" takes a GPU where there is one, "cpu" and "cuda" force it.

    Raises:
        UsageError: there is no such device.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    rank_here = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _device(device, rank_here)
    if size > 1 and not dist.is_initialized():
        is_cuda = chosen.type == "cuda"
        # Without the device, NCCL warns at each barrier that it has to guess it.
        dist.init_process_group("nccl" if is_cuda else "gloo", device_id=chosen if is_cuda else None)
    return World(rank=rank, size=size, device=chosen, rank_here=rank_here)


def leave_world() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def is_torchrun() -> bool:
    """Return whether torchrun, or `run_on_gpus`, has started this process."""
    return "WORLD_SIZE" in os.environ


def run_on_gpus(count: int, device: str, arguments: Sequence[str]) -> int:
    """Train in `count` processes of `realesr` with these arguments on this machine, and wait until all have ended.

    SIGINT, SIGTERM and SIGHUP are handed on to the processes, which save and end. They have sessions of their own, so
    that Ctrl-C reaches each once: a second one would end it at once. Once one fails the others get time to save as
    well, and are ended then, for they may wait for it for ever.

    Returns:
        The exit code of the first that failed, else 0.

    Raises:
        UsageError: there are fewer GPUs, and the device is not "cpu".
    """
    check_gpus(count, device)
    return run_together(count, [sys.executable, "-m", "realesr", *arguments])


def check_gpus(count: int, device: str) -> None:
    """Raise UsageError where this machine has fewer GPUs, and the device is not "cpu"."""
    there = torch.cuda.device_count()
    if count < 1 or (there < count and device != "cpu"):
        raise UsageError(
            f"got {count} GPUs, expected 1 or more, and no more than the {there} that torch sees here (or the device "
            "cpu, to try it)",
            option="gpus",
        )


def run_together(count: int, command: Sequence[str]) -> int:
    """Run a command in `count` processes with the variables that torchrun sets; see `run_on_gpus`."""
    shared = {
        "OMP_NUM_THREADS": str(max(1, usable_cores() // count)),
        **os.environ,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    workers: list[subprocess.Popen[bytes]] = []
    with _signals_handed_on(workers) as received:
        for rank in range(count):
            environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            workers.append(subprocess.Popen(command, env=environment, start_new_session=True))
        if received:  # maybe before the last of them was there
            for worker in workers:
                worker.terminate()
        return _exit_code_of_all(workers)


def _exit_code_of_all(workers: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Wait for all processes, and end those that outlive another's failure by far; return the first failure's code."""
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    for worker in workers:
        threading.Thread(target=lambda process: ended.put(process.wait()), args=(worker,), daemon=True).start()
    first_failure = 0
    for _ in workers:
        try:
            code = ended.get(timeout=_SECONDS_AFTER_FAILURE if first_failure else None)
        except queue.Empty:
            for worker in workers:
                worker.kill()
            code = ended.get()
        # A process that a signal has ended has the code that shells give it.
        first_failure = first_failure or (code if code >= 0 else 128 - code)
    return first_failure


@contextmanager
def _signals_handed_on(workers: Sequence["subprocess.Popen[bytes]"]) -> Iterator[list[int]]:
    """Send each process the signals that tell this one to end; yields the list of those that came."""
    received: list[int] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for worker in workers:
            # SIGHUP, where the terminal was closed, is no signal to save for every process: SIGTERM is.
            worker.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    # `nohup` lets its process ignore SIGHUP, which Windows has not.
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    taken = [number for number in numbers if number is not None and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, hand_on) for number in taken}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    """Return a TCP port of this machine that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def data_parallel(module: nn.Module, world: World) -> nn.Module:
    """Return the module, wrapped so that gradients are the mean over all processes."""
    if world.size == 1:
        return module
    ids = [world.device.index] if world.device.type == "cuda" else None
    # Buffers are spectral norm's vectors, the same everywhere: sending them would break the second pass of one step.
    with warnings.catch_warnings():
        # PyTorch 2.13 deprecates the argument for one that 2.9 to 2.12 do not have; this goes once they are too old.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)


def true_in_all(flag: Tensor, world: World) -> bool:
    """Return whether a flag is true in every process. Waits for the device."""
    if world.size > 1:
        flag = flag.to(torch.int32)
        dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag)


def true_in_any(flag: bool, world: World) -> bool:
    """Return whether a flag is true in some process."""
    return bool(greatest_of_all(int(flag), world))


def greatest_of_all(number: int, world: World) -> int:
    """Return the greatest of the whole numbers that the processes have."""
    if world.size == 1:
        return number
    asked = torch.tensor(number, dtype=torch.int64, device=world.device)
    dist.all_reduce(asked, dist.ReduceOp.MAX)
    return int(asked)


def merged_of_all(own: Mapping[str, str], world: World) -> dict[str, str]:
    """Return the texts of all processes, the same in each; where two have a name, that of the lower rank counts."""
    if world.size == 1:
        return dict(own)
    gathered: list[Any] = [None] * world.size
    dist.all_gather_object(gathered, dict(own))
    merged: dict[str, str] = {}
    for texts in reversed(gathered):
        merged |= texts
    return merged


def mean_of_all(values: dict[str, Tensor], world: World) -> dict[str, float]:
    """Return each value's mean over all processes. Waits for the device: call it once in many iterations."""
    if not values:
        return {}
    stacked = torch.stack([value.detach().float() for value in values.values()])
    if world.size > 1:
        dist.all_reduce(stacked)
        stacked /= world.size
    return dict(zip(values, stacked.tolist(), strict=True))


def is_of_lost_process(error: Exception) -> bool:
    """Return whether an error says no more than that another process has ended, in the words of gloo or NCCL."""
    return isinstance(error, dist.DistBackendError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))


def wait_for_all(world: World) -> None:
    """Wait until every process has called this."""
    if world.size > 1:
        dist.barrier()


def _device(name: str, local_rank: int) -> torch.device:
    if name not in ("auto", "cpu", "cuda", "mps"):
        raise UsageError(f"got the device {name}, expected auto, cpu, cuda or mps", option="device")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("got the device cuda, but torch sees no NVIDIA GPU here: expected cpu", option="device")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("got the device mps, but torch sees no Apple GPU here: expected cpu", option="device")
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    return torch.device("cpu" if name == "auto" else name)
