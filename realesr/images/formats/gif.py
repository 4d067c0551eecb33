"""Opens GIF files."""

from pathlib import Path

from realesr.images.decoded import Decoded, ReadOptions, check_page, field, load_upright
from realesr.images.file_source import FileSource


def open_gif(path: Path, options: ReadOptions) -> Decoded:
    """Open a frame of a GIF file, the first by default.

    Raises:
        InputError: too large, or there is no such frame.
        pyvips.Error: damaged.
    """
    with FileSource(path) as source:
        header = source.load("gifload")
    check_page(path, options.page, field(header, "n-pages") or 1)
    image, source = load_upright(path, "gifload", 1, options, **({"page": options.page} if options.page else {}))
    return Decoded(
        image=image,
        space="grey" if image.bands < 3 else "rgb",
        has_alpha=image.bands in (2, 4),
        bits=8,
        xmp=field(header, "xmp-data"),
        sources=(source,),
    )
