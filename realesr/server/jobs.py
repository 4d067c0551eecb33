"""One image on its way through the server: what was asked, how far it is, and what came of it."""

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .file_names import MOST_CHARS
from .job_options import JobOptions
from .tile_grid import TILE_PX, highest_level

State = Literal["queued", "running", "done", "failed", "cancelled"]

MEDIA_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "tiff": "image/tiff",
    "webp": "image/webp",
    "avif": "image/avif",
}
"""Format of a result -> its media type."""
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif", "webp": ".webp", "avif": ".avif"}
"""Format of a result -> suffix of the name that it is downloaded by."""


def new_id() -> str:
    """Return an id that nobody can guess: 128 random bits, as 22 characters of URLs."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job failed, or was cancelled by somebody else than its client."""

    message: str
    kind: str
    """Name of the class of the error: "InputError", "UsageError", "ChildDied", ..."""
    option: str | None = None
    """Option that would help, such as "format"."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """The result of a job that is done."""

    width_px: int
    height_px: int
    format: str
    """ "png", "jpeg", "tiff", "webp" or "avif"."""
    bytes: int

    @property
    def media_type(self) -> str:
        """Return the media type, such as "image/png"."""
        return MEDIA_TYPES[self.format]

    def to_json(self) -> dict[str, Any]:
        """Return what a client is told; tiles are those of `realesr.server.tile_grid`."""
        return {
            "width": self.width_px,
            "height": self.height_px,
            "format": self.format,
            "bytes": self.bytes,
            "tile_px": TILE_PX,
            "highest_level": highest_level(self.width_px, self.height_px),
        }


@dataclass(eq=False, kw_only=True)
class Job:
    """One image on its way. The queue alone changes it, once it has been submitted."""

    owner: str
    """Id of the browser that sent it; empty for clients that have none."""
    folder: Path
    """Folder of its files, which nothing else uses."""
    name: str = "image"
    """What the upload was called: for people, and for the name of the download; never a path."""
    options: JobOptions = field(default_factory=JobOptions)
    id: str = field(default_factory=new_id)
    created: float = field(default_factory=time.time)
    """In seconds since 1970."""
    queued_s: float = 0.0
    """When it was submitted, by the monotonic clock; likewise `ended_s`."""
    ended_s: float | None = None
    state: State = "queued"
    place: int | None = None
    """Place among the waiting jobs: 1 is next."""
    input_px: tuple[int, int] | None = None
    """Width and height of the upright input."""
    work_px: int = 0
    """Pixels that the network reads, over all passes."""
    pixels_done: int = 0
    pixels_total: int = 0
    estimate_seconds: float | None = None
    """Of the network's work, by its measured speed."""
    seconds_left: float | None = None
    fetching: dict[str, Any] | None = None
    """Download of the network's weights: model, bytes done, bytes in all (0 where that is not known)."""
    model: str | None = None
    """Network that runs; it may stand in for the default one."""
    seconds: float | None = None
    """Wall time of the job that is done, without waiting."""
    notices: tuple[str, ...] = ()
    error: JobError | None = None
    output: Output | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set at each change, and then replaced by another one."""
    over: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set once the job is done, failed or cancelled."""
    given_up: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set once no process works on the job any more."""

    @property
    def source(self) -> Path:
        """Return where the upload is, or belongs."""
        return self.folder / "source"

    @property
    def result(self) -> Path:
        """Return where the result is, once the job is done."""
        return self.folder / "result"

    @property
    def is_over(self) -> bool:
        """Return whether nothing will change any more."""
        return self.over.is_set()

    @property
    def share(self) -> float:
        """Return the share that is done, 0 to 1."""
        if self.state == "done":
            return 1.0
        return self.pixels_done / self.pixels_total if self.pixels_total else 0.0

    @property
    def download_name(self) -> str:
        """Return the name of the result: that of the upload with what was done to it, and the suffix of its format."""
        stem = self.name.rpartition(".")[0] or self.name
        ending = self.options.image_options.ending
        if ending is None and self.output and self.input_px:
            ending = f"x{self.output.width_px / self.input_px[0]:.2g}"
        tail = f"_{ending or 'enlarged'}" + (SUFFIXES[self.output.format] if self.output else "")
        return stem[: MOST_CHARS - len(tail)] + tail

    def mark_changed(self) -> None:
        """Wake those who watch the job."""
        self.changed.set()
        self.changed = asyncio.Event()

    def in_public_words(self, text: str) -> str:
        """Return a message without paths of this machine: the upload has its name, and the result is called so."""
        for path, words in ((self.source, self.name), (self.result, "the result")):
            text = text.replace(str(path), words)
        return text.replace(f"{self.folder}/", "").replace(str(self.folder), "the server's folder")

    def to_json(self) -> dict[str, Any]:
        """Return what clients are told."""
        width, height = self.input_px or (None, None)
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "place": self.place,
            "share": round(self.share, 4),
            "pixels_done": self.pixels_done,
            "pixels_total": self.pixels_total,
            "seconds_left": _tenths(self.seconds_left),
            "estimate_seconds": _tenths(self.estimate_seconds),
            "created": round(self.created, 3),
            "error": {"message": self.error.message, "kind": self.error.kind} if self.error else None,
            "notices": list(self.notices),
            "options": self.options.to_json(),
            "input": None if width is None else {"width": width, "height": height},
            "output": self.output.to_json() if self.output else None,
            "model": self.model,
            "seconds": self.seconds,
            "fetching": self.fetching,
        }


def _tenths(seconds: float | None) -> float | None:
    """Return a time in tenths of a second; an estimate is not known better."""
    return None if seconds is None else round(seconds, 1)
