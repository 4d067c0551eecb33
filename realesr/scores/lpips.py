"""Computes LPIPS, the distance of an image and its reference in the features of a network that recognises objects.

Source: R. Zhang, P. Isola, A. A. Efros, E. Shechtman and O. Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018, and version 0.1 of their release (https://github.com/richzhang/PerceptualSimilarity). No
weights come with this package: the user gives the release's linear layers (alex.pth, vgg.pth) and the backbone's file
of torchvision, or one file of both. The names of the tensors are theirs.

files -> tensors by name -> backbone and linear layers -> features of both images -> distance
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError, MissingDependency, ModelError
from realesr.machine.memory import free_bytes
from realesr.models.safetensors_file import read_safetensors
from realesr.models.state_dict import Arrays, state_dict
from realesr.models.torch_file import read_torch
from realesr.scores.luma import check_image
from realesr.scores.reference import check_same_size

if TYPE_CHECKING:
    from torch import Tensor

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and standard deviation of RGB in [-1, 1] by which images are normalised. Source: the release, lpips.py."""
_EPSILON = 1e-10
"""Added to the length of a feature vector that is divided by. Source: the release."""


@dataclass(frozen=True)
class _Conv:
    """A convolution of a backbone, with a ReLU behind it."""

    index: int
    """Its place in torchvision's `features`."""
    channels: int
    kernel_px: int = 3
    stride: int = 1
    padding_px: int = 1
    pool_px: int = 0
    """Side of the max-pooling with stride 2 before it; 0 for none."""
    is_compared: bool = True
    """Whether its features, behind the ReLU, are compared."""


@dataclass(frozen=True)
class _Backbone:
    """The convolutions of a network that recognises objects."""

    title: str
    file: str
    """torchvision's file."""
    convs: tuple[_Conv, ...]
    least_px: int
    """Shortest side of an image that leaves a feature in the last layer."""
    bytes_per_px: int
    """Memory that a comparison takes: growth of the peak for 1 MP, rounded up; measured on 2026-11-27, torch 2.13."""


_ALEXNET = _Backbone(
    "AlexNet",
    "alexnet-owt-7be5be79.pth",
    (
        _Conv(0, 64, 11, stride=4, padding_px=2),
        _Conv(3, 192, 5, padding_px=2, pool_px=3),
        _Conv(6, 384, pool_px=3),
        _Conv(8, 256),
        _Conv(10, 256),
    ),
    least_px=31,
    bytes_per_px=220,
)
"""A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, arXiv 1404.5997."""

_VGG16 = _Backbone(
    "VGG16",
    "vgg16-397923af.pth",
    (
        *(_Conv(0, 64, is_compared=False), _Conv(2, 64)),
        *(_Conv(5, 128, pool_px=2, is_compared=False), _Conv(7, 128)),
        *(_Conv(10, 256, pool_px=2, is_compared=False), _Conv(12, 256, is_compared=False), _Conv(14, 256)),
        *(_Conv(17, 512, pool_px=2, is_compared=False), _Conv(19, 512, is_compared=False), _Conv(21, 512)),
        *(_Conv(24, 512, pool_px=2, is_compared=False), _Conv(26, 512, is_compared=False), _Conv(28, 512)),
    ),
    least_px=16,
    bytes_per_px=2200,
)
"""K. Simonyan and A. Zisserman 2014, arXiv 1409.1556, table 1, D."""


def open_lpips(paths: Iterable[Path]) -> "Lpips":
    """Read the linear layers and the backbone from one file or several (.pth, .pt, .safetensors).

    Raises:
        MissingDependency: torch is not installed.
        ModelError: a file cannot be read, or tensors are missing or of other shapes.
    """
    paths = list(paths)
    tensors: Arrays = {}
    for path in paths:
        tensors |= _read_tensors(path)
    return Lpips(tensors, source=", ".join(path.name for path in paths))


class Lpips:
    """LPIPS with given weights, on the CPU in float32."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], *, source: str = "the weights") -> None:
        """Take the tensors of the linear layers and of AlexNet or VGG16, by the names of the release and torchvision.

        Raises:
            MissingDependency: torch is not installed.
            ModelError: tensors are missing or of other shapes; the message begins with `source`.
        """
        torch = _torch()
        named = {_plain_name(name): array for name, array in tensors.items()}
        self._backbone = _recognised(named, source)
        shapes = _shapes(self._backbone)
        _check_shapes(named, shapes, self._backbone, source)
        self._tensors = {name: torch.from_numpy(np.array(named[name], np.float32)) for name in shapes}

    @property
    def name(self) -> str:
        """Return the name of the backbone: "AlexNet" or "VGG16"."""
        return self._backbone.title

    def distance(self, image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        """Return the perceptual distance of an image and its reference: 0 where both are equal, about 0.7 at most.

        Args:
            image: (H, W, 3) RGB or (H, W) grey, uint8, sRGB; at least 31 px a side (AlexNet), or 16 px (VGG16).
            reference: likewise, of the same size.

        Raises:
            InputError: the sizes differ, it has another shape or type, is too small, or too large for the free memory.
        """
        for each in (image, reference):
            check_image(each)
        check_same_size(image, reference)
        _check_size(image.shape[0], image.shape[1], self._backbone)
        with _torch().inference_mode():
            pairs = zip(self._features(image), self._features(reference), strict=True)
            return sum(self._layer_distance(layer, a, b) for layer, (a, b) in enumerate(pairs))

    def _features(self, image: NDArray[np.uint8]) -> "list[Tensor]":
        """Return the compared features, (1, C, h, w) each."""
        torch, functional = _torch(), _torch().nn.functional
        rgb = np.broadcast_to(image[:, :, None] if image.ndim == 2 else image, (*image.shape[:2], 3))
        normalised = (rgb * np.float32(2 / 255) - 1 - np.array(_SHIFT, np.float32)) / np.array(_SCALE, np.float32)
        x = torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)[None]))
        features = []
        for conv in self._backbone.convs:
            if conv.pool_px:
                x = functional.max_pool2d(x, conv.pool_px, stride=2)
            weight, bias = (self._tensors[f"features.{conv.index}.{kind}"] for kind in ("weight", "bias"))
            x = functional.relu(functional.conv2d(x, weight, bias, conv.stride, conv.padding_px))
            if conv.is_compared:
                features.append(x)
        return features

    def _layer_distance(self, layer: int, a: "Tensor", b: "Tensor") -> float:
        """Return the share of one layer: the weighted squared difference of unit vectors, its mean over places."""
        units = (x / ((x * x).sum(dim=1, keepdim=True).sqrt() + _EPSILON) for x in (a, b))
        first, second = units
        weighted = (first - second) ** 2 * self._tensors[f"lin{layer}.model.1.weight"]
        return float(weighted.sum(dim=1).mean())


def _check_size(height_px: int, width_px: int, backbone: _Backbone) -> None:
    """Raise InputError where an image is too small for a backbone, or too large for the free memory."""
    size = f"got an image of {width_px} x {height_px} px"
    if min(height_px, width_px) < backbone.least_px:
        raise InputError(
            f"{size}, expected at least {backbone.least_px} px a side: LPIPS by {backbone.title} has no features of "
            "smaller ones"
        )
    needed, free = height_px * width_px * backbone.bytes_per_px, free_bytes()
    if needed > free:
        raise InputError(
            f"{size}, for which LPIPS by {backbone.title} takes about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
            "are free: free some, use AlexNet, or score a part of it"
        )


def _torch() -> Any:
    """Return torch; raise MissingDependency where it is not installed."""
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingDependency("LPIPS needs a package: pip install torch") from None
    return torch


def _read_tensors(path: Path) -> Arrays:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        tree = read_safetensors(data)[0] if path.suffix.lower() == ".safetensors" else read_torch(data)
        return state_dict(tree)
    except ModelError as error:
        raise ModelError(f"{path} {error}") from error


def _plain_name(name: str) -> str:
    """Return a tensor's name in the files of linear layers and backbone; one file of both calls the backbone `net`."""
    return re.sub(r"^net\.slice\d\.(\d+)\.", r"features.\1.", name)


def _recognised(tensors: Mapping[str, NDArray[Any]], source: str) -> _Backbone:
    """Return the backbone whose first convolution is among the tensors."""
    first = tensors.get("features.0.weight")
    for backbone in (_ALEXNET, _VGG16):
        if first is not None and first.shape == _shapes(backbone)["features.0.weight"]:
            return backbone
    raise ModelError(
        f"{source}: found no backbone for LPIPS, expected AlexNet ({_ALEXNET.file}) or VGG16 ({_VGG16.file}) of "
        "torchvision besides the linear layers: give both files"
    )


def _shapes(backbone: _Backbone) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a backbone's tensors and of the linear layers that belong to it, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    for conv in backbone.convs:
        shapes[f"features.{conv.index}.weight"] = (conv.channels, channels, conv.kernel_px, conv.kernel_px)
        shapes[f"features.{conv.index}.bias"] = (conv.channels,)
        channels = conv.channels
    compared = [conv for conv in backbone.convs if conv.is_compared]
    return shapes | {f"lin{layer}.model.1.weight": (1, conv.channels, 1, 1) for layer, conv in enumerate(compared)}


def _check_shapes(
    tensors: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], backbone: _Backbone, source: str
) -> None:
    """Raise ModelError where a tensor is missing or has another shape."""
    for name, shape in shapes.items():
        found = tensors[name].shape if name in tensors else None
        if found != shape:
            part = "linear layers" if name.startswith("lin") else "backbone"
            raise ModelError(
                f"{source}: {name} is {'missing' if found is None else f'of shape {found}'}, expected {shape}: give "
                f"LPIPS the {part} for {backbone.title}"
            )
