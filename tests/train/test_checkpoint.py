"""Checks that what a run writes is whole or not there."""

import errno
import json

import numpy as np
import pytest
import torch

from realesr import networks
from realesr.errors import InputError, OutputError
from realesr.models.compact import Compact
from realesr.models.weights import read_weights
from realesr.train.checkpoint import checkpoints, read_facts, read_state, write_checkpoint, write_file, write_networks

STATE: dict = {"weights": torch.arange(4.0), "iteration": 3, "list": [torch.zeros(2), "text"]}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    written = write_checkpoint(tmp_path, 3, STATE, {"recipe": {"a": 1}}, keep=2)
    state = read_state(written)
    assert torch.equal(state["weights"], STATE["weights"])
    assert state["list"][1] == "text"
    assert read_facts(written) == {"form": 1, "iteration": 3, "recipe": {"a": 1}}


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for iteration in (5, 10, 200, 1000):
        write_checkpoint(tmp_path, iteration, STATE, {}, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["00000200", "00001000"]


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    good = write_checkpoint(tmp_path, 5, STATE, {}, keep=1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"00000010 could not be written \(No space left on device.*make room"):
        write_checkpoint(tmp_path, 10, STATE, {}, keep=1)
    assert checkpoints(tmp_path) == [good]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000005"]


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def half(part):
        part.write_text("ne")
        raise RuntimeError("basic_ios::clear: iostream error")

    with pytest.raises(OutputError, match="file could not be written"):
        write_file(path, half)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_folder_that_was_left_half_written_is_no_checkpoint(tmp_path):
    good = write_checkpoint(tmp_path, 5, STATE, {}, keep=2)
    (tmp_path / "checkpoints" / ".00000010.part").mkdir()
    (tmp_path / "checkpoints" / "00000020").mkdir()
    assert checkpoints(tmp_path) == [good]


def test_damaged_and_later_checkpoints_are_told(tmp_path):
    folder = write_checkpoint(tmp_path, 5, STATE, {}, keep=2)
    (folder / "state.pt").write_bytes(b"nothing")
    with pytest.raises(
        InputError, match=r"00000005 is damaged \(state\.pt is not .*: delete this folder to begin anew"
    ):
        read_state(folder)
    (folder / "sha256.txt").unlink()
    with pytest.raises(InputError, match="00000005 is damaged: delete this folder"):
        read_state(folder)
    (folder / "facts.json").write_text(json.dumps({"form": 2}))
    with pytest.raises(InputError, match="is of form 2, expected 1 or lower: it needs a later realesr"):
        read_facts(folder)
    (folder / "facts.json").write_text("{")
    with pytest.raises(InputError, match="is no whole checkpoint"):
        read_facts(folder)


@pytest.mark.parametrize("name", ["state.pt", "facts.json", "sha256.txt"])
def test_one_flipped_bit_is_noticed(tmp_path, name):
    write_checkpoint(tmp_path, 3, STATE, {"recipe": {"seed": 100}}, keep=2)
    path = write_checkpoint(tmp_path, 5, STATE, {"recipe": {"seed": 100}}, keep=2) / name
    content = bytearray(path.read_bytes())
    at = content.find(STATE["weights"].numpy().tobytes()) + 4 if name == "state.pt" else len(content) - 30
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged .* delete this folder to go on from 00000003, the one before"):
        read_facts(path.parent)
        read_state(path.parent)


def test_a_checkpoint_without_hashes_is_read(tmp_path):
    folder = write_checkpoint(tmp_path, 3, STATE, {"recipe": {}}, keep=2)
    (folder / "sha256.txt").unlink()
    assert read_facts(folder)["iteration"] == 3
    assert torch.equal(read_state(folder)["weights"], STATE["weights"])


def test_networks_are_read_by_the_product_and_by_other_tools(tmp_path):
    architecture = Compact(scale=2, features=8, convs=1, activation="leakyrelu")
    raw, mean = networks.build(architecture), networks.build(architecture)
    path = write_networks(tmp_path, "last", mean.state_dict(), raw.state_dict(), architecture)
    weights = read_weights(path)
    assert weights.architecture == architecture
    np.testing.assert_array_equal(weights.state["body.0.weight"], mean.state_dict()["body.0.weight"].numpy())
    both = torch.load(tmp_path / "last.pth", weights_only=True)
    assert list(both) == ["params", "params_ema"]
    assert torch.equal(both["params"]["body.0.weight"], raw.state_dict()["body.0.weight"])
    assert torch.equal(both["params_ema"]["body.0.weight"], mean.state_dict()["body.0.weight"])
