"""ncnn's files as we write them: read back by our reader, and their text against ncnn's rules."""

from collections import Counter

import numpy as np
import pytest

from realesr.architectures import RRDB, Architecture, Compact
from realesr.ncnn_file import read_ncnn
from realesr.ncnn_graph import ncnn_files
from tests.core.small_networks import SMALL, small_weights

READABLE = [
    RRDB(scale=4, features=8, blocks=2, growth=4),
    RRDB(scale=8, features=8, blocks=1, growth=4, upsamplings=3),
    Compact(scale=4, features=8, convs=3),
]
"""Architectures for which Real-ESRGAN's own conversion gives the same graph."""


@pytest.mark.parametrize("architecture", READABLE, ids=str)
def test_what_is_written_is_read_back_to_the_last_bit(architecture: Architecture) -> None:
    weights = small_weights(architecture)
    found, state = read_ncnn(*ncnn_files(weights))
    assert found == architecture
    assert state.keys() == weights.state.keys()
    assert all(np.array_equal(state[key], weights.state[key]) for key in state)


@pytest.mark.parametrize("architecture", SMALL, ids=str)
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
