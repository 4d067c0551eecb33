"""Imitates bf16 and int8 in some of a network's convolutions, to see what they would cost in quality.

    python benchmarks/bench_lower_precision.py PHOTO [PHOTO ...]

Inputs and weights of convolutions are rounded, products and everything between the convolutions stay in float32, as a
processor with such products has them: so the residual sums are never rounded. int8: weights symmetric, with a scale for
each output channel; inputs with one range a convolution, of three the one with the least squared error on calibration
crops: four photos of scikit-image, degraded by the default recipe of training. "best half" takes the convolutions of a
small network, or the dense blocks of a deep one, that do the least harm each by itself on two of the crops. First and
last: the first convolution and all behind the trunk, or the last. Nothing is timed here: rounding takes time.

Errors are those of bench_precision.py, on the same pictures, against the same network in float32.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import report
import skimage.data
import torch
from bench_precision import MADE, MODELS, SKIMAGE, all_images, figures
from torch import Tensor, nn

from realesr.export.proof import Case, measure
from realesr.models.weights import Weights
from realesr.models.zoo import load_model
from realesr.networks import build_with
from realesr.train.degrade.apply import apply
from realesr.train.degrade.draw import draw
from realesr.train.degrade.recipe import CORRECTED

RoundInput = Callable[[str, Tensor], Tensor]
"""Rounds the input of the convolution of that name."""
RoundWeight = Callable[[Tensor], Tensor]
Lowered = tuple[list[str], RoundWeight, RoundInput]
"""Names of convolutions, and what is done to them."""

CALIBRATION_HR_PX = 192
QUANTILES = (0.0, 1e-4, 1e-3)
"""Shares of the values that the three ranges leave out at each end."""
VALUES_A_CONVOLUTION = 200_000


def loaded(model: str) -> tuple[nn.Module, bool]:
    """Return the torch module, and whether it has dense blocks before an enlargement."""
    weights = load_model(model)
    assert isinstance(weights, Weights)
    return build_with(weights).eval(), weights.architecture.has_enlarged_convolutions


def convolutions(module: nn.Module) -> list[str]:
    """Return the names of the convolutions, in order of execution."""
    return [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d)]


@contextlib.contextmanager
def lowered(module: nn.Module, names: list[str], round_weight: RoundWeight, round_input: RoundInput) -> Iterator[None]:
    """The module with these convolutions rounded."""
    convs = {name: part for name, part in module.named_modules() if isinstance(part, nn.Conv2d) and name in names}
    kept = {name: conv.weight for name, conv in convs.items()}
    hooks = []
    for name, conv in convs.items():
        conv.weight = nn.Parameter(round_weight(kept[name].detach()))
        hooks.append(conv.register_forward_pre_hook(lambda _, inputs, name=name: (round_input(name, inputs[0]),)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, conv in convs.items():
            conv.weight = kept[name]


def to_bf16(values: Tensor) -> Tensor:
    """Round to 8 bits of mantissa."""
    return values.bfloat16().float()


def weight_to_int8(weight: Tensor) -> Tensor:
    """Round weights, (out, in, 3, 3), to 255 levels around 0, each output channel by itself."""
    step = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    return torch.round(weight / step) * step


def to_int8(values: Tensor, low: float, high: float) -> Tensor:
    """Round to 256 levels from low to high, 0 among them."""
    step = (high - low) / 255
    zero = round(-low / step)
    return torch.round(values / step).clamp(-zero, 255 - zero) * step


def calibration() -> Tensor:
    """Return degraded photos, (4, 3, h, w)."""
    crops = [getattr(skimage.data, name)()[:CALIBRATION_HR_PX, :CALIBRATION_HR_PX] for name in SKIMAGE]
    hr = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    size = (CALIBRATION_HR_PX, CALIBRATION_HR_PX)
    return apply(hr, draw(CORRECTED, len(crops), torch.Generator().manual_seed(0), hr_px=size, scale=4))


@torch.no_grad()
def ranges(module: nn.Module, crops: Tensor) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of each convolution's input that int8 keeps."""
    found: dict[str, tuple[float, float]] = {}

    def look(name: str, values: Tensor) -> Tensor:
        few = values.flatten()[:: max(1, values.numel() // VALUES_A_CONVOLUTION)]
        choices = []
        for left_out in QUANTILES:
            low, high = np.quantile(few.numpy(), (left_out, 1 - left_out))
            low, high = min(float(low), 0.0), max(float(high), 1e-6)
            choices.append((float((to_int8(few, low, high) - few).square().mean()), (low, high)))
        found[name] = min(choices)[1]
        return values

    with lowered(module, convolutions(module), lambda weight: weight, look):
        module(crops)
    return found


@torch.no_grad()
def best_half(module: nn.Module, groups: list[list[str]], int8: RoundInput, crops: Tensor) -> list[str]:
    """Return the convolutions of the groups that do the least harm, each group by itself."""
    exact = module(crops[:2])
    harm = []
    for number, names in enumerate(groups):
        with lowered(module, names, weight_to_int8, int8):
            harm.append((float((module(crops[:2]) - exact).square().mean()), number))
    best = sorted(harm)[: len(groups) // 2]
    return [name for _, number in best for name in groups[number]]


def ways_of(module: nn.Module, is_deep: bool) -> Iterator[tuple[str, str, Lowered]]:
    """Return the ways of lowering: precision, place, and how."""

    def bf16(_: str, values: Tensor) -> Tensor:
        return to_bf16(values)

    crops = calibration()
    limits = ranges(module, crops)

    def int8(name: str, values: Tensor) -> Tensor:
        return to_int8(values, *limits[name])

    names = convolutions(module)
    inner = [name for name in names if name.startswith("body.")] if is_deep else names[1:-1]
    yield "bf16", "all convolutions", (names, to_bf16, bf16)
    yield "bf16", "all but first and last", (inner, to_bf16, bf16)
    yield "int8", "all convolutions", (names, weight_to_int8, int8)
    yield "int8", "all but first and last", (inner, weight_to_int8, int8)
    if is_deep:
        growing = [name for name in inner if not name.endswith("conv5")]
        yield "int8", "dense blocks without their last", (growing, weight_to_int8, int8)
        blocks = list(dict.fromkeys(name.rpartition(".")[0] for name in inner))
        groups = [[name for name in inner if name.startswith(f"{block}.")] for block in blocks]
    else:
        groups = [[name] for name in inner]
    yield "int8", "best half", (best_half(module, groups, int8, crops), weight_to_int8, int8)


@torch.no_grad()
def rows_of(model: str, paths: list[Path], side_px: int) -> Iterator[dict[str, Any]]:
    """Return one row for each way of running the network."""
    module, is_deep = loaded(model)
    images = [(name, batch) for name, batch in all_images(paths, side_px) if not name.startswith(MADE)]
    cases = [Case(picture=name, batch=b, expected=module(torch.from_numpy(b)).numpy()) for name, b in images]
    for precision, where, way in ways_of(module, is_deep):
        with lowered(module, *way):
            rows = [measure(case, lambda batch: module(torch.from_numpy(batch)).numpy()) for case in cases]
        row = figures(model, where, precision, rows)
        yield {"model": row.pop("model"), "where": row.pop("engine"), "convolutions": len(way[0]), **row}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=48, help="largest side of what is cut from each image, px")
    parser.add_argument("--models", nargs="*", default=MODELS, help="only these networks")
    arguments = parser.parse_args()
    rows = [row for model in arguments.models for row in rows_of(model, arguments.photos, arguments.side)]
    report.show("error of lower precisions against float32", rows)
    report.save("lower-precision", rows, side_px=arguments.side)


if __name__ == "__main__":
    main()
