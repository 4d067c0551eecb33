"""Checks where networks get their first weights from, for any family of networks."""

import dataclasses
from pathlib import Path

import pytest
import torch

from realesr import networks
from realesr.errors import ModelError
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.train.checkpoint import write_network
from realesr.train.start import start_generator

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


def test_none_leaves_the_random_initialisation() -> None:
    generator = networks.build(SMALL[0])
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    assert start_generator(generator, SMALL[0], "none").endswith("starts from random initialisation")
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
