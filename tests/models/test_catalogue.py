"""A public list is read, searched, and its networks are pulled: from a server in this process, with tiny networks."""

import hashlib
import importlib.util
import json
import os
from pathlib import Path

import pytest

from realesr.errors import ModelError, OutputError, UsageError
from realesr.models import catalogue as module
from realesr.models import download, pulled
from realesr.models.addresses import is_web_address, leads_to_file
from realesr.models.catalogue import FAMILY_OF, find, read_catalogue, search
from realesr.models.licences import is_permissive
from realesr.models.pulled import find_pulled, pulled_folder, pulled_networks
from realesr.models.pulling import choose_file, pull
from realesr.models.recognition import FAMILIES
from realesr.models.zoo import load_model, near_names
from tests.models.public_list import SMALL, list_file, list_server, network_bytes


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("REALESR_MODELS", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(download, "_SECONDS_BEFORE_NEXT_ATTEMPT", 0)


@pytest.fixture
def server():
    with list_server() as server:
        yield server


def listed(server, **changes):
    """The entry "2x-Made" of a list with nothing else, after its way through JSON."""
    return find(read_catalogue(server.publish({"2x-Made": server.entry(network_bytes(), **changes)})), "2x-Made")


def parts():
    """What a download or a file that was being written has left."""
    return [path.name for path in pulled_folder().rglob("*") if path.suffix in (".part", ".lock")]


# ---- reading


def test_an_entry_is_read_with_all_that_people_are_shown(server):
    entry = listed(server)
    assert (entry.name, entry.title, entry.author) == ("2x-Made", "Made Up", "somebody, else")
    assert (entry.licence, entry.architecture, entry.scale, entry.tags) == (
        "CC-BY-4.0",
        "compact",
        2,
        ("photo", "jpeg"),
    )
    assert entry.description == "Made for tests. Of two lines."
    (file,) = entry.files
    assert file.bytes == len(network_bytes())
    assert file.sha256 == hashlib.sha256(network_bytes()).hexdigest()
    assert entry.is_ours
    assert entry.is_permissive


def test_a_list_in_a_file_is_the_same(server, tmp_path):
    entries = {"2x-Made": server.entry(network_bytes())}
    path = list_file(tmp_path, entries)
    assert read_catalogue(path).entries == read_catalogue(server.publish(entries)).entries


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xfe\x00", b"[" * 100_000, b'{"a": 1', b"9" * 5000])
def test_a_list_that_is_no_json_is_one_line(tmp_path, content):
    path = tmp_path / "list.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is no list of networks: expected JSON") as caught:
        read_catalogue(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("found", [[], {}, 5, None, "text", [{"name": "a"}], {"models": []}, {"2x-a": {"name": "b"}}])
def test_a_list_of_another_layout_is_refused(tmp_path, found):
    with pytest.raises(ModelError, match="is no list of networks: expected one JSON object"):
        read_catalogue(list_file(tmp_path, found))


def test_a_list_that_is_too_large_is_not_read(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_LIST_BYTES", 100)
    url = server.publish({"2x-Made": server.entry(network_bytes())})
    with pytest.raises(ModelError, match="expected a list of networks, at most 100 bytes"):
        read_catalogue(url)
    path = tmp_path / "list.json"
    path.touch()
    os.truncate(path, 100_000_000)  # holes: it takes no place
    with pytest.raises(ModelError, match="has 100,000,000 bytes or more"):
        read_catalogue(path)


def test_a_list_that_is_not_there_is_refused(server, tmp_path):
    with pytest.raises(ModelError, match="is no file: expected a list of networks"):
        read_catalogue(tmp_path / "none.json")
    with pytest.raises(ModelError, match=r"cannot be had .the server says 404"):
        read_catalogue(server.url("none.json"))
    with pytest.raises(UsageError, match="expected an address of http or https, or a file"):
        read_catalogue("ftp://127.0.0.1/models.json")


@pytest.mark.parametrize("name", ["../2x-a", "a/b", "a\\b", "", ".hidden", "2x-a\n", "ends.", "x" * 101, "2x a", "-m"])
def test_a_name_that_is_no_safe_file_name_is_left_out_with_its_reason(server, name):
    entries = {"2x-Made": server.entry(network_bytes()), name: server.entry(network_bytes())}
    found = read_catalogue(server.publish(entries))
    assert list(found.entries) == ["2x-Made"]
    with pytest.raises(ModelError, match="cannot be used: its name is no safe name of a file"):
        find(found, name)


def test_fields_of_other_types_count_as_missing(server):
    entry = listed(
        server,
        name=5,
        author=None,
        license=["MIT"],
        tags="one",
        scale=True,
        resources=[5, {}],
        description={},
        inputChannels="3",
    )
    assert (entry.title, entry.author, entry.licence, entry.tags, entry.scale) == ("2x-Made", "", None, ("one",), None)
    assert (entry.description, entry.channels) == ("", (None, 3))
    (file,) = entry.files
    assert (file.type, file.bytes, file.sha256, file.urls) == ("", None, None, ())


def test_numbers_that_no_file_can_have_count_as_missing(server):
    entry = listed(server, scale=10**400, file={"size": 10**400})
    assert (entry.scale, entry.files[0].bytes) == (None, None)


def test_texts_hold_nothing_that_a_terminal_obeys(server):
    entry = listed(server, name="a\x1b[2Jb", author="c\u202ed", tags=["e\rf"], description="g\x07h", license="MIT\x1b")
    texts = (entry.title, entry.author, *entry.tags, entry.description, entry.licence)
    assert texts == ("a?[2Jb", "c?d", "e f", "g?h", "MIT?")


# ---- finding and searching


def test_every_word_has_to_be_somewhere(server):
    made = server.entry(network_bytes())
    found = read_catalogue(server.publish({"2x-Made": made, "4x-Other": made | {"name": "Film", "tags": ["anime"]}}))
    assert [entry.name for entry in search(found, ["PHOTO", "jp"])] == ["2x-Made"]
    assert [entry.name for entry in search(found, ["somebody"])] == ["2x-Made", "4x-Other"]
    assert [entry.name for entry in search(found, ["film", "tests"])] == ["4x-Other"]
    assert search(found, ["photo", "anime"]) == []
    assert len(search(found, [])) == 2


def test_few_of_many_networks_of_one_title_are_told(server):
    found = read_catalogue(server.publish({f"2x-{number}": server.entry(network_bytes()) for number in range(9)}))
    with pytest.raises(ModelError, match=r"did you mean 2x-0, 2x-1, 2x-2\?"):
        find(found, "made up")


def test_names_are_found_by_title_too_and_near_ones_are_told(server):
    made = server.entry(network_bytes())
    found = read_catalogue(
        server.publish({"2x-Made": made, "4x-Twice": made | {"name": "b"}, "8x-Twice": made | {"name": "b"}})
    )
    assert find(found, "2X-made").name == find(found, "made up").name == "2x-Made"
    with pytest.raises(ModelError, match="is called b: did you mean 4x-Twice, 8x-Twice"):
        find(found, "b")
    with pytest.raises(ModelError, match="is called 2x-Mad: did you mean 2x-Made"):
        find(found, "2x-Mad")
    with pytest.raises(ModelError, match="search the list for words of its name"):
        find(found, "qqqqqq")


# ---- licences, addresses, architectures


@pytest.mark.parametrize("licence", ["MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0", "WTFPL", "GPL-3.0-only OR MIT"])
def test_permissive_licences(licence):
    assert is_permissive(licence)


@pytest.mark.parametrize(
    "licence", [None, "", "CC-BY-NC-SA-4.0", "CC-BY-SA-4.0", "GPL-3.0-only", "MIT AND CC-BY-NC-4.0", "mit-ish", "OR"]
)
def test_licences_that_are_not_permissive(licence):
    assert not is_permissive(licence)


@pytest.mark.parametrize(
    ("url", "is_direct"),
    [
        ("https://github.com/a/b/releases/download/v1/c.pth", True),
        ("https://github.com/a/b/raw/main/c.pth", True),
        ("https://huggingface.co/a/b/resolve/main/c.pth?download=true", True),
        ("http://127.0.0.1:8000/c.pth", True),
        ("https://github.com/a/b/blob/main/c.pth", False),
        ("https://huggingface.co/a/b/tree/main", False),
        ("https://drive.google.com/file/d/1/view", False),
        ("https://mega.nz/folder/1#2", False),
        ("https://www.mediafire.com/file/1/c.pth/file", False),
        ("https://notmega.nz/c.pth", True),
        ("ftp://example.com/c.pth", False),
        ("file:///etc/passwd", False),
        ("javascript:alert(1)", False),
        ("https://user:word@example.com/c.pth", False),
        ("https://[::1/c.pth", False),
        ("https://example.com:99999/c.pth", False),
        ("https://example.com/a\nb", False),
        ("https:///c.pth", False),
    ],
)
def test_addresses_that_lead_to_the_file(url, is_direct):
    assert leads_to_file(url) is is_direct
    assert is_direct <= is_web_address(url)


def test_our_architectures_are_those_that_are_recognised():
    assert set(FAMILY_OF.values()) == set(FAMILIES)


def test_an_architecture_that_is_not_ours_is_named_before_anything_is_fetched(server):
    entry = listed(server, architecture="RealPLKSR")
    with pytest.raises(
        ModelError, match=r"of the architecture 'realplksr', which realesr does not run: .*compact, esrgan"
    ):
        pull(entry)
    assert server.paths() == ["models.json"]


def test_its_onnx_file_is_named_where_there_is_one(server):
    onnx = {"type": "onnx", "size": 5, "sha256": "0" * 64, "urls": ["https://example.com/net.onnx"]}
    entry = listed(server, architecture="dat", resources=[onnx])
    with pytest.raises(ModelError, match=r"which may run: fetch https://example.com/net.onnx and give the file"):
        choose_file(entry)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputChannels": 1, "outputChannels": 1}, "takes 1 channels and gives 1: expected 3 and 3"),
        ({"resources": []}, "has no file of weights .*only of these kinds: none"),
        ({"resources": None}, "has no file of weights"),
        ({"file": {"type": "onnx"}}, "only of these kinds: onnx"),
        ({"file": {"sha256": None}}, "the list has no SHA-256 of 2x-Made.*with a browser at http://127"),
        ({"file": {"sha256": "12"}}, "the list has no SHA-256"),
        ({"file": {"size": 10**13}}, "has 10,000,000,000,000 bytes: expected a network, at most 1,000,000,000"),
        ({"file": {"urls": ["https://mega.nz/folder/1#2"]}}, "get it with a browser at https://mega.nz/folder/1#2"),
        ({"file": {"urls": ["ftp://example.com/a\x1b"]}}, r"got 'ftp://example.com/a\?', expected http or https"),
        ({"file": {"urls": []}}, "the list has no address at all"),
    ],
)
def test_what_cannot_be_fetched_and_checked_is_refused_in_one_line(server, changes, message):
    entry = listed(server, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        pull(entry, accept_licence=True)
    assert str(caught.value).isprintable()
    assert server.paths() == ["models.json"]
    assert not pulled_folder().exists()


def test_a_network_may_not_take_the_name_of_one_of_the_zoo(server):
    entries = {"realesrgan-x4plus": server.entry(network_bytes())}
    with pytest.raises(ModelError, match="is the name of a network that realesr has already"):
        pull(find(read_catalogue(server.publish(entries)), "realesrgan-x4plus"))


# ---- pulling


def test_a_pulled_network_is_loaded_by_its_name(server):
    network = pull(listed(server))
    assert network.path == pulled_folder() / "2x-Made.safetensors"
    assert network.path.read_bytes() == network_bytes()
    weights = load_model("2x-Made")
    assert (weights.name, weights.architecture, weights.sha256) == ("2x-Made", SMALL, network.sha256)
    assert network.network == SMALL
    assert pulled_networks() == [network] == [find_pulled("2x-Made")]
    assert "2x-Made" in near_names("2x-mad")
    assert parts() == []


def test_the_facts_lie_beside_the_file(server):
    pull(listed(server))
    facts = json.loads((pulled_folder() / "2x-Made.json").read_text())
    assert facts["source"] == server.url("net.safetensors")
    assert (facts["name"], facts["title"], facts["author"]) == ("2x-Made", "Made Up", "somebody, else")
    assert (facts["licence"], facts["tags"], facts["bytes"]) == ("CC-BY-4.0", "photo, jpeg", len(network_bytes()))
    assert facts["sha256"] == hashlib.sha256(network_bytes()).hexdigest()


def test_a_network_that_is_there_is_not_fetched_again(server):
    first = pull(listed(server))
    server.asked.clear()
    assert pull(listed(server, license=None)) == first
    assert server.paths() == ["models.json"]


def test_a_licence_has_to_be_accepted_unless_it_is_permissive(server):
    entry = listed(server, license="CC-BY-NC-SA-4.0")
    with pytest.raises(
        UsageError, match=r"2x-Made by somebody, else is under CC-BY-NC-SA-4.0, which has not been accepted"
    ):
        pull(entry)
    with pytest.raises(UsageError, match="has no licence, so its author reserves all rights"):
        pull(listed(server, license=None))
    assert set(server.paths()) == {"models.json"}
    assert pull(entry, accept_licence=True).licence == "CC-BY-NC-SA-4.0"


def test_direct_addresses_are_tried_in_turn(server):
    urls = ["https://mega.nz/1", server.url("gone"), server.url("net.safetensors")]
    network = pull(listed(server, file={"urls": urls}))
    assert network.source == urls[2]
    assert server.paths() == ["models.json", "gone", "net.safetensors"]
    with pytest.raises(ModelError, match=r"none of the 2 addresses of 2x-Other gives it: .*404"):
        entries = {"2x-Other": server.entry(network_bytes(), file={"urls": [server.url("a"), server.url("b")]})}
        pull(find(read_catalogue(server.publish(entries)), "2x-Other"))


def test_a_download_that_breaks_off_goes_on_where_it_ended(server):
    entry = listed(server)
    server.breaks_after = [100]
    pull(entry)
    assert server.asked[1:] == [("net.safetensors", None), ("net.safetensors", "bytes=100-")]


def test_bytes_that_are_not_the_lists_leave_nothing(server):
    entry = listed(server, file={"sha256": "0" * 64})
    with pytest.raises(ModelError, match=r"gave a file with SHA-256 .*expected 0000000000000000"):
        pull(entry)
    assert pulled_networks() == []
    assert list(pulled_folder().iterdir()) == []


def test_a_file_that_is_no_network_of_ours_is_deleted_again(server):
    entries = {"2x-Made": server.entry(b"no network", file={"type": "pth"})}
    with pytest.raises(ModelError, match="2x-Made is no network that realesr runs, and was deleted again"):
        pull(find(read_catalogue(server.publish(entries)), "2x-Made"))
    assert list(pulled_folder().iterdir()) == []


def test_safetensors_are_preferred_to_pickles(server):
    made = server.entry(network_bytes())
    (file,) = made["resources"]
    entries = {"2x-Made": made | {"resources": [file | {"type": "pth"}, file]}}
    assert choose_file(find(read_catalogue(server.publish(entries)), "2x-Made")).type == "safetensors"


def test_a_new_version_in_the_list_replaces_the_old_one(server):
    pull(listed(server))
    new = {"2x-Made": server.entry(network_bytes(seed=1))}
    network = pull(find(read_catalogue(server.publish(new)), "2x-Made"))
    assert network.path.read_bytes() == network_bytes(seed=1)
    assert load_model("2x-Made").sha256 == network.sha256


def test_a_full_disk_leaves_no_network_and_the_file_is_not_fetched_twice(server, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("realesr.models.pulled.write_whole", full)
        with pytest.raises(OutputError, match=r"cannot be written .No space left on device"):
            pull(listed(server))
    assert pulled_networks() == []
    pull(listed(server))
    assert server.paths().count("net.safetensors") == 1


# ---- what others have done to the folder


def test_damaged_facts_are_told_and_keep_no_other_network_from_being_listed(server, caplog):
    network = pull(listed(server))
    for text in ("no JSON", "[]", "{}", json.dumps({"name": "2x-Made"}), "9" * 100_000):
        (pulled_folder() / "4x-Bad.json").write_text(text)
        caplog.clear()
        assert pulled_networks() == [network]
        assert "4x-Bad.json is damaged" in caplog.text
        with pytest.raises(ModelError, match=r"4x-Bad.json is damaged"):
            load_model("4x-Bad")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", "../../x.pth"),
        ("file", "other.pth"),
        ("sha256", "0"),
        ("bytes", "5"),
        ("author", "\x1b"),
        ("name", "a/b"),
        ("architecture", "{}"),
        ("name", "4x-Else"),
    ],
)
def test_facts_that_cannot_be_are_refused(server, field, value):
    pull(listed(server))
    path = pulled_folder() / "2x-Made.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ModelError, match=r"2x-Made.json is damaged"):
        find_pulled("2x-Made")


def test_a_file_that_was_changed_or_is_gone_is_not_used(server):
    network = pull(listed(server))
    network.path.write_bytes(network_bytes(seed=1))
    with pytest.raises(ModelError, match="is not the file that was pulled"):
        load_model("2x-Made")
    network.path.unlink()
    with pytest.raises(ModelError, match=r"is gone: delete .* or pull 2x-Made anew"):
        load_model("2x-Made")
    assert pull(listed(server)).path.read_bytes() == network_bytes()


def test_names_with_folders_are_never_looked_for(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    assert find_pulled(f"../../../{tmp_path.name}/x") is None
    assert find_pulled(str(Path(tmp_path / "x"))) is None
    assert pulled.find_pulled("") is None
