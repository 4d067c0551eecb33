"""Checks where networks get their first weights from, for any family of networks."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from realesr import networks
from realesr.errors import ModelError, UsageError
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.rrdb import RRDB
from realesr.train.checkpoint import STATE, write_checkpoint, write_discriminator, write_network
from realesr.train.start import network_at, start_discriminator, start_generator

SMALL: list[Architecture] = [RRDB(scale=4, features=8, blocks=1, growth=4), Compact(scale=4, features=8, convs=1)]


def saved(folder: Path, architecture: Architecture) -> tuple[Path, dict[str, torch.Tensor]]:
    state = networks.build(architecture).state_dict()
    return write_network(folder / "first.safetensors", state, architecture), state


def changed(architecture: Architecture, **more: object) -> Architecture:
    return dataclasses.replace(architecture, **more)  # type: ignore[type-var]  # every architecture is a dataclass


@pytest.mark.parametrize("architecture", SMALL)
def test_a_network_of_the_same_architecture_gives_all_its_weights(tmp_path: Path, architecture: Architecture) -> None:
    path, state = saved(tmp_path, architecture)
    generator = networks.build(architecture)
    assert start_generator(generator, architecture, str(path)) == f"{architecture.title} starts from {path}"
    assert all(torch.equal(value, state[key]) for key, value in generator.state_dict().items())


@pytest.mark.parametrize(("architecture", "left"), [(SMALL[0], "conv_first"), (SMALL[1], "body.4")])
def test_of_another_scale_all_that_fits_is_taken_and_the_rest_named(
    tmp_path: Path, architecture: Architecture, left: str
) -> None:
    path, state = saved(tmp_path, architecture)
    wanted = changed(architecture, scale=2)
    generator = networks.build(wanted)
    fresh = {key: value.clone() for key, value in generator.state_dict().items()}
    line = start_generator(generator, wanted, str(path))
    arrays = [key for key in fresh if fresh[key].shape != state[key].shape]
    assert {key.rpartition(".")[0] for key in arrays} == {left}
    assert line == f"{wanted.title} starts from {path} but for {', '.join(arrays)}, which have random initialisation"
    for key, value in generator.state_dict().items():
        assert torch.equal(value, fresh[key] if key in arrays else state[key])


@pytest.mark.parametrize("wanted", [changed(SMALL[0], scale=2, features=6), SMALL[1]])
def test_a_network_that_differs_in_more_is_refused(tmp_path: Path, wanted: Architecture) -> None:
    path, _ = saved(tmp_path, SMALL[0])
    with pytest.raises(ModelError, match=r"first\.safetensors is .*, expected .* as in the recipe"):
        start_generator(networks.build(wanted), wanted, str(path))


def test_a_network_of_the_zoo_that_does_not_fit_is_refused_before_it_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr("realesr.models.zoo.fetch", fetch)
    assert network_at("realesrgan-x2plus") == RRDB(scale=2)
    with pytest.raises(ModelError, match=r"realesrgan-x4plus is RRDBNet x4.*, expected SRVGGNetCompact x4.* as in the"):
        start_generator(networks.build(SMALL[1]), SMALL[1], "realesrgan-x4plus")


def test_the_network_of_a_file_is_known_and_none_has_none(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, SMALL[0])
    assert network_at(str(path)) == SMALL[0]
    with pytest.raises(UsageError, match="the recipe names no network, and training starts from none: expected one"):
        network_at("none")
    (tmp_path / "net.onnx").touch()
    with pytest.raises(ModelError, match=r"net\.onnx is an \.onnx file, which training cannot go on from"):
        network_at(str(tmp_path / "net.onnx"))


@pytest.fixture
def gan_run(tmp_path: Path) -> tuple[Path, nn.Module]:
    """Return the folder of a run of stage 2, with files as well as a checkpoint, and its discriminator."""
    discriminator = networks.build(UNetDiscriminator(features=4))
    state = {"train": {"discriminator": discriminator.state_dict()}}
    write_checkpoint(tmp_path / "gan", 5, state, {}, keep=1)
    write_discriminator(tmp_path / "gan", "last", discriminator.state_dict())
    return tmp_path / "gan", discriminator


@pytest.mark.parametrize(
    "place", ["", "last-discriminator.safetensors", "last-discriminator.pth", "checkpoints/00000005", STATE]
)
def test_a_discriminator_comes_from_a_run_its_files_or_its_checkpoint(
    gan_run: tuple[Path, nn.Module], place: str
) -> None:
    folder, expected = gan_run
    path = folder / "checkpoints" / "00000005" / STATE if place == STATE else folder / place
    own = networks.build(UNetDiscriminator(features=4))
    assert start_discriminator(own, UNetDiscriminator(features=4), path) == f"the discriminator starts from {path}"
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in own.state_dict().items())


def test_a_run_of_an_earlier_realesr_gives_the_discriminator_of_its_last_checkpoint(
    gan_run: tuple[Path, nn.Module],
) -> None:
    folder, expected = gan_run
    for path in folder.glob("last-*"):
        path.unlink()
    own = networks.build(UNetDiscriminator(features=4))
    start_discriminator(own, UNetDiscriminator(features=4), folder)
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in own.state_dict().items())


def test_a_discriminator_that_is_none_or_another_is_refused(gan_run: tuple[Path, nn.Module], tmp_path: Path) -> None:
    own = networks.build(UNetDiscriminator(features=4))
    write_checkpoint(tmp_path / "net", 5, {"train": {"discriminator": None}}, {}, keep=1)
    with pytest.raises(ModelError, match=r"00000005 has no discriminator: expected a run of stage 2"):
        start_discriminator(own, UNetDiscriminator(features=4), tmp_path / "net")
    with pytest.raises(ModelError, match=r"has neither last-discriminator\.safetensors nor a checkpoint"):
        start_discriminator(own, UNetDiscriminator(features=4), tmp_path)
    with pytest.raises(ModelError, match=r"4 features.*, expected .*8 features"):
        start_discriminator(networks.build(UNetDiscriminator(features=8)), UNetDiscriminator(features=8), gan_run[0])
    path, _ = saved(tmp_path, SMALL[0])
    conditional = UNetDiscriminator(features=4, channels=6)
    with pytest.raises(ModelError, match=r"is UNetDiscriminatorSN: 4 features \(.*, expected .* features, 6 channels"):
        start_discriminator(networks.build(conditional), conditional, gan_run[0])
    with pytest.raises(ModelError, match=r"first.safetensors is RRDBNet.*, expected UNetDiscriminator"):
        start_discriminator(own, UNetDiscriminator(features=4), path)


def test_none_leaves_the_random_initialisation() -> None:
    generator = networks.build(SMALL[0])
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    assert start_generator(generator, SMALL[0], "none").endswith("starts from random initialisation")
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
