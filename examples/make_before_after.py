"""Makes before_after.jpg, the picture on the README's first screen, from the sample photo export/portrait.jpg.

    .venv/bin/python examples/make_before_after.py

Left: the sample photo enlarged four times by bicubic interpolation. Right: by `realesr.upscale`, with nothing done to
it afterwards.
"""

from pathlib import Path

from PIL import Image

import realesr

SAMPLE_PHOTO = Path(__file__).parents[1] / "export" / "portrait.jpg"
GAP_PX = 8
JPEG_QUALITY = 85


def main() -> None:
    """Write before_after.jpg beside this file."""
    target = Path(__file__).with_name("before_after.jpg")
    with Image.open(SAMPLE_PHOTO) as photo:
        small = photo.convert("RGB")
    after = realesr.upscale(small, scale=4)
    before = small.resize(after.size, Image.Resampling.BICUBIC)
    side_by_side(before, after).save(target, quality=JPEG_QUALITY)
    print(target)


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Return two RGB images of one size beside each other, with a white gap."""
    both = Image.new("RGB", (left.width + GAP_PX + right.width, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP_PX, 0))
    return both


if __name__ == "__main__":
    main()
