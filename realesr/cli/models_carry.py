"""`realesr models export` and `import`: networks in a folder, for a machine without a network connection."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output_options import Debug, Quiet

if TYPE_CHECKING:
    from realesr.models.carried import CarriedNetwork

    from .console import Messages

EXPORT_EXAMPLES = """\
realesr models export /media/stick             # all that are on this disk
realesr models export /media/stick realesrgan-x4plus 4x-LSDIRplus
realesr models export /media/stick --json --quiet --debug"""
IMPORT_EXAMPLES = """\
realesr models import /media/stick             # on the other machine
realesr models import /media/stick realesrgan-x4plus
realesr models import /media/stick --json --quiet --debug"""

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, one object a line.")]


def export_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made where it is missing.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAMES", help="Networks on disk; none: all of them.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Copy networks into a folder, to carry them elsewhere.

    Takes them from the cache, from REALESR_MODELS and from packages, checks them, and writes a list with their SHA-256;
    the network in realesr's own package needs no carrying. The paths go to stdout. On the other machine 'realesr models
    import' takes them in.
    """
    from . import console

    messages = console.Messages(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        from realesr.models.carrying import export_networks

        tell(export_networks(folder.expanduser(), names or ()), json, messages)


def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Filled by 'realesr models export'.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAMES", help="Networks of the folder; none: all of them.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Take networks from such a folder into the cache.

    Each is checked by its SHA-256; where one is damaged, none is taken. Those that the cache has are left. The paths go
    to stdout.
    """
    from . import console

    messages = console.Messages(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        from realesr.models.carrying import import_networks

        tell(import_networks(folder.expanduser(), names or ()), json, messages)


def tell(networks: Sequence["CarriedNetwork"], json: bool, messages: "Messages") -> None:
    """Write each network's path or record to stdout, and what there is to know about it to stderr."""
    from . import console

    for network in networks:
        if network.left:
            messages.say(f"{network.name} was left as it is: {network.left}")
        elif network.facts and not network.facts.is_permissive:
            messages.say(f"{network.name} is under {network.facts.licence or 'no licence'}, which goes with it")
        if json:
            console.json_line(carried_record(network))
        else:
            console.result(network.path)


def carried_record(network: "CarriedNetwork") -> dict[str, Any]:
    """Return what became of one network."""
    return {
        "name": network.name,
        "files": [network.folder / file for file in network.files],
        "sha256": list(network.files.values()),
        "licence": None if network.facts is None else network.facts.licence or None,
        "copied": not network.left,
        "left": network.left or None,
    }
