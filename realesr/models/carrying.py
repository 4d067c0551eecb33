"""Carries networks to a machine without a network connection: into a folder, and from there into a cache."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from realesr.errors import ModelError, OutputExists
from realesr.machine.whole_file import file_sha256, not_written, whole_file, write_whole
from realesr.models.carried import (
    MANIFEST,
    CarriedNetwork,
    manifest_text,
    network_from_record,
    pulled_network,
    read_manifest,
    record_of,
    zoo_network,
)
from realesr.models.pulled import PulledNetwork, find_pulled, keep_facts, pulled_networks
from realesr.models.torch_file import printable
from realesr.models.zoo import ZOO, cache_folder, find_file, near_names

_OTHER_FOLDER = "free some space, or choose another folder"
_OTHER_CACHE = "free some space, or let REALESR_CACHE name another folder"
_MOST_MANIFEST_BYTES = 1 << 22


def networks_here() -> list[CarriedNetwork]:
    """Return the networks that are on this machine's disk and can be carried: of cache, own folders and packages.

    The network that is in realesr's own package is none of them: it is wherever realesr is.
    """
    found = [zoo_network(name) for name in ZOO]
    return [network for network in found if network] + [pulled_network(facts) for facts in pulled_networks()]


def export_networks(folder: Path, names: Sequence[str] = ()) -> list[CarriedNetwork]:
    """Copy networks that are on disk into a folder, for `import_networks` on another machine.

    Files that are there already with the same bytes are left; networks that an earlier call has put there stay listed.

    Args:
        folder: made where it is missing.
        names: of the zoo, or of pulled networks; none: all that are on disk.

    Returns:
        The networks, as they are in the folder now.

    Raises:
        ModelError: a network is not on disk or damaged, or none is on disk at all.
        OutputError: the folder cannot be written, or has another file of that name. Each file is there whole or not at
            all, and the list of networks is written last.
    """
    chosen = [_named(name) for name in dict.fromkeys(names)] if names else networks_here()
    if not chosen:
        raise ModelError("no network is on this disk yet: fetch or pull one first")
    listed = read_manifest(folder) if (folder / MANIFEST).exists() else {}
    done = [_exported(network, folder) for network in chosen]
    records = listed | {network.name: record_of(network) for network in done}
    try:
        write_whole(folder / MANIFEST, manifest_text(records.values()).encode())
    except OSError as error:
        raise not_written(folder / MANIFEST, error, _OTHER_FOLDER) from error
    return done


def import_networks(folder: Path, names: Sequence[str] = ()) -> list[CarriedNetwork]:
    """Put the networks of a folder that `export_networks` has filled into this machine's cache.

    All of them are checked before the first is copied. A network that the cache has already is left as it is.

    Args:
        folder: with `realesr-networks.json` in it.
        names: of networks in the folder; none: all of them.

    Returns:
        The networks, as they are in the cache now.

    Raises:
        ModelError: the folder has no list of networks, or not this network; a file is missing or damaged; this version
            of realesr does not know a network. Nothing was put into the cache.
        OutputError: the cache cannot be written, or the disk is full. Each network is there whole or not at all.
    """
    records = read_manifest(folder)
    if not records:
        raise ModelError(f"{folder / MANIFEST} lists no network: export the networks again")
    missing = [name for name in names if name not in records]
    if missing:
        raise ModelError(f"{folder} has no network {printable(missing[0])}: it has {', '.join(records) or 'none'}")
    chosen = [network_from_record(records[name], folder) for name in (dict.fromkeys(names) if names else records)]
    _check_files(chosen)
    return [_imported(network) for network in chosen]


def _named(name: str) -> CarriedNetwork:
    """Return a network on this disk by its name; raise ModelError where there is none."""
    if name in ZOO:
        network = zoo_network(name)
        if network:
            return network
        if find_file(ZOO[name]):
            raise ModelError(f"{name} is in every installation of realesr: it need not be carried")
        raise ModelError(f"{name} is not on this disk: fetch it first")
    facts = find_pulled(name)
    if facts is None:
        raise ModelError(f"no network on this disk is called {name}: did you mean {', '.join(near_names(name))}?")
    return pulled_network(facts)


def _exported(network: CarriedNetwork, target: Path) -> CarriedNetwork:
    """Copy a network's files into a folder, where files of other bytes are never replaced."""
    missing = _missing_files(network, target)
    in_the_way = [target / file for file in missing if (target / file).exists()]
    if in_the_way:
        raise OutputExists(
            f"{in_the_way[0]} is there already, and is another file: remove it, or choose another folder"
        )
    for file in missing:
        _copy(network.folder / file, target / file, network.files[file], _OTHER_FOLDER)
    return replace(network, folder=target, left="" if missing else "there already")


def _imported(network: CarriedNetwork) -> CarriedNetwork:
    """Put a checked network of a folder into the cache, where damaged files are replaced."""
    cache = cache_folder() / "models"
    there = _pulled_before(network)
    if there is not None:
        left = "there already" if there.sha256 == network.sha256 else "another file of that name is there already"
        return replace(pulled_network(there), left=left)
    missing = _missing_files(network, cache)
    for file in missing:
        _copy(network.folder / file, cache / file, network.files[file], _OTHER_CACHE)
    if network.facts is not None:
        try:
            keep_facts(network.facts)
        except OSError as error:
            raise not_written(cache, error, _OTHER_CACHE) from error
    return replace(network, folder=cache, left="" if missing or network.facts else "there already")


def _pulled_before(network: CarriedNetwork) -> PulledNetwork | None:
    """Return the whole pulled network that the cache has by this name."""
    if network.facts is None:
        return None
    try:
        there = find_pulled(network.name)
        return there if there and _sha256(there.path) == there.sha256 else None
    except ModelError:
        return None


def _missing_files(network: CarriedNetwork, target: Path) -> list[str]:
    """Return the files of a network that a folder has not got, or not with the same bytes."""
    return [file for file, sha256 in network.files.items() if not _has_sha256(target / file, sha256)]


def _copy(source: Path, target: Path, sha256: str, advice: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as part:
            shutil.copyfile(source, part)
            if file_sha256(part) != sha256:
                raise ModelError(f"{source} is damaged: its SHA-256 is not {sha256[:16]}...; fetch or pull it anew")
    except OSError as error:
        raise not_written(target, error, advice) from error


def _has_sha256(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path) == sha256


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_files(networks: Sequence[CarriedNetwork]) -> None:
    """Raise ModelError where files of the networks are missing or damaged; it names them all."""
    bad = [str(one.folder / file) for one in networks for file in _missing_files(one, one.folder)]
    if bad:
        raise ModelError(
            f"damaged or missing: {', '.join(bad)}; nothing was put into the cache: export the networks again, or name "
            "those that are whole"
        )
