"""Networks are copied into a folder, and from there into the cache of another machine."""

import hashlib
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from realesr.errors import ModelError, OutputError
from realesr.models.carried import MANIFEST
from realesr.models.carrying import export_networks, import_networks, networks_here
from realesr.models.catalogue import find, read_catalogue
from realesr.models.pulled import pulled_networks
from realesr.models.pulling import pull
from realesr.models.zoo import ZOO, NcnnPair, find_file, load_model
from tests.models.public_list import list_server, network_bytes

PTH, BIN, PARAM = b"a released file", b"weights of ncnn", b"graph of ncnn"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def use_machine(monkeypatch, folder: Path) -> Path:
    """Make `folder` the home of everything that realesr keeps; return the cache's folder of networks."""
    monkeypatch.setenv("REALESR_CACHE", str(folder))
    return folder / "models"


@pytest.fixture(autouse=True)
def small_zoo(monkeypatch):
    """Two released networks of a few bytes, one of them as ncnn files."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    pair = NcnnPair(stem="two", param_sha256=sha256(PARAM), bin_sha256=sha256(BIN))
    monkeypatch.setitem(ZOO, "esrgan-x4", replace(ZOO["esrgan-x4"], file="one.pth", sha256=sha256(PTH)))
    monkeypatch.setitem(ZOO, "span-x4", replace(ZOO["span-x4"], ncnn=pair))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The machine with both networks, the second in a folder of the user's, and with a pulled one."""
    models = use_machine(monkeypatch, tmp_path / "here")
    models.mkdir(parents=True)
    (models / "one.pth").write_bytes(PTH)
    own = tmp_path / "own"
    own.mkdir()
    (own / "two.bin").write_bytes(BIN)
    (own / "two.param").write_bytes(PARAM)
    monkeypatch.setenv("REALESR_MODELS", str(own))
    with list_server() as server:
        entries = {"2x-Made": server.entry(network_bytes())}
        pull(find(read_catalogue(server.publish(entries)), "2x-Made"))
    return models


@pytest.fixture
def stick(tmp_path):
    return tmp_path / "stick" / "networks"


def go_elsewhere(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("REALESR_MODELS")
    return use_machine(monkeypatch, tmp_path / "there")


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_that_is_on_disk_is_carried_to_an_empty_machine(here, stick, tmp_path, monkeypatch):
    names = [network.name for network in export_networks(stick)]
    assert names == ["esrgan-x4", "span-x4", "2x-Made"] == [network.name for network in networks_here()]
    files = {"one.pth", "two.bin", "two.param", "pulled/2x-Made.safetensors"}
    assert files_in(stick) == {*files, MANIFEST}
    there = go_elsewhere(tmp_path, monkeypatch)
    assert networks_here() == []
    taken = import_networks(stick)
    assert [(network.name, network.left) for network in taken] == [(name, "") for name in names]
    assert files_in(there) == {*files, "pulled/2x-Made.json"}
    assert [network.path for network in taken] == [
        there / "one.pth",
        there / "two.bin",
        there / "pulled/2x-Made.safetensors",
    ]
    assert find_file(ZOO["esrgan-x4"]) == there / "one.pth"
    assert find_file(ZOO["span-x4"]) == there / "two.bin"
    assert load_model("2x-Made").sha256 == sha256(network_bytes())
    assert pulled_networks()[0].author == "somebody, else"


def test_the_folder_says_what_it_has(here, stick):
    export_networks(stick)
    listed = json.loads((stick / MANIFEST).read_text())
    assert [network["name"] for network in listed["networks"]] == ["esrgan-x4", "span-x4", "2x-Made"]
    assert listed["networks"][1]["files"] == {"two.bin": sha256(BIN), "two.param": sha256(PARAM)}


def test_networks_can_be_chosen_on_both_sides(here, stick, tmp_path, monkeypatch):
    export_networks(stick, ["2x-Made"])
    export_networks(stick, ["esrgan-x4"])  # what is there stays listed
    there = go_elsewhere(tmp_path, monkeypatch)
    assert [network.name for network in import_networks(stick, ["esrgan-x4"])] == ["esrgan-x4"]
    assert files_in(there) == {"one.pth"}
    with pytest.raises(ModelError, match="has no network span-x4: it has 2x-Made, esrgan-x4"):
        import_networks(stick, ["span-x4"])


def test_what_is_there_already_is_left(here, stick, tmp_path, monkeypatch):
    export_networks(stick)
    times = {path: path.stat().st_mtime_ns for path in stick.rglob("*.*") if path.name != MANIFEST}
    assert {network.left for network in export_networks(stick)} == {"there already"}
    assert times == {path: path.stat().st_mtime_ns for path in times}
    go_elsewhere(tmp_path, monkeypatch)
    import_networks(stick)
    assert {network.left for network in import_networks(stick)} == {"there already"}


def test_another_version_of_a_pulled_network_is_left_with_a_word(here, stick, tmp_path, monkeypatch):
    export_networks(stick, ["2x-Made"])
    go_elsewhere(tmp_path, monkeypatch)
    with list_server() as server:
        entries = {"2x-Made": server.entry(network_bytes(seed=1))}
        pull(find(read_catalogue(server.publish(entries)), "2x-Made"))
    (network,) = import_networks(stick)
    assert network.left == "another file of that name is there already"
    assert network.path.read_bytes() == network_bytes(seed=1)


def test_a_damaged_file_is_named_and_nothing_is_taken(here, stick, tmp_path, monkeypatch):
    export_networks(stick)
    (stick / "two.param").write_bytes(b"other")
    (stick / "pulled" / "2x-Made.safetensors").unlink()
    there = go_elsewhere(tmp_path, monkeypatch)
    with pytest.raises(ModelError, match=r"damaged or missing: \S+two.param, \S+2x-Made.safetensors; nothing was put"):
        import_networks(stick)
    assert not there.exists()
    import_networks(stick, ["esrgan-x4"])
    assert files_in(there) == {"one.pth"}


def test_a_damaged_file_of_the_cache_is_replaced(here, stick, tmp_path, monkeypatch):
    export_networks(stick)
    there = go_elsewhere(tmp_path, monkeypatch)
    import_networks(stick)
    (there / "one.pth").write_bytes(b"damaged")
    (there / "pulled" / "2x-Made.json").write_text("damaged")
    assert [network.left for network in import_networks(stick)] == ["", "there already", ""]
    assert (there / "one.pth").read_bytes() == PTH
    assert load_model("2x-Made").name == "2x-Made"


def test_a_file_in_the_way_is_never_replaced_in_the_folder(here, stick):
    stick.mkdir(parents=True)
    (stick / "one.pth").write_bytes(b"somebody's own")
    with pytest.raises(OutputError, match=r"one.pth is there already, and is another file"):
        export_networks(stick)
    assert files_in(stick) == {"one.pth"}


def test_names_that_cannot_be_carried_are_told(here, stick, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="no network on this disk is called nothing: did you mean"):
        export_networks(stick, ["nothing"])
    with pytest.raises(ModelError, match="realesrgan-x2plus is not on this disk: fetch it first"):
        export_networks(stick, ["realesrgan-x2plus"])
    use_machine(monkeypatch, tmp_path / "empty")
    monkeypatch.delenv("REALESR_MODELS")
    with pytest.raises(ModelError, match="no network is on this disk yet"):
        export_networks(stick)
    assert not stick.exists()


def test_the_network_in_the_package_need_not_be_carried(here, stick):
    with pytest.raises(ModelError, match="realesr-general-x4v3 is in every installation of realesr"):
        export_networks(stick, ["realesr-general-x4v3"])


def test_a_full_disk_leaves_no_half_file_and_no_list(here, stick, monkeypatch):
    def full(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match=r"one.pth cannot be written .No space left on device.: free some space"):
        export_networks(stick)
    assert files_in(stick) == set()


def test_a_full_disk_leaves_no_half_network_in_the_cache(here, stick, tmp_path, monkeypatch):
    export_networks(stick)
    there = go_elsewhere(tmp_path, monkeypatch)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("realesr.models.pulled.write_whole", full)
    with pytest.raises(OutputError, match="let REALESR_CACHE name another folder"):
        import_networks(stick, ["2x-Made"])
    assert pulled_networks() == []
    assert [path.name for path in there.rglob("*.part")] == []


def test_a_folder_that_cannot_be_one_is_one_line(here, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export_networks(tmp_path / "file")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(ModelError, match=f"has no {MANIFEST}: expected a folder that networks were exported to"):
            import_networks(folder)


@pytest.mark.parametrize(
    "text",
    [
        *("", "no JSON", "[]", "{}", '{"format": 2, "networks": []}', '{"format": 1, "networks": {}}', "[" * 100_000),
        *('{"format": 1, "networks": [{"name": "../x"}]}', '{"format": 1, "networks": [5]}', " " * (1 << 22) + "{}"),
    ],
    ids=range(10),
)
def test_a_list_that_is_damaged_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match=f"{MANIFEST} is damaged .*: export the networks again") as caught:
        import_networks(tmp_path)
    assert str(caught.value).isprintable()


def test_a_list_of_nothing_is_told(tmp_path):
    (tmp_path / MANIFEST).write_text('{"format": 1, "networks": []}')
    with pytest.raises(ModelError, match="lists no network: export the networks again"):
        import_networks(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("esrgan-x4", {"files": {"one.pth": "0" * 64}}),
        ("esrgan-x4", {"files": {"../../one.pth": sha256(PTH)}}),
        ("esrgan-x4", {"files": None}),
        ("2x-Made", {"files": {"../2x-Made.safetensors": sha256(network_bytes())}}),
        ("2x-Made", {"facts": None}),
        ("2x-Made", {"facts": []}),
        ("2x-Made", {"name": "realesrgan-x4plus"}),
        ("2x-Made", {"name": "4x-Other"}),
    ],
)
def test_nothing_that_a_list_claims_is_trusted(here, stick, tmp_path, monkeypatch, name, changes):
    export_networks(stick)
    listed = json.loads((stick / MANIFEST).read_text())
    (network,) = [network for network in listed["networks"] if network["name"] == name]
    network.update(changes)
    (stick / MANIFEST).write_text(json.dumps(listed))
    there = go_elsewhere(tmp_path, monkeypatch)
    with pytest.raises(ModelError):
        import_networks(stick)
    assert not there.exists()


def test_a_network_of_a_newer_version_is_told(here, stick, tmp_path, monkeypatch):
    export_networks(stick)
    text = (stick / MANIFEST).read_text().replace('"span-x4"', '"span-x8"')
    (stick / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match=r"span-x8 in .* is a network that this version of realesr does not know"):
        import_networks(stick)
