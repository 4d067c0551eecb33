"""Fetches a network of a public list: chooses its file, asks for its licence to be accepted, checks what has come."""

from collections.abc import Sequence
from pathlib import Path

from realesr.errors import ModelError, UsageError
from realesr.machine.whole_file import file_sha256, not_written
from realesr.models.addresses import is_web_address, leads_to_file
from realesr.models.catalogue import FAMILY_OF, CatalogueEntry, CatalogueFile
from realesr.models.pulled import SUFFIXES, PulledNetwork, find_pulled, keep_facts, pulled_folder
from realesr.models.recognition import text_from_architecture
from realesr.models.torch_file import printable
from realesr.models.weights import read_weights
from realesr.models.zoo import ZOO
from realesr.progress import AmountCallback

MOST_BYTES = 1_000_000_000
"""Most bytes of a network's file, as of every download whose size is not known."""


def choose_file(entry: CatalogueEntry) -> CatalogueFile:
    """Return the file that `pull` would fetch; nothing is fetched.

    Raises:
        ModelError: its architecture is none of ours, it is not for RGB, or no file of weights can be fetched directly
            and checked; the message says why, and which page leads to it.
    """
    _check_runs(entry)
    weights = [file for suffix in SUFFIXES for file in entry.files if f".{file.type}" == suffix]
    if not weights:
        kinds = ", ".join(sorted({file.type for file in entry.files})) or "none"
        raise ModelError(f"{entry.name} has no file of weights ({' or '.join(SUFFIXES)}), only of these kinds: {kinds}")
    checkable = [file for file in weights if file.sha256 is not None]
    if not checkable:
        raise ModelError(
            f"the list has no SHA-256 of {entry.name}, without which its file cannot be checked: {_by_hand(weights)}"
        )
    small = [file for file in checkable if (file.bytes or 0) <= MOST_BYTES]
    if not small:
        raise ModelError(f"{entry.name} has {checkable[0].bytes:,} bytes: expected a network, at most {MOST_BYTES:,}")
    direct = [file for file in small if direct_urls(file)]
    if not direct:
        raise ModelError(f"{entry.name} has no address that leads to the file itself: {_by_hand(small)}")
    return direct[0]


def direct_urls(file: CatalogueFile) -> list[str]:
    """Return the addresses that lead to the file itself, in the list's order."""
    return [url for url in file.urls if leads_to_file(url)]


def pull(
    entry: CatalogueEntry, *, accept_licence: bool = False, on_progress: AmountCallback | None = None
) -> PulledNetwork:
    """Fetch a network into the cache, and check its SHA-256 and that it is one of ours.

    From then on `realesr.models.zoo.load_model` knows it by its name. A download that broke off goes on where it ended;
    a network that is there already is not fetched.

    Args:
        entry: of a list that `realesr.models.catalogue.read_catalogue` has read.
        accept_licence: a licence that is not permissive, or none at all, is accepted.
        on_progress: called with the bytes of the download.

    Raises:
        UsageError: the licence is not accepted; nothing was fetched.
        ModelError: see `choose_file`; or the file cannot be had or written, is not the one of the list, or holds no
            network of ours.
        OutputError: the facts about it cannot be written.
    """
    file = choose_file(entry)
    there = on_disk(entry, file)
    if there is not None:
        return there
    if not (entry.is_permissive or accept_licence):
        raise UsageError(f"{licence_in_words(entry)}, which has not been accepted: nothing was fetched")
    target = pulled_folder() / f"{entry.name}.{file.type}"
    source = _fetch(entry, file, target, on_progress)
    facts = _facts(entry, target, source)
    try:
        keep_facts(facts)
        for suffix in SUFFIXES:
            if facts.file != entry.name + suffix:
                (pulled_folder() / (entry.name + suffix)).unlink(missing_ok=True)
    except OSError as error:
        raise not_written(
            pulled_folder(), error, "free some space, or let REALESR_CACHE name another folder"
        ) from error
    return facts


def on_disk(entry: CatalogueEntry, file: CatalogueFile) -> PulledNetwork | None:
    """Return the network if it has been fetched and its file is still the one of the list, else None."""
    try:
        facts = find_pulled(entry.name)
        return facts if facts and facts.sha256 == file.sha256 == file_sha256(facts.path) else None
    except (ModelError, OSError):
        return None


def licence_in_words(entry: CatalogueEntry) -> str:
    """Return what is to be accepted, like "4x-Name by author is under CC-BY-NC-4.0"."""
    by = f" by {entry.author}" if entry.author else ""
    return f"{entry.name}{by} " + (
        f"is under {entry.licence}" if entry.licence else "has no licence, so its author reserves all rights"
    )


def _check_runs(entry: CatalogueEntry) -> None:
    """Raise ModelError unless realesr runs such networks, and has none of this name."""
    if not entry.is_ours:
        onnx = [url for file in entry.files if file.type == "onnx" for url in file.urls if is_web_address(url)]
        instead = f"; it is there as .onnx, too, which may run: fetch {onnx[0]} and give the file" if onnx else ""
        ours = ", ".join(sorted(FAMILY_OF))
        raise ModelError(
            f"{entry.name} is of the architecture {entry.architecture!r}, which realesr does not run: expected one of "
            f"{ours}{instead}"
        )
    takes, gives = (count or 3 for count in entry.channels)
    if (takes, gives) != (3, 3):
        raise ModelError(f"{entry.name} takes {takes} channels and gives {gives}: expected 3 and 3, for RGB")
    if entry.name in ZOO:
        raise ModelError(f"{entry.name} is the name of a network that realesr has already: fetch that one instead")


def _by_hand(files: Sequence[CatalogueFile]) -> str:
    """Return what to do where a file cannot be fetched by its addresses."""
    pages = [url for file in files for url in file.urls if is_web_address(url)]
    if pages:
        return f"get it with a browser at {pages[0]}, and give the file as the network"
    others = [url for file in files for url in file.urls]
    return f"got {printable(others[0])!r}, expected http or https" if others else "the list has no address at all"


def _fetch(entry: CatalogueEntry, file: CatalogueFile, target: Path, on_progress: AmountCallback | None) -> str:
    """Download the file from the first of its addresses that gives it; return that address."""
    from realesr.models.download import download  # a list and its search need not wait for the import of requests

    assert file.sha256 is not None
    urls = direct_urls(file)
    if target.is_file() and file_sha256(target) == file.sha256:  # all that an earlier call lacked were the facts
        return urls[0]
    for url in urls:
        try:
            download(
                url,
                target,
                sha256=file.sha256,
                size=file.bytes,
                on_progress=on_progress,
                advice="get it with a browser and give the file as the network",
            )
            return url
        except ModelError as error:
            is_last = url == urls[-1]
            if isinstance(error.__cause__, OSError) or (is_last and len(urls) == 1):
                raise
            if is_last:
                raise ModelError(f"none of the {len(urls)} addresses of {entry.name} gives it: {error}") from error
    raise AssertionError("choose_file has found an address")


def _facts(entry: CatalogueEntry, path: Path, source: str) -> PulledNetwork:
    """Return the facts about a file that has come; one that is no network of ours is deleted.

    Raises:
        ModelError: it is none.
    """
    try:
        weights = read_weights(path)
    except ModelError as error:
        path.unlink(missing_ok=True)
        raise ModelError(f"{entry.name} is no network that realesr runs, and was deleted again: {error}") from error
    return PulledNetwork(
        name=entry.name,
        title=entry.title,
        author=entry.author,
        licence=entry.licence or "",
        source=source,
        file=path.name,
        sha256=weights.sha256,
        bytes=path.stat().st_size,
        tags=", ".join(entry.tags),
        architecture=text_from_architecture(weights.architecture),
    )
