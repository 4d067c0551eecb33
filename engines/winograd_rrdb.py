"""RRDBNets with the convolutions of winograd.c.

An image's size fixes all maps, so a network is laid out once for a size, as a list of convolutions, and run for each
image of that size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realesr.architectures import RRDB, State
from realesr.engine import OnShare
from realesr.engines.winograd_kernel import Kernel
from realesr.engines.winograd_layers import DenseRoom, FeatureMap, Layer, Step, Workers, step
from realesr.tiles import plan_tiles
from realesr.weights import Weights

Run = Callable[[NDArray[np.float32], OnShare], NDArray[np.float32]]
"""Enlarges an image of one size, and tells after each dense block and band of the tail how much is done."""

BAND_PX = 16_384
"""What an RRDBNet's tail takes at a time, in pixels of the trunk: 170 MB, for its maps are up to 16 times as large."""
BAND_HALO_PX = 2
"""What the tail reads above and below a band, in rows of the trunk: all that its convolutions see, or more."""

RESIDUAL = 0.2
"""Of what a dense block gives, and a block of three. Source: RRDBNet, as in `realesr.architectures`."""
CONVS = 5
"""Of a dense block. Source: likewise."""
LEAKY = 0.2
"""Slope of an RRDBNet's leaky ReLUs. Source: likewise."""


@dataclass(frozen=True)
class Trunk:
    """An RRDBNet up to what is doubled, for images of one size."""

    image: FeatureMap
    before: Step
    dense_blocks: list[list[Step]]
    room: DenseRoom
    after: Step
    features: FeatureMap
    """The result."""

    @property
    def work(self) -> int:
        """See `Step.work`."""
        return self.before.work + sum(map(work_of, self.dense_blocks)) + self.after.work


class Meter:
    """Turns work that was done into the share of all."""

    def __init__(self, work: int, on_share: OnShare) -> None:
        self._all, self._done = work, 0
        self._on_share = on_share

    def add(self, work: int) -> None:
        """So much more is done."""
        self._done += work
        self._on_share(self._done / self._all)


class RrdbNetwork:
    """An RRDBNet's layers."""

    def __init__(self, kernel: Kernel, workers: Workers, weights: Weights) -> None:
        self._kernel, self._workers = kernel, workers
        assert isinstance(weights.architecture, RRDB)
        self._architecture = architecture = weights.architecture
        names = [key.removesuffix(".weight") for key in architecture.shapes if key.endswith(".weight")]
        self._layers = {name: self._layer(name, weights.state) for name in names}
        self._laid_out: tuple[tuple[int, ...], Run] | None = None

    def run(self, image: NDArray[np.float32], on_share: OnShare) -> NDArray[np.float32]:
        """A whole image: (3, h, w) to (3, h * scale, w * scale)."""
        if self._laid_out is None or self._laid_out[0] != image.shape:
            self._laid_out = None  # its memory makes room first
            self._laid_out = image.shape, self._layout(*image.shape[1:])
        return self._laid_out[1](image, on_share)

    def _layer(self, name: str, state: State) -> Layer:
        filters, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if not name.startswith("body."):
            return Layer(
                self._kernel,
                filters,
                bias,
                inputs=(filters.shape[1],),
                slopes=np.full(len(bias), LEAKY, np.float32) if name.startswith(("conv_up", "conv_hr")) else None,
            )
        architecture, conv = self._architecture, int(name[-1])
        inputs = architecture.features, *(architecture.growth,) * (conv - 1)
        if conv < CONVS:
            return Layer(self._kernel, filters, bias, inputs=inputs, slopes=np.full(len(bias), LEAKY, np.float32))
        share = np.float32(RESIDUAL**2 if name.endswith("rdb3.conv5") else RESIDUAL)
        return Layer(self._kernel, filters * share, bias * share, inputs=inputs)

    def _layout(self, height: int, width: int) -> Run:
        """The network for images of one size."""
        unshuffle, scale = self._architecture.unshuffle, self._architecture.scale
        rows, columns = height // unshuffle, width // unshuffle
        trunk = self._trunk(rows, columns)
        band_rows = max(1, BAND_PX // columns)
        bands = plan_tiles(
            rows, columns, tile_px=columns, tile_height_px=band_rows, overlap_px=BAND_HALO_PX, blend=False
        ).rows
        band, enlarged, tail = self._tail(bands.tile_px, columns)
        finest = 2**self._architecture.upsamplings

        def run(image: NDArray[np.float32], on_share: OnShare) -> NDArray[np.float32]:
            meter = Meter(trunk.work + len(bands.tiles) * work_of(tail), on_share)
            trunk.image.inside[:, :, : self._architecture.in_channels] = unshuffled(image, unshuffle)
            self._run_trunk(trunk, meter)
            output = np.empty((3, height * scale, width * scale), np.float32)
            for part in bands.tiles:
                band.inside[:] = trunk.features.inside[part.start : part.start + bands.tile_px]
                for one in tail:
                    self._workers.run_alone(one)
                wanted = enlarged.inside[(part.first - part.start) * finest : (part.last - part.start) * finest, :, :3]
                output[:, part.first * finest : part.last * finest] = wanted.transpose(2, 0, 1)
                meter.add(work_of(tail))
            return output

        return run

    def _trunk(self, rows: int, columns: int) -> Trunk:
        layers, features = self._layers, self._kernel.padded(self._architecture.features)
        image = FeatureMap(rows, columns, self._kernel.padded(self._architecture.in_channels))
        first, block, inner = (FeatureMap(rows, columns, features) for _ in range(3))
        growth = self._kernel.padded(self._architecture.growth)
        grown = FeatureMap(rows, columns, growth), FeatureMap(rows, columns, growth)
        dense_blocks = []
        for number in range(self._architecture.blocks):
            start, name = block if number else first, f"body.{number}"
            dense_blocks += [
                self._dense_block(f"{name}.rdb1", start, grown, inner, share=1.0),
                self._dense_block(f"{name}.rdb2", inner, grown, inner, share=1.0),
                self._dense_block(f"{name}.rdb3", inner, grown, block, share=RESIDUAL, outer=start),
            ]
        return Trunk(
            image=image,
            before=step(layers["conv_first"], image, first),
            dense_blocks=dense_blocks,
            room=DenseRoom(dense_blocks[0][0], features + 4 * growth, CONVS, self._workers.threads),
            after=step(layers["conv_body"], block, inner, skip=(first, 1.0)),
            features=inner,
        )

    def _run_trunk(self, trunk: Trunk, meter: Meter) -> None:
        self._workers.run_alone(trunk.before)
        for convs in trunk.dense_blocks:
            for phase in trunk.room.phases(convs):
                self._workers.run(phase)
            meter.add(work_of(convs))
        self._workers.run_alone(trunk.after)
        meter.add(trunk.before.work + trunk.after.work)

    def _dense_block(
        self,
        name: str,
        x: FeatureMap,
        grown: tuple[FeatureMap, FeatureMap],
        target: FeatureMap,
        *,
        share: float,
        outer: FeatureMap | None = None,
    ) -> list[Step]:
        """Five convolutions. Each reads what the one before wrote; of what came earlier the points are there.

        So the maps of `grown` take turns, and `target` may be `x` or `outer`. `share` is the factor for `x` in the sum.
        """
        depth = x.channels + 4 * grown[0].channels
        steps, source = [], x
        for conv in range(1, CONVS + 1):
            written = target if conv == CONVS else grown[conv % 2]
            joined = depth, 0 if conv == 1 else x.channels + (conv - 2) * source.channels
            skip = (x, share) if conv == CONVS else None
            layer = self._layers[f"{name}.conv{conv}"]
            steps.append(step(layer, source, written, joined=joined, skip=skip, outer=outer if conv == CONVS else None))
            source = written
        return steps

    def _tail(self, rows: int, columns: int) -> tuple[FeatureMap, FeatureMap, list[Step]]:
        """A band of features, the same rows of the output, and what lies between."""
        features = self._kernel.padded(self._architecture.features)
        band = latest = FeatureMap(rows, columns, features)
        steps = []
        for up in range(1, self._architecture.upsamplings + 1):
            larger = FeatureMap(latest.height * 2, latest.width * 2, features)
            steps.append(step(self._layers[f"conv_up{up}"], latest, larger, doubled=True))
            latest = larger
        fine, last = (FeatureMap(latest.height, latest.width, n) for n in (features, self._kernel.padded(3)))
        steps += [step(self._layers["conv_hr"], latest, fine), step(self._layers["conv_last"], fine, last)]
        return band, last, steps


def work_of(steps: list[Step]) -> int:
    """See `Step.work`."""
    return sum(one.work for one in steps)


def unshuffled(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """(3, h, w) to (h / factor, w / factor, 3 * factor^2), channels ordered as torch's pixel-unshuffle has them."""
    _, height, width = image.shape
    squares = image.reshape(3, height // factor, factor, width // factor, factor)
    return squares.transpose(1, 3, 0, 2, 4).reshape(height // factor, width // factor, -1)
