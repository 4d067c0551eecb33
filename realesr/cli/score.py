"""`realesr score`: its options."""

from pathlib import Path
from typing import Annotated

import typer

from .output_options import Debug, Quiet

EXAMPLES = """\
realesr score photo_x4.png               # NIQE alone
realesr score large                      # every image of a folder
realesr score large --reference originals  # PSNR and SSIM, too
realesr score a_x4.png b_x4.png --reference photo.png --border 0
realesr score large --recursive --reference originals --json --quiet
realesr score large | sort -t "$(printf '\\t')" -k 2 -n  # lowest NIQE first
realesr score large --reference originals --lpips alex.pth --lpips alexnet.pth
realesr score photo_x4.png --debug"""


def score(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATHS", show_default=False, readable=False, help="Images, and folders with images."),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            show_default=False,
            help="What they ought to look like: an image, or a folder with images of the same names, without their "
            "suffix or an ending such as _x4.",
        ),
    ] = None,
    border: Annotated[
        int | None,
        typer.Option(
            metavar="PX", show_default=False, help="Left out at each side for PSNR and SSIM. Default: 4, usual at x4."
        ),
    ] = None,
    lpips: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Weights of LPIPS, for which torch is needed: its linear layers and, by a second --lpips, AlexNet or "
            "VGG16. Default: no LPIPS.",
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Folders in folders, too; references lie in folders of the same names.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="JSON on stdout, one object an image, and one more with the means.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score images: NIQE, and with a reference PSNR and SSIM on Y.

    A table on a terminal; in a pipe one image a line, between tabs its path, NIQE, PSNR-Y in dB, SSIM and LPIPS, "-"
    where there is none. Of several images the last line has the means, and is called "mean". NIQE and LPIPS are
    better where they are lower, PSNR and SSIM where they are higher.

    Exit codes: 0 all scored, 1 some are not, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from . import console
    from .score_run import ScoreRun, checked_request

    messages = console.Messages(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        request = checked_request(paths, reference, border, lpips or [], recursive=recursive, json=json)
        code = ScoreRun(request, messages).run()
    raise typer.Exit(code)
