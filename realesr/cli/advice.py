"""Advice that the command line adds to errors of the library, which name options in words and never as flags."""

from collections.abc import Iterable
from pathlib import Path

from realesr.errors import RealesrError

from .names import one_line, quoted_names

ADVICE = {
    # NetworkOptions
    "model": "'realesr models' lists the names",
    "denoise": "--denoise sets it",
    "denoise_with": "--denoise-with names it",
    "engine": "--engine chooses it",
    "device": "--device chooses it",
    "precision": "--precision chooses it",
    "threads": "--threads sets it",
    "options": "--option sets it",
    "tile_px": "--tile sets it",
    "overlap_px": "--overlap sets it",
    "exact": "leave out --exact or --overlap",
    # ImageOptions
    "scale": "--scale sets it",
    "size": "--long-side, --short-side, --width, --height, --megapixels or --print sets one",
    "shrink": "--shrink resamples it down",
    "long_side_px": "--long-side sets it",
    "short_side_px": "--short-side sets it",
    "width_px": "--width sets it",
    "height_px": "--height sets it",
    "megapixels": "--megapixels sets it",
    "print_mm": "--print sets it",
    "alpha": "--alpha chooses it",
    "strength": "--strength sets it",
    # FileOptions
    "format": "--format chooses it",
    "quality": "--quality sets it",
    "overwrite": "--overwrite replaces it",
    "page": "--page chooses it",
    "region": "--region sets it",
    "allow_damaged": "--allow-damaged writes it all the same",
    "max_pixels": "--max-pixels sets the limit",
    # ExportOptions, and the command `export`
    "to": "--to chooses it",
    "output": "--output names another",
    "shape_nhw": "--shape sets it",
    "uint8": "leave out --uint8",
    "compute_capabilities": "'realesr export --for' sets it",
    "workspace_mb": "--workspace-mb sets it",
    "limit_minutes": "'realesr export --limit-minutes' sets the limit",
    "timing_cache": "--timing-cache sets it",
    "fp16": "leave out --fp16",
    # server.settings.ServerSettings
    "host": "--host sets it",
    "port": "--port sets it",
    "allowed_hosts": "--allow-host names it",
    "queue_length": "--queue sets it",
    "most_upload_bytes": "--max-upload sets it",
    "most_pixels": "--max-pixels sets it",
    "keep_seconds": "--keep sets it",
    "grace_seconds": "--grace sets it",
    # train.request.Request, and the command `train`
    "data": "--data names photos, --gt and --lq name pairs",
    "gt": "--gt and --lq name them",
    "val_gt": "--val-gt and --val-lq name them",
    "init": "--init names it",
    "init_d": "--init-d names it",
    "resume": "'realesr train resume' may change it",
    "out": "--out names it",
    "gpus": "--gpus sets it",
    "teacher": "--teacher names it",
    "cache": "--cache names it",
}
"""Option that would help -> how the command line sets it."""


def message_with_advice(error: RealesrError, about: Iterable[Path] = ()) -> str:
    """Return the error's message in one line, with the flag that would help.

    Names of the files in `about` are quoted where they are not printable.
    """
    message = one_line(quoted_names(str(error), about))
    return f"{message}; {ADVICE[error.option]}" if error.option in ADVICE else message
