"""Networks for tests of exports, as files of weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from tests.models.small_networks import small_state

COMPACT = Compact(scale=2, features=8, convs=2)

Saved = Callable[..., Path]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """`saved(architecture, **{"body.0.weight": 1e6})`: a file of random weights, some arrays multiplied."""

    def save(architecture: Architecture = COMPACT, name: str = "net", **factors: float) -> Path:
        state = small_state(architecture)
        for key, factor in factors.items():
            state[key] = state[key] * state[key].dtype.type(factor)
        path = tmp_path / f"{name}.safetensors"
        activation = getattr(architecture, "activation", "prelu")
        save_file(state, path, metadata={"activation": activation})
        return path

    return save
