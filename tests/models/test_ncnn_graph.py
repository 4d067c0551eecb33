"""ncnn's files as we write them: read back by our reader, and their text against ncnn's rules."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from realesr.models.architecture import Architecture
from realesr.models.layers import IMAGE, Activated, Activation, Concatenation
from realesr.models.ncnn_file import read_ncnn
from realesr.models.ncnn_graph import ncnn_files
from realesr.models.rrdb import RRDB
from realesr.models.weights import Weights
from tests.models.layer_lists import LAYER_LISTS, LayerList, conv
from tests.models.small_networks import SMALL, small_weights


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_what_is_written_is_read_back_to_the_last_bit(architecture: Architecture) -> None:
    weights = small_weights(architecture)
    found, state = read_ncnn(*ncnn_files(weights))
    assert found == architecture
    assert state.keys() == weights.state.keys()
    assert all(np.array_equal(state[key], weights.state[key]) for key in state)


@pytest.mark.parametrize("architecture", [*SMALL, *LAYER_LISTS], ids=str)
def test_every_blob_is_made_once_and_read_once_before_the_end(architecture: Architecture) -> None:
    """ncnn frees a blob at its first reader; a second one would find nothing."""
    lines = ncnn_files(small_weights(architecture))[0].splitlines()
    made: Counter[str] = Counter()
    read: Counter[str] = Counter()
    names = []
    for line in lines[2:]:
        words = line.split()
        inputs, outputs = int(words[2]), int(words[3])
        names.append(words[1])
        for name in words[4 : 4 + inputs]:
            assert made[name] == 1, f"{name} is read before it is made"
            read[name] += 1
        made.update(words[4 + inputs : 4 + inputs + outputs])
    assert lines[0] == "7767517"
    assert lines[1] == f"{len(lines) - 2} {made.total()}"
    assert set(made.values()) == {1}
    assert set(read.values()) == {1}
    assert set(made) - set(read) == {"output"}
    assert len(set(names)) == len(names)


def test_the_numbers_are_all_there() -> None:
    weights = small_weights(RRDB(scale=2, features=8, blocks=1, growth=4))
    _, data = ncnn_files(weights)
    convs = sum(array.ndim == 4 for array in weights.state.values())
    assert len(data) == 4 * (convs + sum(array.size for array in weights.state.values()))


SHA256_OF_FILES = [
    "145da1d4ed72ac5319549586a9a86fff07f287037ad99fe9d1dbf0b58b007ae9",
    "47683ed2a3645d819f3c079fde6de733f565b6ba444be765453b3b8f7e744129",
    "c947f6883fd88fcbcea558bf09c45c6291df4fd0365f3ba31badd37ae2bce022",
    "440e8bc9a458a439a431edff10adc3f9795231f40207aac15478167bb9c815e8",
    "1e106c6c906ef6b1348855b07ef9ef194beaa5b6b771dd6d7e08de9221540aaa",
    "2b83afeeaa0266a1da0c23afe57abff3a4c18d2be7b1cde3be40f3cb6c58d042",
    "649deb832d6c38bbe6f5a1e453d665c7f155ae5a3f04d6ab148c7d980f502d13",
    "41fa81ca2ae93b11e9d082140e08b53ff003d406790865ddd74d394af3317ac4",
    "5f060a8ef562e7d6e5db3db2b2e78e556ee6723de02a215c0fbce6051ed6b152",
    "4f93dccf26a76620d8b7dba7ae4622dc5cab389e0976573b7aa494beb895046c",
]
"""Hashes of both files of each of `SMALL`, with consecutive numbers for weights, as they were when checked
against ncnn and torch.
"""


@pytest.mark.parametrize(("architecture", "sha256"), list(zip(SMALL, SHA256_OF_FILES, strict=True)), ids=str)
def test_the_files_are_the_same_to_the_last_byte(architecture: Architecture, sha256: str) -> None:
    state, first = {}, 0
    for key, shape in architecture.shapes.items():
        state[key] = np.arange(first, first + np.prod(shape), dtype=np.float32).reshape(shape)
        first += state[key].size
    param, data = ncnn_files(Weights("counted", architecture, state, "0" * 64))
    assert hashlib.sha256(param.encode() + data).hexdigest() == sha256


def test_numbers_have_as_many_digits_as_float32_needs_in_no_more_than_15_characters() -> None:
    """ncnn reads 15 characters of each."""
    slopes = (0.2, 1 / 3, -1e-7 / 3, 16777217.0)
    layers = [
        Activated(name=f"n{number}", source=IMAGE, activation=Activation(kind="leaky_relu", slope=slope))
        for number, slope in enumerate(slopes)
    ]
    joined = Concatenation(name="all", sources=tuple(layer.name for layer in layers))
    param, _ = ncnn_files(small_weights(LayerList(layers=(*layers, joined, conv("last", "all", 12, 3)))))
    written = [line.rpartition("=")[2] for line in param.splitlines() if line.startswith("ReLU")]
    assert written[0] == "2.000000e-01"
    assert all(len(text) <= 15 for text in written)
    assert [np.float32(text) for text in written] == [np.float32(slope) for slope in slopes]
