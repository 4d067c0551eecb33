"""The process that runs networks: `python -m realesr.server.worker OPTIONS`, a child of the server.

{"do": "upscale", "source", "target", "options", "most_pixels"}
    {"download": [done, total], "model": name}     while weights are fetched
    {"model": name, "speed": seconds per pixel}    once the network is open; without a speed on a GPU
    {"progress": [done, total]}                    in pixels of the network's input
    {"done": {"model", "input_px", "output_px", "format", "bytes", "seconds", "notices", "engine", "device"}}
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr.errors import OutOfMemory
from realesr.options import FileOptions, NetworkOptions
from realesr.progress import AmountCallback

from .job_options import JobOptions
from .server_link import Request, ServerLink

if TYPE_CHECKING:
    from realesr.api import Upscaler
    from realesr.runtime.file_job import UpscaleResult

SECONDS_BETWEEN_ANSWERS = 0.1
"""Progress is told no more often."""


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

    def get(self, model: str | None, on_download: Callable[[int, int], None]) -> "Upscaler":
        """Return the open network of this name; None is the default one.

        Raises:
            ModelError: the network is unknown or cannot be had.
            EngineError: the engine cannot run here.
        """
        from realesr.api import Upscaler

        if model not in self._open:
            options = replace(self._options, model=model)
            try:
                self._open[model] = Upscaler.from_options(options, on_download)
            except OutOfMemory:
                if not self.close_others(model):
                    raise
                self._open[model] = Upscaler.from_options(options, on_download)
        return self._open[model]

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
        "notices": result.notices,
        "engine": result.engine,
        "device": result.device,
    }


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
