"""`realesr models`: the list, fetching, and what a file holds."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from realesr.cli import model_records
from realesr.models.compact import Compact
from realesr.models.weights import read_weights
from realesr.models.zoo import ZOO, ZooEntry

from .conftest import Command


@pytest.fixture(autouse=True)
def nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REALESR_MODELS", "")
    monkeypatch.setattr("realesr.models.zoo._package_folder", lambda _: [])


@pytest.fixture
def network(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    shapes = Compact(scale=2, features=4, convs=1).shapes
    path = tmp_path / "own.safetensors"
    save_file({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}, path)
    return path


def test_the_list_has_every_network_in_tab_separated_columns(realesr: Command) -> None:
    result = realesr("models")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(ZOO)
    assert {len(row) for row in rows} == {6}
    first = ZOO["realesrgan-x4plus"]
    assert rows[0] == [first.name, "x4", "67.0", first.licence, first.purpose, "no"]


def test_the_list_as_json(realesr: Command) -> None:
    records = [json.loads(line) for line in realesr("models", "--json").stdout.splitlines()]
    assert [record["name"] for record in records] == list(ZOO)
    bundled = {record["name"]: record["on_disk"] for record in records if record["on_disk"]}
    assert list(bundled) == ["realesr-general-x4v3"]
    assert Path(bundled["realesr-general-x4v3"]).exists()


def test_a_network_on_disk_is_listed_as_such(realesr: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found(entry: ZooEntry) -> Path | None:
        return tmp_path / str(entry.file) if entry.name == "esrgan-x4" else None

    monkeypatch.setattr("realesr.models.zoo.find_file", found)
    on_disk = {row.split("\t")[0]: row.split("\t")[5] for row in realesr("models").stdout.splitlines()}
    assert on_disk.pop("esrgan-x4") == "yes"
    assert set(on_disk.values()) == {"no"}
    records = [json.loads(line) for line in realesr("models", "--json").stdout.splitlines()]
    assert [record["on_disk"] for record in records if record["on_disk"]] == [
        str(tmp_path / str(ZOO["esrgan-x4"].file))
    ]


def test_fetch_tells_what_it_fetches_and_prints_where_it_is(
    realesr: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fetch(entry: ZooEntry, *, on_progress: Callable[[int, int], None]) -> Path:
        on_progress(10, 4_885_111)
        return tmp_path / str(entry.file)

    monkeypatch.setattr("realesr.models.zoo.fetch", fetch)
    result = realesr("models", "fetch", "realesr-general-x4v3", "esrgan-x4")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        str(tmp_path / str(ZOO[name].file)) for name in ("realesr-general-x4v3", "esrgan-x4")
    ]
    assert result.stderr.splitlines()[0] == "fetching realesr-general-x4v3, 4.89 MB"


def test_fetch_of_an_unknown_name_fetches_nothing(realesr: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realesr.models.zoo.fetch", lambda *_, **__: pytest.fail("fetched"))
    result = realesr("models", "fetch", "realesrgan-x2plus", "realesrgan-x3plus")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no network is called realesrgan-x3plus: did you mean realesrgan-x")


def test_info_shows_what_a_file_holds(realesr: Command, network: Path) -> None:
    record = json.loads(realesr("models", "info", network, "--json").stdout)
    tensors = read_weights(network).state.values()
    assert record["file"] == str(network)
    assert record["scale"] == 2
    assert record["parameters"] == sum(tensor.size for tensor in tensors)
    # Three 3x3 convolutions, all at the input's resolution: 3 -> 4, 4 -> 4, 4 -> 12 channels.
    assert record["macs_per_px"] == 9 * (3 * 4 + 4 * 4 + 4 * 12)
    assert record["radius_px"] == 3
    assert record["multiple_of"] == 1
    assert record["sha256"] == hashlib.sha256(network.read_bytes()).hexdigest()


def test_info_for_people_has_units(realesr: Command, network: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in realesr("models", "info", network).stdout.splitlines())
    assert lines["scale"] == "x2"
    assert lines["cost"] == "684 multiply-accumulates per input pixel"
    assert lines["receptive"] == "radius  3 input pixels"


def test_info_of_an_onnx_file_counts_what_is_in_it(realesr: Command, network: Path, tmp_path: Path) -> None:
    from realesr.models.onnx_graph import onnx_bytes

    weights = read_weights(network)
    path = tmp_path / "own.onnx"
    path.write_bytes(onnx_bytes(weights))
    record = json.loads(realesr("models", "info", path, "--json").stdout)
    assert (record["scale"], record["radius_px"], record["multiple_of"]) == (2, 3, 1)
    assert record["parameters"] == sum(tensor.size for tensor in weights.state.values())
    assert record["input"] == "float32 (n, 3, h, w)"
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_info_of_a_network_that_is_not_on_disk_fetches_nothing(realesr: Command) -> None:
    record = json.loads(realesr("models", "info", "realesrgan-x4plus", "--json").stdout)
    assert record["file"] is None
    assert record["parameters"] == 16_697_987
    assert record["sha256"] == ZOO["realesrgan-x4plus"].sha256
    assert "not on disk" in realesr("models", "info", "realesrgan-x4plus").stdout


def test_info_of_an_engine_is_what_its_sidecar_says(realesr: Command, tmp_path: Path) -> None:
    from realesr.engines.nvidia.tensorrt_sidecar import sidecar_path, text_from_sidecar
    from tests.engines.nvidia.fake_gpu import SIDECAR

    path = tmp_path / "own.engine"
    path.write_bytes(b"engine")
    result = realesr("models", "info", path)
    assert result.exit_code == 1
    assert "has no own.engine.json beside it" in result.stderr
    sidecar_path(path).write_text(text_from_sidecar(SIDECAR))
    found = json.loads(realesr("models", "info", path, "--json").stdout)
    assert (found["scale"], found["precision"], found["built for"]) == (2, "fp16", "sm89")
    assert found["input"] == "float32, 1 x 1 to 32 x 32 px"
    assert found["proven"] == "not proven: no GPU"


@pytest.mark.parametrize("name", ["no-such", "no/such.pth", "no/such.onnx"])
def test_info_of_nothing_is_an_error(realesr: Command, name: str) -> None:
    result = realesr("models", "info", name)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert name in result.stderr


def test_every_row_is_text_even_where_the_size_is_not_known() -> None:
    assert model_records.row(model_records.zoo_record(ZOO["esrgan-x4"]))[2] == "-"
