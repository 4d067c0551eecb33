"""`realesr degrade`: shows how training degrades photos before a long run does it, and writes degraded pairs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realesr.errors import InputError, OutputExists, UsageError

from .output_options import Debug, Quiet
from .training import torch_needed

if TYPE_CHECKING:
    from realesr.train.degrade.preview import Preview
    from realesr.train.degraded_pairs import PairSettings

    from .console import Messages

EXAMPLES = """\
realesr degrade photo.png              # photo_degraded.png, and .json
realesr degrade photo.png -n 15 --seed 7 -o sheet.png
realesr degrade photo.png --scale 2 --recipe faithful --overwrite
realesr degrade photo.png --recipe my.toml --set degrade.motion_blur=0.5
realesr degrade photo.png --replay photo_degraded.json -o again.png
realesr degrade photos --export pairs -n 1000 --crop-px 320 --quiet
realesr degrade photo.png --debug"""

COUNT = 8
"""Default; the option has none, so that it is noticed where it stands beside --replay."""


def degrade(
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO...",
            show_default=False,
            help="An image, whose middle is used; with --export also several, folders, and .txt lists.",
        ),
    ],
    count: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--count",
            metavar="N",
            show_default=False,
            help="Degraded versions; with --export pairs. Default: 8; one pair a photo.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PATH", show_default=False, help="A .png. Default: photo_degraded.png beside it."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="Write pairs: FOLDER/hr and FOLDER/lr, for --gt and --lq of 'realesr train', and parameters.jsonl. "
            "The same command goes on where it was stopped.",
        ),
    ] = None,
    crop_px: Annotated[
        int | None,
        typer.Option(
            "--crop-px",
            metavar="N",
            show_default=False,
            help="Side of the pairs' large images. Default: the recipe's stage1.crop_px, or 256.",
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            "-s",
            "--scale",
            metavar="N",
            show_default=False,
            help="Of the network, 1 to 16. Default: the recipe's.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            show_default=False,
            help="corrected, faithful (the reference's arithmetic with its quirks), one of 'realesr train recipes', or "
            "a .toml file. Default: corrected.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            show_default=False,
            help="Changes the recipe, like degrade.final_sinc=0. May be given again.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=False, help="Another one draws other parameters. Default: the recipe's."
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON", show_default=False, help="Parameters of an earlier picture: the same pixels again."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show how training degrades a photo, or write pairs to train on.

    A picture: the original, then degraded versions with their parameters under each. The parameters go into a .json
    beside it. The path of the picture, or the folder of the pairs, goes to stdout.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from . import console

    messages = console.Messages(quiet=quiet, debug=debug)
    options = {"-n": count, "--scale": scale, "--recipe": recipe, "--set": changes or None, "--seed": seed}
    with console.errors_reported(messages):
        if export is not None:
            refuse({"-o": output, "--replay": replay, "--overwrite": overwrite or None}, "--export")
            write_pairs(photos, export, options, crop_px, messages)
            console.result(str(export))
            return
        refuse({"--crop-px": crop_px}, "a picture")
        photo = one_photo(photos)
        target = output or photo.with_name(f"{photo.stem}_degraded.png")
        check_target(target, overwrite=overwrite, replay=replay)
        preview = replay_preview(photo, replay, options) if replay is not None else draw_preview(photo, options)
        write(preview, target)
        console.result(str(target))


def refuse(options: Mapping[str, Any], beside: str) -> None:
    """Raise UsageError where options were given that have no meaning beside another."""
    present = [name for name, value in options.items() if value is not None]
    if present:
        raise UsageError(f"got {', '.join(present)} beside {beside}, which takes none of them: leave one of them out")


def one_photo(photos: list[Path]) -> Path:
    """Return the photo of a picture; raise UsageError where there are several, or it is a folder."""
    if len(photos) == 1 and not photos[0].is_dir():
        return photos[0]
    raise UsageError(f"got {' '.join(map(str, photos))}: expected one image, or --export FOLDER to write pairs of many")


def write_pairs(
    photos: list[Path], folder: Path, options: Mapping[str, Any], crop_px: int | None, messages: "Messages"
) -> None:
    """Write pairs of all photos, and say how far that is now and then."""
    settings = read_settings(options, crop_px)
    from realesr.train.data.image_list import find_training_images
    from realesr.train.degraded_pairs import check_outside, export_pairs
    from realesr.train.progress_lines import ProgressLines

    check_outside(folder, photos)
    images = find_training_images(photos)
    count = len(images) if options["-n"] is None else options["-n"]
    with messages.status() as show:
        new = export_pairs(images, folder, count, settings, say=messages.say, on_progress=ProgressLines("pairs", show))
    messages.say(f"{new:,} new pairs of {len(images):,} images; to train on them: --gt {folder}/hr --lq {folder}/lr")


def read_settings(options: Mapping[str, Any], crop_px: int | None = None) -> "PairSettings":
    """Return how the options degrade."""
    with torch_needed("realesr degrade"):
        from realesr.train.pair_settings import read_pair_settings

    return read_pair_settings(
        options["--recipe"] or "corrected",
        options["--set"] or (),
        scale=options["--scale"],
        crop_px=crop_px,
        seed=options["--seed"],
    )


def check_target(target: Path, *, overwrite: bool, replay: Path | None) -> None:
    """Raise where the picture or its parameters could not be written at the end, or would replace a file."""
    if target.suffix.lower() != ".png":
        raise UsageError(f"got -o {target}, expected a name that ends in .png")
    for path in (target, target.with_suffix(".json")):
        is_replayed = replay is not None and path.exists() and path.samefile(replay)
        if path.exists() and not overwrite and not is_replayed:
            raise OutputExists(f"{path} is there already: give another -o, or --overwrite")


def draw_preview(photo: Path, options: Mapping[str, Any]) -> "Preview":
    """Return a new preview, drawn with these options."""
    settings = read_settings(options)
    from realesr.train.degrade.preview import previewed

    count = COUNT if options["-n"] is None else options["-n"]
    return previewed(
        photo,
        settings.degrade,
        count=count,
        scale=settings.scale,
        seed=settings.seed,
        sharpened=settings.sharpened,
    )


def replay_preview(photo: Path, replay: Path, options: Mapping[str, Any]) -> "Preview":
    """Return the preview that a .json file describes."""
    present = [name for name, value in options.items() if value is not None]
    if present:
        raise UsageError(f"got {', '.join(present)} beside --replay, which has its own: leave one of them out")
    try:
        record = json.loads(replay.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{replay} cannot be read ({error.strerror}): expected a .json of realesr degrade") from None
    except ValueError:
        raise InputError(f"{replay} is no JSON: expected a .json of realesr degrade") from None
    if not isinstance(record, dict):
        raise InputError(f"{replay} has no record: expected a .json of realesr degrade")
    with torch_needed("realesr degrade"):
        from realesr.train.degrade.preview import replayed

    return replayed(photo, record)


def write(preview: "Preview", target: Path) -> None:
    """Write the picture and its parameters, each complete or not at all."""
    from realesr.machine.whole_file import not_written, whole_file

    text = json.dumps(preview.to_json(), indent=1) + "\n"
    picture = preview.picture()
    for path, save in (
        (target, lambda file: picture.save(file, "PNG")),
        (target.with_suffix(".json"), lambda file: file.write(text.encode())),
    ):
        try:
            with whole_file(path) as part, part.open("wb") as file:
                save(file)
        except OSError as error:
            raise not_written(path, error, "give another -o") from None
