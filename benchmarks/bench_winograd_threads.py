"""How engine winograd would share its work among more threads than there are here: a dry run, which multiplies nothing.

    python benchmarks/bench_winograd_threads.py                        8 and 32 threads, 384 and 700 px, three networks
    python benchmarks/bench_winograd_threads.py --threads 64 --sides 1500
    python benchmarks/bench_winograd_threads.py --strips 1200x168 4000x48   strips of such width and rows too
    python benchmarks/bench_winograd_threads.py --strips 1200x168 4000x48 --save

Every phase is what must be done before the next one begins: a convolution, or a step of a dense block's pipeline. Its
tasks are given to the threads as the engine does it: whoever is free takes the next one. A task's time is reckoned from
its multiply-accumulates and the channels that it transforms, in the proportion that x4plus was measured to have in the
CPU time of one core: products 39, forward transform 15, inverse 4. Caches and memory are left out of it.

Columns: phases; tasks of the phase that has the least; idle share of all threads' time, in all phases together and in
the worst one; how many phases leave more than a tenth idle; the largest share that one thread has of a phase, 1 where
it is even; MB of weights that are read in a phase, each task's own counted: the median and the most. Of an RRDBNet
three dense blocks stand for all 69. What numpy does between the phases, on one thread, is left out too.
"""

import argparse
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from report import save, show

from realesr.engines.winograd.kernel import POINTS, load_kernel
from realesr.engines.winograd.network import Network
from realesr.engines.winograd.tiles import Task, Workers
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.layers import Convolution
from realesr.models.rrdb import RRDB
from realesr.models.weights import Weights

NETWORKS: dict[str, Architecture] = {
    "realesrgan-x4plus": RRDB(scale=4, blocks=1),
    "realesr-animevideov3": Compact(scale=4, features=64, convs=16),
    "realesr-general-x4v3": Compact(scale=4, features=64, convs=32),
}

MOST_IDLE = 0.1

# Of x4plus, for each input pixel, in a core's microseconds: what was measured, and what there is to do.
PRODUCT_US, FORWARD_US, INVERSE_US = 39.0, 15.0, 4.0
X4PLUS = RRDB(scale=4)


@dataclass(frozen=True)
class Costs:
    """Microseconds for what a task does."""

    multiplication: float
    forward: float
    """For a channel of a tile. Likewise `inverse`."""
    inverse: float

    def of(self, task: Task) -> float:
        """Return the time of a task."""
        convolution, tiles = task.step.convolution, task.last - task.first
        if convolution.is_1x1:
            pixels = tiles * convolution.width
            return float(pixels * convolution.input_channels * convolution.output_channels * self.multiplication)
        depth = convolution.offset + convolution.input_channels
        products = POINTS * depth * convolution.output_channels * self.multiplication
        transforms = convolution.input_channels * self.forward + convolution.output_channels * self.inverse
        return float(tiles * (products + transforms))


@dataclass(frozen=True)
class Phase:
    """What the threads do before they wait for each other."""

    tasks: int
    busy: float
    """Time of all tasks together."""
    longest: float
    """Time of the thread that has the most to do."""
    weight_bytes: int


class DryWorkers(Workers):
    """Threads that are reckoned with, and do nothing."""

    def __init__(self, threads: int, costs: Costs) -> None:
        self.threads, self._costs = threads, costs
        self._pool = None  # the filters are transformed by this thread
        self.phases: list[Phase] = []

    def run(self, tasks: list[Task]) -> None:
        """Share the tasks, and note what each thread has."""
        loads = [0.0] * self.threads
        for task in tasks:
            heapq.heappush(loads, heapq.heappop(loads) + self._costs.of(task))
        read = sum(_weight_bytes(task) for task in tasks)
        self.phases.append(Phase(len(tasks), sum(loads), max(loads), read))


def _weight_bytes(task: Task) -> int:
    convolution = task.step.convolution
    depth = convolution.offset + convolution.input_channels
    weights: int = (1 if convolution.is_1x1 else POINTS) * depth * convolution.output_channels
    return 4 * weights


def measured_costs() -> Costs:
    """Return the costs at which x4plus takes what was measured, at four input pixels to each of the trunk's tiles."""
    multiplications = forward = inverse = 0.0
    for layer in X4PLUS.convolutions:
        tiles = float(X4PLUS.map_shapes[layer.name].grid) ** 2 / 16
        multiplications += tiles * POINTS * layer.in_channels * layer.out_channels
        forward += tiles * _newest_channels(layer)
        inverse += tiles * layer.out_channels
    return Costs(PRODUCT_US / multiplications, FORWARD_US / forward, INVERSE_US / inverse)


def _newest_channels(layer: Convolution) -> int:
    """Return the channels that a convolution transforms: in a dense block those that the one before it has added."""
    return int(X4PLUS.growth if layer.in_channels > X4PLUS.features else layer.in_channels)


def dry_run(
    architecture: Architecture, height_px: int, threads: int, *, width_px: int = 0, in_strips: bool = False
) -> list[Phase]:
    """Take an image, or one strip amid others, through a network without multiplying; a square without a width."""
    kernel = load_kernel()
    workers = DryWorkers(threads, measured_costs())
    state = {key: np.zeros(shape, np.float32) for key, shape in architecture.shapes.items()}
    network = Network(kernel, workers, Weights("dry", architecture, state, "0" * 64))
    image = np.zeros((3, height_px, width_px or height_px), np.float32)
    if not in_strips:
        network.run(image, lambda _: None)
        return workers.phases
    strips = network.begin(image.shape[2], height_px)
    for _ in range(-(-architecture.radius_px // height_px) + 1):
        workers.phases.clear()
        strips.step(image[None], is_last=False)
    return workers.phases


def idle(phases: list[Phase], threads: int) -> float:
    """Return the share of all threads' time in which they wait."""
    return 1 - sum(phase.busy for phase in phases) / (threads * sum(phase.longest for phase in phases))


def rows(sides_px: list[int], strips: list[str], counts: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for each image or strip, network and number of threads."""
    for side in sides_px:
        yield from _rows_of(f"{side} x {side}", counts, height_px=side)
    for strip in strips:
        width, height = map(int, strip.split("x"))
        yield from _rows_of(f"strip of {width} x {height}", counts, height_px=height, width_px=width, in_strips=True)


def _rows_of(image: str, counts: list[int], **how: Any) -> Iterator[dict[str, Any]]:
    for name, architecture in NETWORKS.items():
        for threads in counts:
            phases = dry_run(architecture, threads=threads, **how)
            worst = max(phases, key=lambda phase: idle([phase], threads))
            read = [phase.weight_bytes / 1e6 for phase in phases]
            yield {
                "image": image,
                "network": name,
                "threads": threads,
                "phases": len(phases),
                "least tasks": min(phase.tasks for phase in phases),
                "idle": round(idle(phases, threads), 3),
                "worst": round(idle([worst], threads), 3),
                "too idle": sum(idle([phase], threads) > MOST_IDLE for phase in phases),
                "share": round(max(phase.longest * threads / phase.busy for phase in phases), 2),
                "MB": round(float(np.median(read)), 1),
                "most MB": round(max(read), 1),
            }


def main() -> None:
    """Reckon, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--sides", type=int, nargs="*", default=[384, 700], help="px of square pictures")
    parser.add_argument("--strips", nargs="*", default=[], metavar="WIDTHxROWS")
    parser.add_argument("--save", action="store_true", help="write the table under results/")
    arguments = parser.parse_args()
    table = list(rows(arguments.sides, arguments.strips, arguments.threads))
    show("Engine winograd, dry run", table)
    if arguments.save:
        save("winograd-threads", table)


if __name__ == "__main__":
    main()
