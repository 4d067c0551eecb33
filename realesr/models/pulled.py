"""Networks of a public list that have been fetched: their files in the cache, and facts beside each as a JSON file.

They lie in the cache's folder `models/pulled`, apart from released networks, whose files have names that such a network
could have, too. A network is there once its facts are: they are written last.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from realesr.errors import ModelError
from realesr.machine.whole_file import write_whole
from realesr.models.architecture import Architecture
from realesr.models.catalogue import is_safe_name
from realesr.models.licences import is_permissive
from realesr.models.recognition import architecture_from_text
from realesr.models.torch_file import printable
from realesr.models.weights import Weights, read_weights
from realesr.models.zoo import cache_folder

SUFFIXES = (".safetensors", ".pth")
"""Suffixes of the files, in the order of preference: the first holds arrays and nothing else."""

_MOST_FACTS_BYTES = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PulledNetwork:
    """The facts about a network that has been fetched."""

    name: str
    """Name by which it is used."""
    title: str
    """Name as its author wrote it."""
    author: str
    licence: str
    """SPDX expression; empty where none was stated."""
    source: str
    """Address that its bytes came from."""
    file: str
    """Name of its file: `name` with one of `SUFFIXES`."""
    sha256: str
    bytes: int
    tags: str
    """What the list says that it is for, with commas."""
    architecture: str
    """What was recognised in the file, as `realesr.models.recognition.text_from_architecture` writes it."""

    @property
    def path(self) -> Path:
        """Return where its file is, or belongs."""
        return pulled_folder() / self.file

    @property
    def network(self) -> Architecture:
        """Return the architecture.

        Raises:
            ModelError: the text is none of this version of realesr.
        """
        found = architecture_from_text(self.architecture)
        if found is None:
            raise ModelError(f"{self.name} is of an architecture that this version of realesr does not know")
        return found

    @property
    def is_permissive(self) -> bool:
        """Return whether its licence is permissive; see `realesr.models.licences`."""
        return is_permissive(self.licence)


def pulled_folder() -> Path:
    """Return the folder of fetched networks and their facts. It may not exist yet."""
    return cache_folder() / "models" / "pulled"


def pulled_networks() -> list[PulledNetwork]:
    """Return every network that has been fetched and whose file is there, by name; of others a warning is logged."""
    names = sorted(path.stem for path in pulled_folder().glob("*.json") if is_safe_name(path.stem))
    found = []
    for name in names:
        try:
            found += [network] if (network := find_pulled(name)) else []
        except ModelError as error:
            _log.warning("%s", error)
    return found


def find_pulled(name: str) -> PulledNetwork | None:
    """Return the facts about a fetched network by its name; None where it has not been fetched.

    Raises:
        ModelError: its facts are damaged, or its file is gone.
    """
    path = pulled_folder() / f"{name}.json"
    if not is_safe_name(name) or not path.is_file():
        return None
    try:
        if path.stat().st_size > _MOST_FACTS_BYTES:
            raise ValueError("it is too large")
        facts = facts_from_record(json.loads(path.read_bytes()))
        if facts.name.casefold() != name.casefold():  # some disks do not tell capitals apart
            raise ValueError(f"it is about {facts.name}")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({printable(str(error))}): delete it and pull {name} anew") from error
    if not facts.path.is_file():
        raise ModelError(f"{facts.path} is gone: delete {path} or pull {name} anew")
    return facts


def load_pulled(name: str) -> Weights | None:
    """Load a fetched network by its name; None where it has not been fetched.

    Raises:
        ModelError: its file is not the one that was fetched, or cannot be read.
    """
    facts = find_pulled(name)
    if facts is None:
        return None
    weights = read_weights(facts.path)
    if weights.sha256 != facts.sha256:
        raise ModelError(f"{facts.path} is not the file that was pulled (its SHA-256 differs): pull {name} anew")
    return replace(weights, name=facts.name)


def keep_facts(facts: PulledNetwork) -> None:
    """Write the facts beside the file, which makes the network one that is there.

    Raises:
        OSError: they cannot be written; nothing is left of them.
    """
    text = json.dumps(asdict(facts), indent=1) + "\n"
    write_whole(pulled_folder() / f"{facts.name}.json", text.encode())


def facts_from_record(record: Any) -> PulledNetwork:
    """Return the facts that `dataclasses.asdict` made a record of, as they are kept and carried.

    Raises:
        ValueError: a field is missing or cannot be, such as a text with control characters or a file of another name.
    """
    if not isinstance(record, Mapping):
        raise ValueError("expected a JSON object")
    kinds = {field.name: int if field.name == "bytes" else str for field in fields(PulledNetwork)}
    wrong = [name for name, kind in kinds.items() if type(record.get(name)) is not kind]
    wrong = wrong or [name for name in kinds if not str(record[name]).isprintable()]
    if wrong:
        raise ValueError(f"{wrong[0]} is missing or cannot be")
    facts = PulledNetwork(**{name: record[name] for name in kinds})
    if not is_safe_name(facts.name) or facts.file not in [facts.name + suffix for suffix in SUFFIXES]:
        raise ValueError("its name and its file do not fit")
    if not re.fullmatch("[0-9a-f]{64}", facts.sha256) or architecture_from_text(facts.architecture) is None:
        raise ValueError("its SHA-256 or its architecture cannot be")
    return facts
