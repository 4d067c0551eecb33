"""Previews of `realesr upscale`: one region of each photo, named by the user or the one with the most detail."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from realesr.cli.files import Found, Job
from realesr.errors import InputError
from realesr.images.output_format import PREVIEW_ENDING
from realesr.options import FileOptions


def named_as_previews(found: Iterable[Found]) -> list[Found]:
    """Return the images with names of outputs that end as those of previews do, where a template gives them."""
    return [
        image if image.target_name is None else replace(image, target_name=_preview_name(image.target_name))
        for image in found
    ]


def check_regions(jobs: Sequence[Job], file: FileOptions) -> None:
    """Raise UsageError where the region is not within one of the photos; files that cannot be read have their turn."""
    from realesr.images.crop import checked_region
    from realesr.images.reader import open_with

    if file.region is None:
        return
    for job in jobs:
        try:
            with open_with(job.source, file) as reader:
                checked_region(file.region, job.source, reader.info)
        except InputError:
            continue


def with_region(file: FileOptions, source: Path) -> FileOptions:
    """Return the options with the region of one photo: that of the user, else the one with the most detail.

    Raises:
        InputError: the photo cannot be read.
    """
    from realesr.images.detail import most_detailed_region
    from realesr.images.reader import open_with

    if file.region is not None:
        return file
    with open_with(source, file) as reader:
        return replace(file, region=most_detailed_region(reader))


def _preview_name(name: str) -> str:
    path = Path(name)
    return f"{path.stem}{PREVIEW_ENDING}{path.suffix}"
