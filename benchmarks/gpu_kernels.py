"""Sweeps how the convolutions of a dense block are cut into programs, on a GPU; called by scripts/test-gpu, step K.

    python benchmarks/gpu_kernels.py --seconds 60

First come whole networks, with torch's kernels and with ours as they are set; then each convolution by torch, as
a dense block without our kernels has it (convolution, leaky ReLU, concatenation), and by ours in every configuration.
A configuration is timed only once its result is right.
"""

import argparse
import itertools
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import torch
from gpu_timing import Row, device_seconds
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from realesr.models.weights import Weights
from realesr.models.zoo import load_model

if TYPE_CHECKING:
    from realesr.engines.pytorch.triton_convolution import Configuration

MODEL = "realesrgan-x4plus"
LAYERS = ((192, 64), (160, 32), (128, 32), (96, 32), (64, 32), (64, 64))
"""(input channels, output channels) of a dense block's convolutions and of those after the trunk."""
SIDE_PX = 576
TILE_SIDES_PX = (576, 1024, 288)
MOST_ERROR = 2e-3
"""Largest relative error of a convolution in fp16 against float32."""
COMPILERS = 12
"""Processes that compile configurations ahead, a second or two each."""
COMPILE_SHARE = 0.5
"""Largest share of the time that compiling may take."""


def kernels(device: str, *, seconds: float, small: bool) -> Iterator[Row]:
    """Measure networks, then layers.

    Args:
        device: "cuda"; on a CPU Triton has only its interpreter, which takes minutes.
        seconds: after these no row is begun.
        small: the rehearsal.
    """
    if not device.startswith("cuda"):
        yield {"what": "network", "skipped": "Triton's kernels need an NVIDIA GPU"}
        return
    end = time.monotonic() + seconds
    torch.backends.cudnn.benchmark = True
    with ProcessPoolExecutor(COMPILERS, get_context("spawn")) as pool:
        every = list(itertools.product(LAYERS, configurations()))
        compiled = [pool.submit(compile_one, layer, configuration) for layer, configuration in every]
        wait(compiled, timeout=seconds * COMPILE_SHARE)  # nothing is timed beside them
        yield {"what": "compiled", "configurations": sum(each.done() for each in compiled), "of": len(every)}
        yield from networks(device, TILE_SIDES_PX[:1] if small else TILE_SIDES_PX)
        for (layer, configuration), built in zip(every, compiled, strict=True):
            if configuration == configurations()[0]:
                yield torchs_layer(device, layer)
            if time.monotonic() > end:
                yield {"what": "layer", "skipped": "no time is left"}
                break
            row: Row = {"what": "layer", "layer": "{} to {}".format(*layer), **asdict(configuration)}
            if not built.done():
                yield row | {"skipped": "is not compiled yet"}
                continue
            try:
                built.result()
                row |= our_layer(device, layer, configuration)
            except Exception as error:  # whatever a compiler or a launch may raise: it is a result
                row["failed"] = reason(error)
            yield row
        pool.shutdown(wait=False, cancel_futures=True)


def configurations() -> "list[Configuration]":
    """Return what is tried, the default first."""
    from realesr.engines.pytorch.triton_convolution import DEFAULT, Configuration

    others = [
        Configuration(block_width=width, block_height=height, block_k=k, warps=warps, stages=stages)
        for width, height, k, warps, stages in (
            (32, 8, 64, 8, 3),
            (128, 1, 64, 4, 4),
            (128, 1, 64, 4, 3),
            (128, 1, 32, 4, 4),
            (128, 2, 64, 8, 3),
            (128, 2, 32, 8, 4),
        )
    ]
    return [DEFAULT, *others]


def compile_one(layer: tuple[int, int], configuration: "Configuration") -> None:
    """Compile a configuration in this process, for all: Triton keeps what it has compiled on the disk."""
    our_step("cuda", layer, configuration, side_px=64)[0]()


def networks(device: str, sides_px: tuple[int, ...]) -> Iterator[Row]:
    """Measure whole networks on input that is already on the GPU."""
    from realesr.engines.pytorch.layers import LayerNetwork
    from realesr.engines.pytorch.triton_dense_blocks import triton_network

    weights = load_model(MODEL)
    assert isinstance(weights, Weights)
    module = LayerNetwork(weights).eval().to(device, torch.float16)
    forwards = {
        "torch": module,
        "triton": triton_network(module),
        "triton, torch's tail": triton_network(module, tail=False),
    }
    with torch.inference_mode():
        for side_px in sides_px:
            lr = torch.rand(1, 3, side_px, side_px, device=device, dtype=torch.float16)
            lr = lr.contiguous(memory_format=torch.channels_last)
            expected = module(lr).float()
            for way, forward in forwards.items():
                row: Row = {"what": "network", "way": way, "tile_px": side_px}
                try:
                    error = forward(lr).float() - expected
                    taken = device_seconds(partial(forward, lr), device, 0.5)
                    flop = 2 * weights.architecture.macs_per_px * side_px**2
                    row |= {
                        "gpu_s": taken,
                        "input_mp_s": side_px**2 / taken / 1e6,
                        "tflop_s": flop / taken / 1e12,
                        "psnr_to_torch_db": -10 * math.log10(max(float(error.square().mean()), 1e-12)),
                    }
                except Exception as error:  # as above
                    row["failed"] = reason(error)
                yield row


def reason(error: Exception) -> str:
    """Describe an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def torchs_layer(device: str, layer: tuple[int, int]) -> Row:
    """Measure one convolution of a dense block with PyTorch's kernels."""
    conv = convert_conv2d_weight_memory_format(convolution(device, layer), torch.channels_last)
    source = torch.rand(1, layer[0], SIDE_PX, SIDE_PX, device=device, dtype=torch.float16)
    source = source.contiguous(memory_format=torch.channels_last)

    def step() -> torch.Tensor:
        return torch.cat((source, functional.leaky_relu(conv(source), 0.2)), 1)

    with torch.inference_mode():
        taken = device_seconds(step, device, 0.05)
    return {"what": "layer", "layer": "{} to {}".format(*layer), "kernel": "torch", **speed(layer, taken)}


def our_layer(device: str, layer: tuple[int, int], configuration: "Configuration") -> Row:
    """One convolution by ours.

    Raises:
        ArithmeticError: its result is wrong.
    """
    step, source, target, conv = our_step(device, layer, configuration, side_px=SIDE_PX)
    with torch.inference_mode():
        step()
        expected = functional.leaky_relu(conv.float()(source.permute(0, 3, 1, 2).float()), 0.2)
        error = float((target.permute(0, 3, 1, 2) - expected).norm() / expected.norm())
        if not error < MOST_ERROR:
            raise ArithmeticError(f"got a relative error of {error:.2g}, expected less than {MOST_ERROR:g}")
        taken = device_seconds(step, device, 0.05)
    return speed(layer, taken)


def our_step(device: str, layer: tuple[int, int], configuration: "Configuration", *, side_px: int) -> Any:
    """Return a step that runs the convolution, its source, its target and the convolution."""
    from realesr.engines.pytorch import triton_convolution

    c_in, c_out = layer
    conv = convolution(device, layer)
    packed = triton_convolution.pack(conv)
    like = torch.empty(0, device=device, dtype=torch.float16)
    buffer = triton_convolution.bordered(1, side_px, side_px, c_in + c_out, like)
    buffer[..., :c_in] = torch.rand(1, side_px, side_px, c_in, device=device, dtype=torch.float16) - 0.5
    source, target = buffer[..., :c_in], buffer[..., c_in:]

    def step() -> None:
        triton_convolution.convolve(source, packed, target, leaky=True, configuration=configuration)

    return step, source, target, conv


def convolution(device: str, layer: tuple[int, int]) -> torch.nn.Conv2d:
    """Return a convolution of random weights in fp16."""
    torch.manual_seed(0)
    return torch.nn.Conv2d(*layer, 3, padding=1, device=device, dtype=torch.float16).requires_grad_(False)


def speed(layer: tuple[int, int], taken: float) -> Row:
    """Return time and rate."""
    return {"gpu_us": taken * 1e6, "tflop_s": 2 * 9 * math.prod(layer) * SIDE_PX**2 / taken / 1e12}


def main() -> None:
    """Print every row as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    for row in kernels("cuda", seconds=parser.parse_args().seconds, small=False):
        print(row, flush=True)


if __name__ == "__main__":
    main()
