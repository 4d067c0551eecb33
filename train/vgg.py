"""VGG19's features for the perceptual loss, as a module of our own that reads torchvision's standard file."""

import hashlib
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from realesr.errors import ModelError
from realesr.zoo import cache_folder

FILE = "vgg19-dcbb9e9d.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
SHA256_START = "dcbb9e9d"
"""What the file's name says of its hash; no more of it is published."""

LAYERS = {2: 0.1, 7: 0.1, 16: 1.0, 25: 1.0, 34: 1.0}
"""Index of a convolution in torchvision's `features` -> weight of its output, taken before the ReLU: conv1_2, conv2_2,
conv3_4, conv4_4, conv5_4. Source: Real-ESRGAN, options/train_realesrgan_x4plus.yml; BasicSR, archs/vgg_arch.py."""

_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and convolutions between poolings: Simonyan and Zisserman 2014, arXiv 1409.1556, table 1, E."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images, by which the network was trained."""


class Vgg19(nn.Module):
    """The convolutions of VGG19; frozen. State-dict names are torchvision's: features.0.weight, ..."""

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
        """(N, 3, H, W) RGB in [0, 1], 16 px or more a side -> the outputs of LAYERS, in order."""
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
            f"{path} holds no VGG19 ({_one_line(error)}): expected {FILE}, delete it or name another by --vgg PATH"
        ) from error
    return vgg


def find_vgg(path: Path | None, *, url: str = URL) -> Path:
    """The file that was named, else the one in the cache, else a download of it.

    Raises:
        ModelError: the named file is not there, or the download fails; the message says how to get it.
    """
    if path is not None:
        if not path.is_file():
            raise ModelError(f"--vgg {path} is no file: expected {FILE}, which {URL} has")
        return path
    target = cache_folder() / "models" / FILE
    if not target.is_file():
        _download(url, target)
    return target


def _download(url: str, target: Path) -> None:
    """Under a name of its own until it is whole: several processes may fetch it at once."""
    import requests

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{FILE}.") as folder:
            part = Path(folder) / FILE
            sha256 = _fetch(url, part)
            if not sha256.startswith(SHA256_START):
                raise ModelError(_how_to_get(f"came with other bytes (SHA-256 {sha256[:8]}...)"))
            part.replace(target)
    except (requests.RequestException, OSError) as error:
        raise ModelError(_how_to_get(f"could not be fetched ({_one_line(error)})")) from error


def _fetch(url: str, part: Path) -> str:
    """Write the answer to `part`; returns its SHA-256."""
    import requests

    digest = hashlib.sha256()
    with requests.get(url, stream=True, timeout=60) as answer, part.open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_content(1 << 20):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _how_to_get(problem: str) -> str:
    return (
        f"the perceptual loss needs {FILE}, which {problem}: fetch {URL} by other means and name it by --vgg PATH, or "
        "leave the loss out by --set stage2.perceptual=0"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
