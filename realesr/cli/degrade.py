"""`realesr degrade`: shows how training degrades photos, before a long run does it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from realesr.errors import InputError, MissingDependency, OutputExists, UsageError

from .output_options import Debug

if TYPE_CHECKING:
    from realesr.train.degrade.preview import Preview

EXAMPLES = """\
realesr degrade photo.png              # photo_degraded.png, and .json
realesr degrade photo.png -n 15 --seed 7 -o sheet.png
realesr degrade photo.png --scale 2 --recipe faithful --overwrite
realesr degrade photo.png --replay photo_degraded.json -o again.png
realesr degrade photo.png --debug"""

COUNT, SCALE, RECIPE, SEED = 8, 4, "corrected", 0
"""Defaults; the options have none, so that any that stand beside --replay are noticed."""


def degrade(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", show_default=False, help="An image; its middle is used.")],
    count: Annotated[
        int | None,
        typer.Option("-n", "--count", metavar="N", show_default=False, help="Degraded versions. Default: 8."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PATH", show_default=False, help="A .png. Default: photo_degraded.png beside it."
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option("-s", "--scale", metavar="N", show_default=False, help="Of the network, 1 to 16. Default: 4."),
    ] = None,
    recipe: Annotated[
        Literal["corrected", "faithful"] | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="corrected or faithful (the reference's arithmetic with its quirks). Default: corrected.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", show_default=False, help="Another one draws other parameters. Default: 0."),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON", show_default=False, help="Parameters of an earlier picture: the same pixels again."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    debug: Debug = False,
) -> None:
    """Show how training degrades a photo.

    A picture: the original, then degraded versions with their parameters under each. The parameters go into a .json
    beside it. The path of the picture goes to stdout.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from . import console

    with console.errors_reported(console.Messages(debug=debug)):
        target = output or photo.with_name(f"{photo.stem}_degraded.png")
        check_target(target, overwrite=overwrite, replay=replay)
        options = {"-n": count, "--scale": scale, "--recipe": recipe, "--seed": seed}
        preview = replay_preview(photo, replay, options) if replay is not None else draw_preview(photo, options)
        write(preview, target)
        console.result(str(target))


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
    preview = preview_module()
    from realesr.train.degrade.recipe import CORRECTED, FAITHFUL

    values = dict(zip(options, (COUNT, SCALE, RECIPE, SEED), strict=True))
    values |= {name: value for name, value in options.items() if value is not None}
    recipe = FAITHFUL if values["--recipe"] == "faithful" else CORRECTED
    made: Preview = preview.previewed(photo, recipe, count=values["-n"], scale=values["--scale"], seed=values["--seed"])
    return made


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
    made: Preview = preview_module().replayed(photo, record)
    return made


def preview_module() -> Any:
    """Import the module that draws and degrades, which needs torch."""
    try:
        from realesr.train.degrade import preview
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependency("realesr degrade needs the package torch: pip install torch") from None
    return preview


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
