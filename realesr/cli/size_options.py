"""The options of `realesr upscale` that state a size instead of a scale, and the size that they make."""

from typing import TYPE_CHECKING, Annotated

import typer

from .options import IMAGE

if TYPE_CHECKING:
    from realesr.target_size import TargetSize

LongSide = Annotated[
    int | None,
    typer.Option(
        "--long-side",
        metavar="PX",
        show_default=False,
        rich_help_panel=IMAGE,
        help="Enlarge to this length of the longer side, instead of by a factor. Images that are large enough are "
        "skipped.",
    ),
]
ShortSide = Annotated[
    int | None,
    typer.Option(
        "--short-side",
        metavar="PX",
        show_default=False,
        rich_help_panel=IMAGE,
        help="The same, of the shorter side.",
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        "--width",
        metavar="PX",
        show_default=False,
        rich_help_panel=IMAGE,
        help="The same, of the width; with --height the image fits inside both, at its own ratio.",
    ),
]
Height = Annotated[
    int | None,
    typer.Option(
        "--height",
        metavar="PX",
        show_default=False,
        rich_help_panel=IMAGE,
        help="The same, of the height.",
    ),
]
Megapixels = Annotated[
    float | None,
    typer.Option(
        "--megapixels",
        metavar="N",
        show_default=False,
        rich_help_panel=IMAGE,
        help="The same, of the area, in millions of pixels.",
    ),
]
PrintSize = Annotated[
    str | None,
    typer.Option(
        "--print",
        metavar="WxH[@DPI]",
        show_default=False,
        rich_help_panel=IMAGE,
        help="The same, for a print that the image fits inside, upright or across: 30x20cm@300, 8x10in, 297x210mm. "
        "The resolution is written into the file. Default: 300 dpi.",
    ),
]
Shrink = Annotated[
    bool,
    typer.Option(
        "--shrink",
        rich_help_panel=IMAGE,
        help="With a size: images that are larger are resampled down to it by a filter, not skipped.",
    ),
]


def target_size(
    *,
    long_side: int | None,
    short_side: int | None,
    width: int | None,
    height: int | None,
    megapixels: float | None,
    print_size: str | None,
) -> "TargetSize | None":
    """Return the size that the options state, or None where there are none.

    Raises:
        UsageError: several options, one out of range, or a print that is none.
    """
    if all(value is None for value in (long_side, short_side, width, height, megapixels, print_size)):
        return None
    from realesr.target_size import TargetSize

    on_paper = None if print_size is None else TargetSize.from_print(print_size)
    return TargetSize(
        long_side_px=long_side,
        short_side_px=short_side,
        width_px=width,
        height_px=height,
        megapixels=megapixels,
        print_mm=None if on_paper is None else on_paper.print_mm,
        dpi=None if on_paper is None else on_paper.dpi,
    )
