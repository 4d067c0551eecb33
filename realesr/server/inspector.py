"""The process that looks at files: `python -m realesr.server.inspector`, a child of the server.

    {"do": "models"}                                                 {"done": {"models": [...]}}
    {"do": "check_model", "model"}                                   {"done": {}}
    {"do": "probe", "source", "options", "most_pixels", ...}         {"done": {"width", "height", "kind", ...}}
    {"do": "display", "source", "target", "most_px"}                 {"done": {}}
    {"do": "tile", "source", "target", "folder", "side", "size", "level", "x", "y"}     {"done": {}}

Uploads are read as everywhere in realesr: their content decides which of nine formats they are, and libvips is asked
for that format's loader by name, with its untrusted loaders blocked.
"""

from pathlib import Path
from typing import Any

from realesr.errors import InputError, UsageError

from .job_options import JobOptions
from .server_link import Request, ServerLink


def main() -> None:
    """Answer the server's requests."""
    import realesr.images.reader  # now, not at the first upload
    import realesr.runtime.pipeline  # noqa: F401

    link = ServerLink()
    link.serve(
        {
            "models": lambda _: {"models": _models()},
            "check_model": _check_model,
            "probe": _probe,
            "display": _display,
            "tile": _tile,
        }
    )


def _models() -> list[dict[str, Any]]:
    """Return the networks that may be asked for: those of the zoo, and those that were pulled."""
    from realesr.models.pulled import pulled_networks
    from realesr.models.zoo import DEFAULT_MODEL, ZOO, find_file

    released = [
        {
            "name": entry.name,
            "scale": entry.scale,
            "purpose": entry.purpose,
            "licence": entry.licence,
            "bytes": entry.bytes,
            "on_disk": find_file(entry) is not None,
            "is_default": entry.name == DEFAULT_MODEL,
        }
        for entry in ZOO.values()
    ]
    pulled = [
        {
            "name": network.name,
            "scale": network.network.scale,
            "purpose": network.tags,
            "licence": network.licence,
            "bytes": network.bytes,
            "on_disk": True,
            "is_default": False,
        }
        for network in pulled_networks()
        if network.name not in ZOO
    ]
    return released + pulled


def _scale_of(model: str | None) -> int:
    """Return the scale of a network that may be asked for; raise UsageError for any other name."""
    from realesr.models.pulled import find_pulled
    from realesr.models.zoo import DEFAULT_MODEL, ZOO, near_names

    name = model or DEFAULT_MODEL
    if name in ZOO:
        return ZOO[name].scale
    pulled = find_pulled(name)
    if pulled is None:
        raise UsageError(f"got model {name!r}, expected one of {', '.join(near_names(name))}", option="model")
    return pulled.network.scale


def _check_model(request: Request) -> dict[str, Any]:
    """Raise UsageError where there is no network of this name."""
    _scale_of(request["model"])
    return {}


def _probe(request: Request) -> dict[str, Any]:
    """Return an upload's size and kind, the size of its result, and the pixels that the network has to read."""
    from realesr.images.kinds import find_kind
    from realesr.images.reader import open_image
    from realesr.runtime.pipeline import check_target_size, sizes_for

    source, options = Path(request["source"]), JobOptions.from_json(request["options"])
    scale, image = _scale_of(options.model), options.image_options
    with open_image(source, max_pixels=request["most_pixels"]) as reader:
        info = reader.info
    check_target_size(info, image, str(source))
    sizes = sizes_for(info, scale, image)
    height, width = sizes.output
    if width * height > request["most_result_pixels"]:
        raise InputError(
            f"{source} would come to {width} x {height} px, expected at most "
            f"{request['most_result_pixels'] / 1e6:,.0f} megapixels: choose a smaller scale or size"
        )
    work_px = sum(high * wide for high, wide in (sizes.before_pass(index, scale) for index in range(sizes.passes)))
    return {
        "width": info.width_px,
        "height": info.height_px,
        "kind": find_kind(source),
        "work_px": work_px * (2 if info.has_alpha else 1),
        "output": [width, height],
    }


def _display(request: Request) -> dict[str, Any]:
    """Write an image as a JPEG file for the screen."""
    from .displaying import write_display

    write_display(Path(request["source"]), Path(request["target"]), request["most_px"])
    return {}


def _tile(request: Request) -> dict[str, Any]:
    """Write one tile of an image that is shown at `size`, enlarged where it is smaller."""
    from .displaying import write_pyramid, write_tile
    from .tile_grid import level_size, tile_box

    width, height = request["size"]
    box = tile_box(width, height, request["level"], request["x"], request["y"])
    pyramid = Path(request["folder"]) / f"{request['side']}.pyramid"
    if not pyramid.exists():
        write_pyramid(Path(request["source"]), pyramid)
    write_tile(pyramid, Path(request["target"]), level_size(width, height, request["level"]), box)
    return {}


if __name__ == "__main__":
    main()
