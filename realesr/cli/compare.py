"""`realesr compare`: its options."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt

EXAMPLES = """\
realesr compare photo.jpg                # photo_compare.html, and .png
realesr compare photo.jpg -o compare.html
realesr compare photo.jpg -m realesrgan-x4plus,realesr-general-x4v3
realesr compare photo.jpg -m realesrgan-x4plus,my-network.safetensors
realesr compare photo.jpg --region 400,300,256,256 --overwrite
realesr compare a.jpg b.png holiday --recursive -o pages
realesr compare photo.jpg --json --quiet # one JSON object per photo
realesr compare scan.tif --page 2 --max-pixels 500000000
realesr compare card.jpg --allow-damaged --debug
realesr compare photo.jpg --engine torch --device cuda --precision fp16
realesr compare photo.jpg --threads 2"""

Photos = Annotated[
    list[Path],
    typer.Argument(metavar="PHOTOS", show_default=False, readable=False, help="Images, and folders with images."),
]
Models = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="A,B,...",
        show_default=False,
        rich_help_panel=opt.NETWORK,
        help="Names that 'realesr models' lists, fetched where they are not on disk, and files, separated by commas. "
        "Default: every network on disk.",
    ),
]
RegionText = Annotated[
    str | None,
    typer.Option(
        "--region",
        metavar="X,Y,W,H",
        show_default=False,
        rich_help_panel=opt.IMAGE,
        help="Left, top, width and height in px of the photo, at most 1,024 px a side. Default: the 256 px with the "
        "most detail.",
    ),
]
Destination = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        show_default=False,
        rich_help_panel=opt.OUTPUT,
        help="An .html file, or a folder, made if missing. The picture is a .png beside it. Default: beside each "
        "photo, photo.jpg as photo_compare.html.",
    ),
]


def compare(
    photos: Photos,
    output: Destination = None,
    recursive: opt.Recursive = False,
    overwrite: opt.Overwrite = False,
    region: RegionText = None,
    page: opt.Page = None,
    max_pixels: opt.MaxPixels = None,
    allow_damaged: opt.AllowDamaged = False,
    model: Models = None,
    engine: opt.EngineName = "auto",
    device: opt.Device = "auto",
    precision: opt.PrecisionName = "auto",
    threads: opt.Threads = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Show what each network makes of a photo.

    One region of the photo, enlarged by every network: a page for the browser, with a slider between any two, their
    times and scores, and a picture of them all. The paths of both go to stdout.

    Exit codes: 0 all done or skipped, 1 some failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from realesr.options import FileOptions, NetworkOptions

    from .comparing.run import CompareRun
    from .console import Messages, errors_reported

    messages = Messages(quiet=quiet, debug=debug)
    with errors_reported(messages):
        network = NetworkOptions(engine=engine, device=device, precision=precision, threads=threads)
        file = FileOptions(page=page, max_pixels=max_pixels, allow_damaged=allow_damaged, overwrite=overwrite)
        run = CompareRun(network, file, opt.region_from(region), messages, json=json)
        code = run.run(photos, output, model, recursive=recursive)
    raise typer.Exit(code)
