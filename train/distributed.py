"""Trains in one process or many: those that torchrun has started, or started here by torchrun."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from realesr.errors import UsageError


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
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(rank=rank, size=size, device=chosen, rank_here=rank_here)


def leave_world() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def is_torchrun() -> bool:
    """Return whether torchrun has started this process."""
    return "WORLD_SIZE" in os.environ


def run_on_gpus(count: int, device: str, arguments: Sequence[str]) -> int:
    """Start `count` processes of `realesr` with these arguments on this machine; return the exit code.

    Raises:
        UsageError: there are fewer GPUs, and the device is not "cpu".
    """
    there = torch.cuda.device_count()
    if count < 1 or (there < count and device != "cpu"):
        raise UsageError(
            f"got {count} GPUs, expected 1 to {there}, which torch sees here (or the device cpu, to try it)",
            option="gpus",
        )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    threads = max(1, (os.cpu_count() or 1) // count)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    return subprocess.run([*command, "-m", "realesr", *arguments], env=environment, check=False).returncode


def data_parallel(module: nn.Module, world: World) -> nn.Module:
    """Return the module, wrapped so that gradients are the mean over all processes."""
    if world.size == 1:
        return module
    ids = [world.device.index] if world.device.type == "cuda" else None
    # Buffers are spectral norm's vectors, the same everywhere: sending them would break the second pass of one step.
    return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)


def true_in_all(flag: Tensor, world: World) -> bool:
    """Return whether a flag is true in every process. Waits for the device."""
    if world.size > 1:
        flag = flag.to(torch.int32)
        dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag)


def true_in_any(flag: bool, world: World) -> bool:
    """Return whether a flag is true in some process."""
    if world.size == 1:
        return flag
    asked = torch.tensor(int(flag), device=world.device)
    dist.all_reduce(asked, dist.ReduceOp.MAX)
    return bool(asked)


def mean_of_all(values: dict[str, Tensor], world: World) -> dict[str, float]:
    """Return each value's mean over all processes. Waits for the device: call it once in many iterations."""
    if not values:
        return {}
    stacked = torch.stack([value.detach().float() for value in values.values()])
    if world.size > 1:
        dist.all_reduce(stacked)
        stacked /= world.size
    return dict(zip(values, stacked.tolist(), strict=True))


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
