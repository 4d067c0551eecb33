"""`realesr models search` and `pull`: networks of a public list, found by words and fetched by name."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realesr.errors import ModelError, UsageError

from .model_records import pulled_record, purpose_of, row_start
from .output_options import Debug, Quiet

if TYPE_CHECKING:
    from realesr.models.catalogue import Catalogue, CatalogueEntry

    from .console import Messages

SEARCH_EXAMPLES = """\
realesr models search photo jpeg               # all of the words
realesr models search photo --json | jq -r 'select(.pull).name'
realesr models search anime --list models.json --debug"""
PULL_EXAMPLES = """\
realesr models pull 4x-LSDIRplus
realesr upscale photo.jpg -m 4x-LSDIRplus      # by its name from then on
realesr models pull 4x-LSDIRplus 4x-Nomos8kSC --quiet --json
realesr models pull 4x-LSDIRplus --accept-licence    # in a script: do not ask
realesr models pull 4x-LSDIRplus --list models.json --debug"""
COLUMNS = ("name", "scale", "MB", "licence", "for", "pull")

List = Annotated[
    str | None,
    typer.Option(
        "--list", metavar="URL|FILE", show_default=False, help="Another list than OpenModelDB's, of the same layout."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, one object a line.")]


def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="In name, author, tags or description.")],
    list_: List = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Search a public list for networks.

    The list is read anew from openmodeldb.info. Columns as of 'realesr models', and whether 'pull' fetches it: yes, "by
    hand" (say, from a web page), or no, with the architecture that realesr does not run. Those it fetches come first.
    """
    from . import console

    messages = console.Messages(debug=debug)
    with console.errors_reported(messages):
        from realesr.models import catalogue

        listed = read_list(list_)
        records = sorted(map(search_record, catalogue.search(listed, words)), key=lambda record: not record["pull"])
        if json:
            for record in records:
                console.json_line(record)
        elif records:
            console.table(f"Networks of {listed.source}", COLUMNS, [search_row(record) for record in records])
        if not records:
            messages.say(f"no network of {listed.source} has all of these words: {' '.join(words)}")
        tell_faults(listed, messages)


def pull(
    names: Annotated[list[str], typer.Argument(metavar="NAMES", help="Networks, as 'realesr models search' has them.")],
    list_: List = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept licences that are not permissive, without being asked.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fetch networks of a public list, and check them.

    Says author, architecture, scale, licence and size first, and asks where a licence is not permissive. The path of
    each file goes to stdout; '-m NAME' uses it. A download that broke off continues where it ended.
    """
    from . import console

    messages = console.Messages(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        from realesr.models import pulling

        entries = chosen_entries(names, list_, messages)
        ask_for_licences(entries, accept_licence)
        for entry in entries:
            with messages.download(entry.name) as on_download:
                network = pulling.pull(entry, accept_licence=True, on_progress=on_download)
            if entry.scale not in (None, network.network.scale):
                messages.say(f"{entry.name}: the list says x{entry.scale}, but the file is x{network.network.scale}")
            if json:
                console.json_line(pulled_record(network))
            else:
                console.result(network.path)


def read_list(source: str | None) -> "Catalogue":
    """Read the list that the command names, or OpenModelDB's."""
    from realesr.models.catalogue import OPENMODELDB, read_catalogue

    return read_catalogue(OPENMODELDB if source is None else source)


def tell_faults(listed: "Catalogue", messages: "Messages") -> None:
    """Say how many networks of a list cannot be used, and why the first cannot."""
    if listed.faults:
        name, fault = next(iter(listed.faults.items()))
        messages.say(f"entries of the list that cannot be used: {len(listed.faults)}, such as {name[:100]!a}: {fault}")


def chosen_entries(names: Sequence[str], source: str | None, messages: "Messages") -> list["CatalogueEntry"]:
    """Return the networks of these names, and say what they are.

    Raises:
        UsageError, ModelError: the list cannot be read, a network is not in it, or cannot be fetched or run.
    """
    from realesr.models.catalogue import find
    from realesr.models.pulling import choose_file, on_disk

    listed = read_list(source)
    entries = {entry.name: entry for entry in (find(listed, name) for name in names)}
    files = {name: choose_file(entry) for name, entry in entries.items()}
    for name, entry in entries.items():
        there = on_disk(entry, files[name]) is not None
        messages.say(facts_line(entry, files[name].bytes) + ("; it is on disk" if there else ""))
    return list(entries.values())


def facts_line(entry: "CatalogueEntry", size: int | None) -> str:
    """Return what a network is in one line."""
    from .console import megabytes

    by = f" by {entry.author}" if entry.author else ""
    scale = "" if entry.scale is None else f" x{entry.scale}"
    told = "size not told" if size is None else megabytes(size)
    return f"{entry.name}{by}: {entry.architecture}{scale}, licence {entry.licence or 'not stated'}, {told}"


def ask_for_licences(entries: Sequence["CatalogueEntry"], is_accepted: bool) -> None:
    """Ask for each licence that is not permissive, unless the network is on disk already.

    Raises:
        UsageError: one is refused, or there is nobody to ask.
    """
    from realesr.models.pulling import choose_file, licence_in_words, on_disk

    for entry in entries:
        if is_accepted or entry.is_permissive or on_disk(entry, choose_file(entry)) is not None:
            continue
        if not has_terminal():
            raise UsageError(f"{licence_in_words(entry)}: --accept-licence accepts it; nothing was fetched")
        if not is_answered_yes(f"{licence_in_words(entry)}. Accept it? [y/N] "):
            raise UsageError(f"the licence of {entry.name} was not accepted: nothing was fetched")


def has_terminal() -> bool:
    """Return whether somebody can answer."""
    return sys.stdin is not None and sys.stdin.isatty()


def is_answered_yes(question: str) -> bool:
    """Ask on stderr; typer's own prompt would write a space to stdout, where the results go."""
    typer.echo(question, nl=False, err=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def search_record(entry: "CatalogueEntry") -> dict[str, Any]:
    """Return the facts about one network of a list, with whether it can be pulled, and why not."""
    from realesr.models.pulling import choose_file, on_disk

    size, on_disk_at, reason = None, None, None
    try:
        file = choose_file(entry)
        there = on_disk(entry, file)
        size, on_disk_at = file.bytes, None if there is None else there.path
    except ModelError as error:
        size, reason = next((file.bytes for file in entry.files), None), str(error)
    return {
        "name": entry.name,
        "scale": entry.scale,
        "bytes": size,
        "licence": entry.licence,
        "purpose": purpose_of(", ".join(entry.tags), entry.author),
        "on_disk": on_disk_at,
        "pull": reason is None,
        "reason": reason,
        "permissive": entry.is_permissive,
        "runs": entry.is_ours,
        "architecture": entry.architecture,
        "title": entry.title,
        "author": entry.author,
        "description": entry.description,
    }


def search_row(record: dict[str, Any]) -> tuple[str, ...]:
    """Return one row of the table."""
    no = "by hand" if record["runs"] else f"no: {record['architecture']}"
    return (*row_start(record), "yes" if record["pull"] else no)
