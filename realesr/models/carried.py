"""Networks in a folder for another machine: what they are, and the list of them that lies beside their files.

Layout of the folder: the files as in the cache's folder `models`, and `realesr-networks.json`,

    {"format": 1, "networks": [{"name": ..., "files": {path: SHA-256, ...}, "facts": {...} or null}, ...]}

where the facts are those of a pulled network (`realesr.models.pulled.PulledNetwork`), null for one of the zoo. Whoever
reads it trusts none of it: a network of the zoo is what the zoo's own hashes say, and no path is taken from there.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from realesr.errors import ModelError
from realesr.models.catalogue import is_safe_name
from realesr.models.pulled import PulledNetwork, facts_from_record
from realesr.models.torch_file import printable
from realesr.models.zoo import ZOO, find_file, releases

MANIFEST = "realesr-networks.json"
"""Name of the file that says which networks a folder has."""

_FORMAT = 1
_MOST_MANIFEST_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class CarriedNetwork:
    """A network of the folder."""

    name: str
    files: Mapping[str, str]
    """Path in the folder, and in the cache's folder `models` -> SHA-256. The first is what is given as the network."""
    facts: PulledNetwork | None
    """Of a pulled network; None of one of the zoo."""
    folder: Path
    """Where its files are now."""
    left: str = ""
    """Why nothing was copied; empty where something was."""

    @property
    def path(self) -> Path:
        """Return the file that is given as the network."""
        return self.folder / next(iter(self.files))

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of that file."""
        return self.files[next(iter(self.files))]


def zoo_network(name: str) -> CarriedNetwork | None:
    """Return a network of the zoo where it is on this disk; None where it is not, or in realesr's own package."""
    path = find_file(ZOO[name])
    release = next((files for files in releases(ZOO[name]) if path and path.name == next(iter(files))), None)
    return CarriedNetwork(name=name, files=release, facts=None, folder=path.parent) if path and release else None


def pulled_network(facts: PulledNetwork) -> CarriedNetwork:
    """Return a network that has been pulled, as it is in this machine's cache."""
    files = {f"{facts.path.parent.name}/{facts.file}": facts.sha256}
    return CarriedNetwork(name=facts.name, files=files, facts=facts, folder=facts.path.parent.parent)


def manifest_text(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the list of a folder as text, from the records of its networks."""
    return json.dumps({"format": _FORMAT, "networks": list(records)}, indent=1) + "\n"


def record_of(network: CarriedNetwork) -> dict[str, Any]:
    """Return what the list says about a network."""
    facts = None if network.facts is None else asdict(network.facts)
    return {"name": network.name, "files": dict(network.files), "facts": facts}


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a folder's networks by name.

    Raises:
        ModelError: the folder has no list, or one that is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(f"{folder} has no {MANIFEST}: expected a folder that networks were exported to")
    try:
        if path.stat().st_size > _MOST_MANIFEST_BYTES:
            raise ValueError(f"it has more than {_MOST_MANIFEST_BYTES:,} bytes")
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or found.get("format") != _FORMAT or not isinstance(found.get("networks"), list):
            raise ValueError(f"expected an object with the format {_FORMAT} and a list of networks")
        return {_safe_name(record): record for record in found["networks"]}
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({printable(str(error))}): export the networks again") from error


def network_from_record(record: Mapping[str, Any], folder: Path) -> CarriedNetwork:
    """Return a network of a folder by its record, whose paths must be those that its name and facts make.

    Raises:
        ModelError: they are others, or this version of realesr does not know the network.
    """
    name, files, facts = record["name"], record.get("files"), record.get("facts")
    if facts is None and name in ZOO:
        release = next((release for release in releases(ZOO[name]) if release == files), None)
        if release is None:
            raise ModelError(f"{name} in {folder} is not the released network: its list has other files or hashes")
        return CarriedNetwork(name=name, files=release, facts=None, folder=folder)
    if facts is None:
        raise ModelError(
            f"{name} in {folder} is a network that this version of realesr does not know: install a newer one"
        )
    try:
        network = pulled_network(facts_from_record(facts))
    except ValueError as error:
        raise ModelError(f"the facts about {name} in {folder} are damaged ({error}): export it again") from error
    if network.name != name or network.files != files or name in ZOO:
        raise ModelError(f"the facts about {name} in {folder} are of another network: export it again")
    return replace(network, folder=folder)


def _safe_name(record: Any) -> str:
    name = record.get("name") if isinstance(record, dict) else None
    if not isinstance(name, str) or not is_safe_name(name):
        raise ValueError("a network has no safe name")
    return name
