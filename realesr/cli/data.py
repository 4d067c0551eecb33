"""`realesr data`: checks images before they are trained on, and prepares them."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realesr.errors import OutputExists, UsageError

from .help import CommandHelp, GroupHelp
from .output_options import Debug, Quiet

if TYPE_CHECKING:
    from realesr.train.data.check import Checked, CheckOptions
    from realesr.train.data.prepare import Prepared, PrepareOptions

GROUP_EXAMPLES = """\
realesr data check photos              # what should not be trained on
realesr data prepare photos -o ready   # smaller versions, cut into squares"""
CHECK_EXAMPLES = """\
realesr data check photos
realesr data check photos --write-list good.txt    # for train --data
realesr data check photos --write-list good.txt --overwrite --quiet
realesr data check photos more/a.png --crop 256 --min-quality 90 --threads 4
realesr data check photos --min-structure 0.1 --min-sharpness 0.6
realesr data check photos --max-noise 4
realesr data check list.txt --root datasets/DF2K --json
realesr data check photos --debug"""
PREPARE_EXAMPLES = """\
realesr data prepare photos -o ready               # the paper's sizes
realesr data prepare photos -o smaller --crop 0    # not cut into squares
realesr data prepare photos -o cut --scales none --shortest 0 --step 100
realesr data prepare photos -o few --scales 0.5,1/3 --no-originals --quiet
realesr data prepare list.txt --root datasets/DF2K -o ready --threads 4
realesr data prepare photos -o ready --debug"""

CROP_PX = 400
LEAST_STRUCTURE, LEAST_SHARPNESS, MOST_NOISE = 0.05, 0.45, 6.0
FEWEST_IMAGES = 100
SCALES = "0.75,0.5,1/3"

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATHS", show_default=False, help="Folders with all below them, images, and .txt lists of images."
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        show_default=False,
        help="Folder that the names in lists are relative to. Default: the list's own.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", show_default=False, help="Images at once. Default: one a core."),
]

data = typer.Typer(cls=GroupHelp, rich_markup_mode=None, no_args_is_help=True)


@data.callback(epilog=GROUP_EXAMPLES)
def group() -> None:
    """Check images before training, and prepare them."""


@data.command(cls=CommandHelp, epilog=CHECK_EXAMPLES)
def check(
    paths: Paths,
    crop: Annotated[
        int, typer.Option(metavar="PX", help="Images with a shorter side are tiny: training mirrors a part of them.")
    ] = CROP_PX,
    min_quality: Annotated[
        int, typer.Option(metavar="Q", help="JPEG files below are compressed too much, 0 to 100; 0 takes all.")
    ] = 75,
    min_structure: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Images with edges or texture in less of their area are flat; 0 takes all."),
    ] = LEAST_STRUCTURE,
    min_sharpness: Annotated[
        float,
        typer.Option(metavar="S", help="Images below are blurred or were enlarged; photos: about 1; 0 takes all."),
    ] = LEAST_SHARPNESS,
    max_noise: Annotated[
        float, typer.Option(metavar="LEVELS", help="Images with more noise, of 255 levels, are noisy; 255 takes all.")
    ] = MOST_NOISE,
    write_list: Annotated[
        Path | None,
        typer.Option(metavar="TXT", show_default=False, help="Write the names of the good images, for --data."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a list that is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout, one object an image, good ones too.")] = False,
    root: Root = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find images that should not be trained on.

    Those that cannot be read to their end, that are smaller than a crop, that occur twice or look alike, JPEG files of
    low quality, and flat, blurred or noisy images: a table on a terminal; in a pipe one image a line, between tabs
    image, fault and what it is, with what was measured and the limit.

    Exit codes: 0 all can be read, 1 some cannot, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from . import console

    messages = console.Messages(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        from realesr.machine.cgroup import usable_cores
        from realesr.train.data.check import CheckOptions, check_images
        from realesr.train.data.image_list import find_training_images, write_image_list

        options = CheckOptions(
            crop_px=crop,
            least_quality=min_quality,
            least_structure=min_structure,
            least_sharpness=min_sharpness,
            most_noise=max_noise,
        )
        if write_list is not None and write_list.exists() and not overwrite:
            raise OutputExists(f"{write_list} is there already: give another --write-list, or --overwrite")
        images = find_training_images(paths, root=root)
        with images_progress(messages, "checking", images) as on_image:
            checked = check_images(images, options, threads=threads or usable_cores(), on_image=on_image)
        write_faults(checked, options, json=json)
        for line in check_summary(checked, options):
            messages.say(line)
        if write_list is not None:
            write_image_list(write_list, [found.path for found in checked if found.fault is None])
            messages.say(f"the good ones are listed in {write_list}")
        if any(found.fault == "unreadable" for found in checked):
            raise typer.Exit(1)


@data.command(cls=CommandHelp, epilog=PREPARE_EXAMPLES)
def prepare(
    paths: Paths,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", show_default=False, help="Gets the files, all PNG.")
    ],
    scales: Annotated[
        str, typer.Option(metavar="LIST", help="Smaller versions of each image, T0, T1, ...; 'none' for none.")
    ] = SCALES,
    shortest: Annotated[
        int, typer.Option(metavar="PX", help="One more version, with this shortest side; 0 for none.")
    ] = CROP_PX,
    no_originals: Annotated[
        bool, typer.Option("--no-originals", help="Leave out the images at their own size.")
    ] = False,
    crop: Annotated[
        int, typer.Option(metavar="PX", help="Side of the squares that all are cut into; 0 leaves them whole.")
    ] = CROP_PX,
    step: Annotated[
        int | None,
        typer.Option(metavar="PX", show_default=False, help="From square to square. Default: half a square, 200."),
    ] = None,
    root: Root = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make smaller versions of images, and cut all into squares.

    The paper prepares its images like this: several sizes of one scene, and files that are quick to read. Files that
    exist are kept, and missing ones are made: the same command continues after a stop. The folder goes to stdout.

    Exit codes: 0 done, 1 an image cannot be read or a file not written, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from . import console

    messages = console.Messages(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        from realesr.machine.cgroup import usable_cores
        from realesr.train.data.image_list import find_training_images
        from realesr.train.data.prepare import PrepareOptions, named_sources, prepare_images

        options = PrepareOptions(
            factors=factors_in(scales),
            shortest_px=shortest,
            original=not no_originals,
            crop_px=crop,
            step_px=max(1, crop // 2) if step is None else step,
        )
        check_apart(output, paths)
        images = find_training_images(paths, root=root)
        sources = named_sources(images, paths, root=root)
        with images_progress(messages, "preparing", images) as on_image:
            prepared = prepare_images(sources, output, options, threads=threads or usable_cores(), on_image=on_image)
        for line in prepare_summary(prepared, options):
            messages.say(line)
        for error in prepared.failed:
            messages.error(error)
        console.result(str(output))
        if prepared.failed:
            raise typer.Exit(1)


@contextmanager
def images_progress(messages: Any, title: str, images: Sequence[Path]) -> Iterator[Callable[[Path], None]]:
    """Show progress by the sizes of the files; yields the callback for an image that is done."""
    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in images}  # links to nothing are told later
    total, done = sum(sizes.values()), 0
    with messages.progress(title, unit="bytes") as show_progress:

        def on_image(path: Path) -> None:
            nonlocal done
            done += sizes[path]
            show_progress(done, total)

        yield on_image


def write_faults(checked: Sequence["Checked"], options: "CheckOptions", *, json: bool) -> None:
    """Write the faults to stdout; with JSON, every image, with the limits that it was held against."""
    from . import console

    if json:
        for found in checked:
            console.json_line({**found.to_json(), "limits": vars(options)})
        return
    rows = [(str(found.path), str(found.fault), found.detail) for found in checked if found.fault is not None]
    if rows:
        console.table("Images with faults", ("image", "fault", "what it is"), rows)


def check_summary(checked: Sequence["Checked"], options: "CheckOptions") -> Iterator[str]:
    """Yield lines with the numbers of images, faults and crops, the limits, and whether the good ones are few."""
    good = [found for found in checked if found.fault is None]
    faults = Counter(found.fault for found in checked if found.fault is not None)
    counts = ", ".join(f"{count:,} {fault}" for fault, count in faults.items())
    yield f"{counted(len(checked), 'image')}, {megapixels(checked)}: {counts or 'no faults'}"
    yield (
        f"limits: sides of {options.crop_px} px, JPEG quality {options.least_quality}, structure "
        f"{options.least_structure:g}, sharpness {options.least_sharpness:g}, noise {options.most_noise:g} levels"
    )
    crop_px = options.crop_px
    crops = sum(found.crops(crop_px) for found in good)
    yield f"{len(good):,} good, {megapixels(good)}: room for {counted(crops, 'crop')} of {crop_px} px side by side"
    yield from few_images(len(good))


def few_images(good: int) -> Iterator[str]:
    """Yield lines that say where the images are too few to train on, or to validate on."""
    from realesr.train.data.hold_out import FEWEST_TELLING, HELD_OUT, held_out_count

    if good < FEWEST_IMAGES:
        yield f"fewer than {FEWEST_IMAGES} good images: enough for a trial, too few for a network of use"
    held_out = held_out_count(good, HELD_OUT)
    if held_out < FEWEST_TELLING:
        yield (
            f"training would hold out {counted(held_out, 'image')} to validate on: scores of fewer than "
            f"{FEWEST_TELLING} say little about others"
        )


def megapixels(checked: Sequence["Checked"]) -> str:
    """Return the size of all images together."""
    return f"{sum(found.pixels for found in checked) / 1e6:,.1f} MP"


def prepare_summary(prepared: "Prepared", options: "PrepareOptions") -> Iterator[str]:
    """Yield lines with the numbers of files that were written, kept and left out."""
    from realesr.train.data.image_list import named

    kept = f", {prepared.kept:,} were there already" if prepared.kept else ""
    yield f"{counted(prepared.written, 'file')} written{kept}"
    least = f"{options.crop_px} px" if options.crop_px else "they would be"
    if prepared.small_versions:
        yield f"{counted(prepared.small_versions, 'version')} left out: smaller than {least}"
    if prepared.too_small:
        count = counted(len(prepared.too_small), "image")
        yield f"{count} left out, smaller than {least}: {named(prepared.too_small)}"


def counted(count: int, name: str) -> str:
    """Return a number with its noun: "1 image", "2,000 images"."""
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def factors_in(text: str) -> tuple[float, ...]:
    """Parse numbers and fractions separated by commas; "none" is an empty tuple.

    Raises:
        UsageError: a part is neither a number nor a fraction.
    """
    from fractions import Fraction

    if text == "none":
        return ()
    try:
        return tuple(float(Fraction(part.strip())) for part in text.split(","))
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"got --scales {text}, expected numbers like {SCALES}, or none") from None


def check_apart(output: Path, paths: Sequence[Path]) -> None:
    """Check that the output would not be read as input the next time.

    Raises:
        UsageError: the output folder is one of the inputs, or lies below one.
    """
    for path in paths:
        if path.is_dir() and output.resolve().is_relative_to(path.resolve()):
            raise UsageError(f"got -o {output}, which lies in {path}, and would be read again: choose another folder")
