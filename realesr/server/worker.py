"""The process that runs networks: `python -m realesr.server.worker OPTIONS`, a child of the server.

{"do": "upscale", "source", "target", "options", "most_pixels"}
    {"download": [done, total], "model": name}     while weights are fetched
    {"model": name, "speed": seconds per pixel}    once the network is open; without a speed on a GPU
    {"progress": [done, total]}                    in pixels of the network's input
    {"done": {"model", "input_px", "output_px", "format", "bytes", "seconds", "notices", "engine", "device"}}
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr.errors import OutOfMemory, RealesrError
from realesr.options import FileOptions, NetworkOptions
from realesr.progress import AmountCallback

from .job_options import JobOptions
from .server_link import Request, ServerLink

if TYPE_CHECKING:
    from realesr.api import Upscaler
    from realesr.runtime.file_job import UpscaleResult

SECONDS_BETWEEN_ANSWERS = 0.1
"""Progress is told no more often."""
SECONDS_BEFORE_NEXT_FETCH = 300.0
"""How long another network stands in for the default one that could not be fetched, before that is tried again."""


def main() -> None:
    """Answer the server's requests; the command line has the options of all networks, as JSON."""
    link = ServerLink()
    networks = OpenNetworks(NetworkOptions(**json.loads(sys.argv[1])))
    try:
        link.serve({"upscale": lambda request: _upscale(request, link, networks)})
    finally:
        networks.close()


class OpenNetworks:
    """The networks that are open: one, and others as long as there is memory for them."""

    def __init__(self, options: NetworkOptions) -> None:
        """Open nothing yet; `options` are those of all networks."""
        self._options = options
        self._open: dict[str | None, Upscaler] = {}
        self._next_fetch_s = 0.0
        """By the monotonic clock."""

    def get(self, model: str | None, on_download: AmountCallback) -> "Upscaler":
        """Return the open network of this name; None is the default one, or what stands in for it.

        Args:
            model: name of the network, which is fetched where it is not on disk.
            on_download: called with the bytes of the download, first with 0, before anything is asked for.

        Raises:
            ModelError: the network is unknown or cannot be had; the message has no path of this machine.
            EngineError: the engine cannot run here.
        """
        found = self._open.get(model)
        if found and found.substitution and time.monotonic() >= self._next_fetch_s:
            self._open.pop(model).close()
        if model not in self._open:
            try:
                self._open[model] = self._opened(model, on_download)
            except OutOfMemory:
                if not self.close_others(model):
                    raise
                self._open[model] = self._opened(model, on_download)
            if self._open[model].substitution:
                self._next_fetch_s = time.monotonic() + SECONDS_BEFORE_NEXT_FETCH
        return self._open[model]

    def _opened(self, model: str | None, on_download: AmountCallback) -> "Upscaler":
        """Return a network that is opened now; see `get`."""
        from realesr.api import Upscaler

        options = replace(self._options, model=model)
        try:
            _tell_fetch(options, on_download)
            return Upscaler.from_options(options, on_download)
        except RealesrError as error:
            raise type(error)(_in_public_words(str(error)), option=error.option) from error

    def close_others(self, model: str | None) -> bool:
        """Close all networks but this one, to free memory; return whether there were any."""
        others = [name for name in self._open if name != model]
        for name in others:
            self._open.pop(name).close()
        return bool(others)

    def close(self) -> None:
        """Close all networks."""
        for upscaler in self._open.values():
            upscaler.close()
        self._open.clear()


def _upscale(request: Request, link: ServerLink, networks: OpenNetworks) -> dict[str, Any]:
    """Enlarge one file, and return the facts of its result."""
    from realesr.images.kinds import find_kind

    source, target = Path(request["source"]), Path(request["target"])
    options = JobOptions.from_json(request["options"])
    upscaler = networks.get(options.model, _download_callback(options.model, link))
    link.say({"model": upscaler.options.model} | _speed(upscaler))
    file = replace(_file_options(options, source), max_pixels=request["most_pixels"])

    def enlarge() -> "UpscaleResult":
        on_progress = _amount_callback(link, lambda done, total: {"progress": [done, total]})
        return upscaler.upscale_file(source, target, image=options.image_options, file=file, on_progress=on_progress)

    try:
        result = enlarge()
    except OutOfMemory:
        if not networks.close_others(options.model):
            raise
        result = enlarge()
    return {
        "model": result.model,
        "input_px": result.input_px,
        "output_px": result.output_px,
        "format": find_kind(target),
        "bytes": target.stat().st_size,
        "seconds": result.seconds,
        "notices": [_in_public_words(notice) for notice in result.notices],
        "engine": result.engine,
        "device": result.device,
    }


def _tell_fetch(options: NetworkOptions, on_download: AmountCallback) -> None:
    """Tell of a download that is about to begin: until its server answers, or says no, a minute may pass."""
    from realesr.models.zoo import DEFAULT_MODEL, ZOO, find_file

    entry = ZOO.get(options.model or DEFAULT_MODEL)
    if entry and entry.url and options.engine != "nearest" and find_file(entry) is None:
        on_download(0, entry.bytes or 0)


def _in_public_words(text: str) -> str:
    """Return a message about a network without the folders of this machine, which are nothing for clients to know."""
    from realesr.models.zoo import cache_folder

    text = text.replace(str(cache_folder()), "the server's cache")
    for folder in filter(None, os.environ.get("REALESR_MODELS", "").split(os.pathsep)):
        text = text.replace(str(Path(folder).expanduser()), "the server's REALESR_MODELS")
    return text


def _speed(upscaler: "Upscaler") -> dict[str, float]:
    """Return the network's speed, measured once a network, as part of an answer; nothing on a GPU."""
    speed = upscaler.seconds_per_px
    return {} if speed is None else {"speed": speed}


def _file_options(options: JobOptions, source: Path) -> FileOptions:
    """Return how the file is written; a quality is left out where the format follows the input and has none."""
    from realesr.images.kinds import find_kind
    from realesr.images.output_format import DEFAULT_QUALITY, output_format

    file = replace(options.file_options, overwrite=True)
    if file.format is None and output_format(find_kind(source), None, None) not in DEFAULT_QUALITY:
        return replace(file, quality=None)
    return file


def _amount_callback(link: ServerLink, answer: Callable[[int, int], dict[str, Any]]) -> AmountCallback:
    """Return a callback that tells the server an amount now and then, and ends the run once that is cancelled.

    Args:
        link: to the server.
        answer: returns what is told of so much done and so much in all.
    """
    told = 0.0

    def on_amount(done: int, total: int) -> None:
        nonlocal told
        link.check()
        now = time.monotonic()
        if now - told >= SECONDS_BETWEEN_ANSWERS or done == total:
            told = now
            link.say(answer(done, total))

    return on_amount


def _download_callback(model: str | None, link: ServerLink) -> AmountCallback:
    """Return the callback of a download, which tells the name of the network, too."""
    from realesr.models.zoo import DEFAULT_MODEL

    name = model or DEFAULT_MODEL
    return _amount_callback(link, lambda done, total: {"download": [done, total], "model": name})


if __name__ == "__main__":
    main()
