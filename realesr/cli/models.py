"""`realesr models`: lists the networks, fetches them, and shows what a file holds; the subcommands are put together."""

from typing import Annotated

import typer

from .help import CommandHelp, GroupHelp
from .model_records import COLUMNS, known_entry, listed_records, network_record, readable, row
from .models_carry import EXPORT_EXAMPLES, IMPORT_EXAMPLES, export_, import_
from .models_pull import PULL_EXAMPLES, SEARCH_EXAMPLES, pull, search
from .output_options import Debug, Quiet

LIST_EXAMPLES = """\
realesr models                         # a table
realesr models | cut -f 1              # in a pipe: columns between tabs
realesr models --json                  # one JSON object per network
realesr models fetch realesr-general-x4v3
realesr models info realesrgan-x4plus
realesr models search photo            # networks of others, in a public list
realesr models pull 4x-LSDIRplus       # fetch one of them
realesr models export /media/stick     # for a machine without a network"""
FETCH_EXAMPLES = """\
realesr models fetch realesr-general-x4v3
realesr models fetch realesrgan-x4plus realesrgan-x4plus-anime --quiet
realesr models fetch realesrgan-x2plus --debug"""
INFO_EXAMPLES = """\
realesr models info realesrgan-x4plus
realesr models info my-network.safetensors --json
realesr models info my-network.onnx --debug"""

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, one object a line.")]

models = typer.Typer(cls=GroupHelp, rich_markup_mode=None)


@models.callback(invoke_without_command=True, epilog=LIST_EXAMPLES)
def list_models(context: typer.Context, json: Json = False, debug: Debug = False) -> None:
    """List the networks, or fetch, pull and carry them.

    Name, scale, MB of the released file, licence, what it is for, whether it is on disk: a table on a terminal; in a
    pipe one network a line, its columns separated by tabs, "-" where a size is not known. JSON has the place, too.
    """
    if context.invoked_subcommand is not None:
        return
    from . import console

    with console.errors_reported(console.Messages(debug=debug)):
        records = listed_records()
        if json:
            for record in records:
                console.json_line(record)
        else:
            console.table("Networks", COLUMNS, [row(record) for record in records])


@models.command(cls=CommandHelp, epilog=FETCH_EXAMPLES)
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAMES", help="Networks, as 'realesr models' lists them.")],
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download networks that are not on disk yet, and check them.

    The path of each file goes to stdout. A download that broke off continues where it ended.
    """
    from . import console

    messages = console.Messages(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        from realesr.models import zoo

        entries = [known_entry(name) for name in names]
        for entry in entries:
            with messages.download(entry.name) as on_download:
                path = zoo.fetch(entry, on_progress=on_download)
            console.result(str(path))


@models.command(cls=CommandHelp, epilog=INFO_EXAMPLES)
def info(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH", help="A name, or a file: .onnx, .engine, .safetensors, .pth, ncnn's .bin or .param."
        ),
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a network is.

    Architecture, parameters, cost, receptive radius, hash: as found in the file, and of a network that is not on disk,
    as its release has them.
    """
    from . import console

    with console.errors_reported(console.Messages(debug=debug)):
        record = network_record(network)
        if json:
            console.json_line(record)
        else:
            console.facts(readable(record))


models.command(cls=CommandHelp, epilog=SEARCH_EXAMPLES)(search)
models.command(cls=CommandHelp, epilog=PULL_EXAMPLES)(pull)
models.command("export", cls=CommandHelp, epilog=EXPORT_EXAMPLES)(export_)
models.command("import", cls=CommandHelp, epilog=IMPORT_EXAMPLES)(import_)
