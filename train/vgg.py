"""Computes VGG19's features for the perceptual loss, in a module of our own that reads torchvision's file."""

from pathlib import Path

import torch
from torch import Tensor, nn

from realesr.errors import ModelError
from realesr.models.download import download
from realesr.models.zoo import cache_folder
from realesr.progress import AmountCallback

FILE = "vgg19-dcbb9e9d.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
SHA256_START = "dcbb9e9d"
"""First digits of the file's SHA-256, from its name; no more are published."""

LAYERS = {2: 0.1, 7: 0.1, 16: 1.0, 25: 1.0, 34: 1.0}
"""Index of a convolution in torchvision's `features` -> weight of its output, taken before the ReLU: conv1_2, conv2_2,
conv3_4, conv4_4, conv5_4. Source: Real-ESRGAN, options/train_realesrgan_x4plus.yml; BasicSR, archs/vgg_arch.py."""

_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and convolutions between poolings: Simonyan and Zisserman 2014, arXiv 1409.1556, table 1, E."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's images, by which the network was trained."""


class Vgg19(nn.Module):
    """The convolutions of VGG19, frozen. State-dict names are torchvision's: features.0.weight, ..."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        into = 3
        for channels, convs in _BLOCKS:
            for _ in range(convs):
                layers += [nn.Conv2d(into, channels, 3, padding=1), nn.ReLU()]
                into = channels
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers[: max(LAYERS) + 1])
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the outputs of LAYERS for (N, 3, H, W) RGB in [0, 1], 16 px or more a side."""
        x = (image - self.mean) / self.std
        outputs = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in LAYERS:
                outputs.append(x)
        return outputs


def load_vgg(path: Path) -> Vgg19:
    """Read the standard file; its classifier is left out.

    Raises:
        ModelError: it is damaged, or another network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        features = {key: value for key, value in state.items() if key.startswith("features.")}
        vgg = Vgg19()
        vgg.load_state_dict({key: value for key, value in features.items() if key in vgg.state_dict()})
    except Exception as error:  # torch raises a dozen types for damaged files
        raise ModelError(
            f"{path} holds no VGG19 ({_one_line(error)}): expected {FILE}: delete it, or give the path of another"
        ) from error
    return vgg


def find_vgg(path: Path | None, *, url: str = URL, on_progress: AmountCallback | None = None) -> Path:
    """Return the file that was named, else the one in the cache, which is downloaded where it is missing.

    A download that broke off goes on where it ended.

    Args:
        path: the file, or None.
        url: where to get it.
        on_progress: called with the bytes that are there and those of the whole file.

    Raises:
        ModelError: the named file is not there, or the download fails; the message says how to get it.
    """
    if path is not None:
        if not path.is_file():
            raise ModelError(f"the VGG19 {path} is no file: expected {FILE}, which {URL} has")
        return path
    target = cache_folder() / "models" / FILE
    if not target.is_file():
        advice = f"fetch {URL} by other means and put it at {target}, or leave the loss out (stage2.perceptual = 0)"
        try:
            download(url, target, sha256=SHA256_START, on_progress=on_progress, advice=advice)
        except ModelError as error:
            raise ModelError(f"the perceptual loss needs {FILE}: {error}") from error
    return target


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
