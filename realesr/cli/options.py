"""The options of `realesr upscale`: names, ranges and help. Their values are checked in `realesr.options`."""

from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from realesr.errors import UsageError
from realesr.images.info import OutputFormat

INPUT = "Input"
OUTPUT = "Output"
IMAGE = "Image"
NETWORK = "Network"
SPEED = "Speed and memory"
MESSAGES = "Messages"

Precision = Literal["auto", "fp32", "fp16", "bf16"]
Alpha = Literal["network", "lanczos"]

Paths = Annotated[
    list[str] | None,  # as text: Path would take ./-, a file, for -, which is stdin
    typer.Argument(
        metavar="PATHS",
        show_default=False,
        help="Images, and folders with images; - is stdin. JPEG, PNG, TIFF, WebP, AVIF, GIF, BMP, PPM; "
        "HEIC with pillow-heif.",
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(
        "--files-from",
        metavar="FILE|-",
        show_default=False,
        rich_help_panel=INPUT,
        help="A list of images and folders, one a line, instead of PATHS or beside them; - reads it from stdin.",
    ),
]
NullSeparated = Annotated[
    bool,
    typer.Option(
        "-0",
        "--null",
        rich_help_panel=INPUT,
        help="The list of --files-from has a NUL after each name, not a line break, as 'find -print0' writes it.",
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        "-s",
        "--scale",
        metavar="N",
        show_default=False,
        rich_help_panel=IMAGE,
        help="Output pixels per input pixel and side, 1 to 16, fractions too; 1 cleans without enlarging. "
        "Default: the network's own, mostly 4.",
    ),
]
Preview = Annotated[
    bool,
    typer.Option(
        "--preview",
        rich_help_panel=IMAGE,
        help="Enlarge only the 256 px of each image with the most detail, as photo_x4_preview.jpg, say how long all "
        "of it would take, and end.",
    ),
]
RegionText = Annotated[
    str | None,
    typer.Option(
        "--region",
        metavar="X,Y,W,H",
        show_default=False,
        rich_help_panel=IMAGE,
        help="A preview of this part: left, top, width and height in px of the upright image, at most 1,024 px a side.",
    ),
]
Page = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        show_default=False,
        rich_help_panel=IMAGE,
        help="Page of a TIFF, frame of an animation or image of a HEIC file; 0 is the first. "
        "Default: the one that the file presents, which is no thumbnail.",
    ),
]
AllowDamaged = Annotated[
    bool,
    typer.Option(
        "--allow-damaged",
        rich_help_panel=IMAGE,
        help="Enlarge files that have lost a part of their picture, too: what is missing is made up, mostly grey.",
    ),
]
NoResume = Annotated[
    bool,
    typer.Option(
        "--no-resume",
        rich_help_panel=OUTPUT,
        help="Begin each image anew, and keep no finished rows beside the output while it is made.",
    ),
]
AlphaBy = Annotated[
    Alpha,
    typer.Option(
        metavar="HOW",
        rich_help_panel=IMAGE,
        help="What enlarges transparency: network (sharp edges) or lanczos (a filter: twice as fast, softer).",
    ),
]
Strength = Annotated[
    float,
    typer.Option(
        metavar="0..1",
        show_default=False,
        rich_help_panel=IMAGE,
        help="Share of the network's detail over a Lanczos enlargement: 1 is all of it, 0 none, and below 0.9 "
        "colours and broad tones stay the photo's own. Default: 1.",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        show_default=False,
        rich_help_panel=IMAGE,
        help="Largest input area in pixels (width times height), 1 or more; larger ones are refused. "
        "Default: a cap against files made to exhaust memory.",
    ),
]
Destination = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="A file (by its suffix) or a folder, made if missing; - is stdout. Default: beside each input, "
        "photo.jpg as photo_x4.jpg.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="TEMPLATE",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="Names of outputs: text with {stem}, {model}, {scale} (x4), {width}, {height}, {suffix} (the input's) and "
        "{parent} (name of its folder); the output's suffix is added. Default: {stem}_{scale}.",
    ),
]
InPlace = Annotated[
    bool,
    typer.Option(
        "--in-place",
        rich_help_panel=OUTPUT,
        help="Replace each input by its output once that is whole; with --backup or --no-backup.",
    ),
]
Backup = Annotated[
    str | None,
    typer.Option(
        "--backup",
        metavar="FOLDER",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="Where the originals go that --in-place replaces, made if missing; nothing in it is ever replaced.",
    ),
]
NoBackup = Annotated[
    bool, typer.Option("--no-backup", rich_help_panel=OUTPUT, help="The originals that --in-place replaces are lost.")
]
Recursive = Annotated[
    bool,
    typer.Option(
        "--recursive", rich_help_panel=OUTPUT, help="Folders with all below them; the tree is mirrored below -o."
    ),
]
ShardName = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="Of the images only the I-th of N shares, by their names: for N computers that share a folder. "
        "slurm: the share of this task of a job array.",
    ),
]
FormatName = Annotated[
    OutputFormat | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="png, jpeg, tiff, webp or avif. Default: the suffix of -o, else the input's "
        "(PNG for GIF, BMP, PPM, HEIC).",
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(
        metavar="1..100",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="Of JPEG, WebP and AVIF; 100 is the best. Default: JPEG 95, WebP 90, AVIF 80.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", rich_help_panel=OUTPUT, help="Write outputs anew. Default: those that exist are skipped."
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        rich_help_panel=OUTPUT,
        help="Try files of a folder again that could not be read before and have not changed since.",
    ),
]
Strip = Annotated[
    bool,
    typer.Option(
        "--strip",
        rich_help_panel=OUTPUT,
        help="Leave out EXIF, XMP, resolution and an sRGB profile (any other is needed). Default: all are kept.",
    ),
]
NoProvenance = Annotated[
    bool,
    typer.Option(
        "--no-provenance",
        rich_help_panel=OUTPUT,
        help="Do not write into the XMP that a network has enlarged the image, which one and by what factor.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="NAME|PATH",
        show_default=False,
        rich_help_panel=NETWORK,
        help="A name that 'realesr models' lists, or a file: .onnx, .safetensors, .pth, or "
        "ncnn's .bin beside its .param. Default: realesrgan-x4plus, or where that is not to be had "
        "realesr-general-x4v3, which comes with realesr.",
    ),
]
DENOISE_HELP = (
    "For realesr-general-x4v3: 0 keeps the noise, 1 removes the most. Default: 1. For any other network with "
    "--denoise-with."
)
Denoise = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        show_default=False,
        rich_help_panel=NETWORK,
        help=DENOISE_HELP,
    ),
]
DenoiseWith = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        show_default=False,
        rich_help_panel=NETWORK,
        help="What --denoise 0 gives: another network of the same architecture, scale and size, whose weights are "
        "blended with the model's. Default: the one released with it.",
    ),
]
Tta = Annotated[
    bool,
    typer.Option(
        "--tta", rich_help_panel=NETWORK, help="Mean over eight flips and turns: a little better, eight times as slow."
    ),
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        rich_help_panel=NETWORK,
        help="Tiles overlap until none differs from the whole image by more than one of 255 levels: slower.",
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine", metavar="NAME", rich_help_panel=SPEED, help="auto, or one that 'realesr doctor' lists as working."
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=SPEED,
        help="Where the engine runs: auto (a GPU before the CPU), cpu, cuda, cuda:1, webgpu, ...; "
        "cuda:0,1 shares the tiles of each image among several.",
    ),
]
PrecisionName = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="NAME",
        rich_help_panel=SPEED,
        help="Arithmetic of the network: fp32, fp16, bf16, or auto: fp32 for images of 16 bits and on most CPUs, "
        "fp16 on a GPU, bf16 on a CPU made for it where the network was measured to bear it.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        show_default=False,
        rich_help_panel=SPEED,
        help="CPU threads, 1 or more. Default: one for each usable core.",
    ),
]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        show_default=False,
        rich_help_panel=SPEED,
        help="A switch that only this engine has, such as mode=graphs of torch; may be given several times. "
        "'realesr doctor' lists them.",
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        show_default=False,
        rich_help_panel=SPEED,
        help="Side of the tiles in input pixels, 16 or more; smaller ones need less memory. "
        "Default: by the free memory.",
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        show_default=False,
        rich_help_panel=SPEED,
        help="What tiles see of their neighbours, in input pixels, 0 or more. Default: by the network, 18 to 34.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=MESSAGES, help="One JSON object per file on stdout, one a line.")
]
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", rich_help_panel=MESSAGES, help="Only errors on stderr; results still go to stdout."),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v",
        "--verbose",
        rich_help_panel=MESSAGES,
        help="Say more on stderr: the plan, where the weights come from, engine, tiles, and seconds of each stage.",
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", rich_help_panel=MESSAGES, help="Show where errors happened (tracebacks).")
]


def engine_options(pairs: Sequence[str]) -> dict[str, str]:
    """Return the options of the engine by name: ["mode=graphs"] -> {"mode": "graphs"}.

    Raises:
        UsageError: one is not KEY=VALUE, or a key occurs twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, _, value = map(str.strip, pair.partition("="))
        if not key or not value:
            raise UsageError(f"got --option {pair}, expected KEY=VALUE, such as mode=graphs")
        if key in found:
            raise UsageError(f"got --option {key} twice, with {found[key]} and {value}: give it once")
        found[key] = value
    return found


def region_from(text: str | None) -> tuple[int, int, int, int] | None:
    """Return the region that `--region` states.

    Raises:
        UsageError: it is not four whole numbers.
    """
    if text is None:
        return None
    try:
        left, top, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"got --region {text}, expected left,top,width,height in px: 400,300,256,256") from None
    return left, top, width, height
