"""LPIPS against the package lpips 0.1.4 of its authors, with made weights: the trained ones cannot be shipped."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from safetensors.numpy import save_file

from realesr.errors import InputError, MissingDependency, ModelError
from realesr.scores.lpips import Lpips, open_lpips

torch = pytest.importorskip("torch")

ALEXNET = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
VGG16_CHANNELS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512}
VGG16_CHANNELS |= {24: 512, 26: 512, 28: 512}
VGG16 = {
    index: (channels, before, 3, 3)
    for (index, channels), before in zip(VGG16_CHANNELS.items(), (3, *list(VGG16_CHANNELS.values())[:-1]), strict=True)
}
LINEAR = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
CONVS = {"alex": ALEXNET, "vgg": VGG16}

# lpips.LPIPS(net=...) of lpips 0.1.4 with `made_weights(net)` loaded, for `pair()`; torch 2.13 on a CPU, in float32.
EXPECTED = {"alex": 0.0820272, "vgg": 0.0735955}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Set one thread: beside other load, threads that wait actively make small networks twenty times as slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made_weights(net):
    """Return the tensors of the backbone and of the linear layers: random ones, the same everywhere."""
    random = np.random.default_rng(18)
    backbone = {}
    for index, shape in CONVS[net].items():
        scale = math.sqrt(2 / math.prod(shape[1:]))
        backbone[f"features.{index}.weight"] = (random.standard_normal(shape, np.float32) * scale).astype(np.float32)
        backbone[f"features.{index}.bias"] = random.standard_normal(shape[0], np.float32) / np.float32(10)
    linear = {
        f"lin{layer}.model.1.weight": np.abs(random.standard_normal((1, channels, 1, 1), np.float32))
        for layer, channels in enumerate(LINEAR[net])
    }
    return backbone, linear


def pair():
    """Return a part of a photo, and the same with noise."""
    photo = skimage.data.astronaut()[100:148, 190:231]
    noise = np.random.default_rng(7).integers(-30, 31, photo.shape)
    return (photo + noise).clip(0, 255).astype(np.uint8), photo


@pytest.mark.parametrize(("net", "name"), [("alex", "AlexNet"), ("vgg", "VGG16")])
def test_the_distance_is_that_of_the_authors_package(net, name):
    backbone, linear = made_weights(net)
    lpips = Lpips(backbone | linear)
    image, reference = pair()
    assert lpips.name == name
    assert lpips.distance(image, reference) == pytest.approx(EXPECTED[net], rel=1e-4)


@pytest.fixture(scope="module")
def weights():
    return made_weights("alex")


def saved(folder: Path, name: str, tensors: dict) -> Path:
    path = folder / name
    torch.save({key: torch.from_numpy(array) for key, array in tensors.items()}, path)
    return path


def test_weights_come_from_one_file_or_two(weights, tmp_path):
    backbone, linear = weights
    slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
    both = linear | {
        f"net.slice{slices[int(key.split('.')[1])]}.{key.removeprefix('features.')}": array
        for key, array in backbone.items()
    }
    files = [saved(tmp_path, "alex.pth", linear), tmp_path / "alexnet.safetensors"]
    save_file(backbone, files[1])
    image, reference = pair()
    expected = Lpips(backbone | linear).distance(image, reference)
    assert open_lpips(files).distance(image, reference) == expected
    assert open_lpips([saved(tmp_path, "both.pth", both)]).distance(image, reference) == expected


def test_it_is_a_distance(weights):
    lpips = Lpips(weights[0] | weights[1])
    image, reference = pair()
    assert lpips.distance(image, image) == 0
    assert lpips.distance(image, reference) == pytest.approx(lpips.distance(reference, image), rel=1e-5)


def test_grey_counts_as_three_equal_channels(weights):
    lpips = Lpips(weights[0] | weights[1])
    image, reference = (array[:, :, 1] for array in pair())
    stacked = [np.stack([array] * 3, axis=2) for array in (image, reference)]
    assert lpips.distance(image, reference) == lpips.distance(*stacked)


def test_what_is_missing_is_named(weights, tmp_path):
    backbone, linear = weights
    with pytest.raises(ModelError, match=r"alex.pth: found no backbone .* AlexNet .* or VGG16"):
        open_lpips([saved(tmp_path, "alex.pth", linear)])
    with pytest.raises(ModelError, match=r"lin0.model.1.weight is missing, .* linear layers for AlexNet"):
        Lpips(backbone)
    wide = linear | {"lin1.model.1.weight": np.zeros((1, 128, 1, 1), np.float32)}
    with pytest.raises(ModelError, match=r"lin1.model.1.weight is of shape \(1, 128, .* expected \(1, 192, "):
        Lpips(backbone | wide)


def test_a_file_that_holds_no_weights_is_named(tmp_path):
    path = tmp_path / "alex.pth"
    path.write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"alex.pth is no readable torch file"):
        open_lpips([path])
    with pytest.raises(ModelError, match=r"none.pth cannot be read"):
        open_lpips([tmp_path / "none.pth"])


def test_sizes_that_cannot_be_compared_are_refused(weights, monkeypatch):
    lpips = Lpips(weights[0] | weights[1])
    image, reference = pair()
    with pytest.raises(InputError, match="expected one size"):
        lpips.distance(image[1:], reference)
    with pytest.raises(InputError, match="at least 31 px a side"):
        lpips.distance(image[:30], reference[:30])
    lpips.distance(image[:31, :31], reference[:31, :31])
    monkeypatch.setattr("realesr.scores.lpips.free_bytes", lambda: 100_000)
    with pytest.raises(InputError, match=r"takes about 0.0 GB"):
        lpips.distance(image, reference)


def test_without_torch_the_error_says_how_to_install_it(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match="pip install torch"):
        Lpips(weights[0] | weights[1])
