"""Makes export/portrait.jpg, the sample photo: a sharp portrait, damaged the way old pictures on the web are.

    .venv/bin/python examples/make_portrait.py

Needs scikit-image, whose package holds the original (it comes with the `dev` extra). Always makes the same pixels.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

SOURCE_BOX_XYXY = (112, 8, 304, 248)
"""Head and collar in the 512 x 512 px original."""
SIZE_PX = (160, 200)
BLUR_PX = 0.5
NOISE_LEVELS = 3.0
"""Standard deviation in 8-bit levels."""
JPEG_QUALITY = 50


def main() -> None:
    """Write export/portrait.jpg."""
    target = Path(__file__).parents[1] / "export" / "portrait.jpg"
    target.write_bytes(portrait_jpeg())
    print(target)


def portrait_jpeg() -> bytes:
    """Return the sample photo as a JPEG file: cropped, blurred, shrunk, noisy, compressed hard."""
    shrunk = original().crop(SOURCE_BOX_XYXY).resize(SIZE_PX, Image.Resampling.BICUBIC)
    blurred = shrunk.filter(ImageFilter.GaussianBlur(BLUR_PX))
    buffer = io.BytesIO()
    with_noise(blurred).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def original() -> Image.Image:
    """Return the photograph as scikit-image ships it: 512 x 512 px, 8-bit RGB."""
    from skimage import data

    return Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]


def with_noise(image: Image.Image) -> Image.Image:
    """Return the image with Gaussian noise on every channel, the same on every call."""
    noise = np.random.default_rng(2026).normal(0.0, NOISE_LEVELS, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).round().astype(np.uint8))


if __name__ == "__main__":
    main()
