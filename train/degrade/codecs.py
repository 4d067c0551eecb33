"""Encodes and decodes WebP and AVIF by Pillow and H.264 by PyAV: on the CPU, one image after the other.

For a GPU this is a round trip over the host, which waits for it; so both are off in the recipes that ship.
"""

import io
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realesr.errors import MissingDependency
from realesr.train.degrade.filters import to_device
from realesr.train.degrade.recipe import DegradeRecipe


def check_codecs(recipe: DegradeRecipe) -> None:
    """Raise where images cannot be encoded as a recipe wants it, before a run that would come to it later.

    Raises:
        MissingDependency: a codec is not installed.
    """
    for codec in ("webp", "avif"):
        if getattr(recipe, codec):
            _check_pillow(codec)
    if recipe.h264:
        check_h264()


def recompress(image: Tensor, codec: Literal["webp", "avif"], quality: float) -> Tensor:
    """Encode an image into memory and decode it.

    Args:
        image: (3, H, W) float32 RGB in [0, 1]; rounded to 8 bits. WebP takes up to 16383 px a side.
        codec: of the file.
        quality: 1 to 100, rounded to a whole number.

    Returns:
        (3, H, W) float32 in [0, 1], multiples of 1/255, on the image's device.

    Raises:
        MissingDependency: this Pillow was built without the codec.
    """
    from PIL import Image

    _check_pillow(codec)
    file = io.BytesIO()
    Image.fromarray(_as_bytes(image)).save(file, codec.upper(), quality=round(quality))
    with Image.open(file) as again:
        restored = np.array(again.convert("RGB"))
    return _as_floats(restored, image)


def recompress_h264(image: Tensor, crf: float) -> Tensor:
    """Encode an image as the only frame of an H.264 video, and decode it.

    The frame is an intra frame of YUV 4:2:0, BT.601 in limited range, encoded by one thread, so that the same version
    of x264 gives the same pixels. Odd sides are extended by a pixel for the encoder, as 4:2:0 has half of them.

    Args:
        image: (3, H, W) float32 RGB in [0, 1]; rounded to 8 bits.
        crf: constant rate factor of x264, 0 to 51.

    Returns:
        (3, H, W) float32 in [0, 1], multiples of 1/255, on the image's device.

    Raises:
        MissingDependency: PyAV is not installed, or was built without x264.
    """
    check_h264()
    import av

    pixels = _as_bytes(image)
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = even.shape[1], even.shape[0], "yuv420p"
    encoder.time_base, encoder.thread_count = Fraction(1, 25), 1
    encoder.options = {"crf": f"{crf:.4f}", "preset": "medium", "threads": "1"}
    frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    decoder = av.CodecContext.create("h264", "r")
    frames = [each for packet in packets for each in decoder.decode(packet)] + list(decoder.decode(None))
    degraded = np.asarray(frames[0].to_ndarray(format="rgb24"), np.uint8)
    return _as_floats(degraded[:height, :width], image)


def check_h264() -> None:
    """Raise where images cannot be encoded as H.264.

    Raises:
        MissingDependency: PyAV is not installed, or was built without x264.
    """
    try:
        import av

        av.codec.Codec("libx264", "w")
    except ImportError:
        raise MissingDependency("H.264 needs the package av: pip install av, or set degrade.h264 = 0") from None
    except ValueError:
        raise MissingDependency(
            "this PyAV has no x264: pip install --force-reinstall --only-binary av av, or set degrade.h264 = 0"
        ) from None


def _check_pillow(codec: str) -> None:
    from PIL import features

    if not features.check(codec):
        raise MissingDependency(
            f"this Pillow has no {codec.upper()}: pip install --force-reinstall pillow, or set degrade.{codec} = 0"
        )


def _as_bytes(image: Tensor) -> NDArray[np.uint8]:
    pixels = (image.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(pixels)


def _as_floats(pixels: NDArray[np.uint8], like: Tensor) -> Tensor:
    """Return (H, W, 3) bytes as (3, H, W) in [0, 1] on the device of `like`."""
    there = to_device(torch.from_numpy(np.ascontiguousarray(pixels)), like.device)
    return there.permute(2, 0, 1).float() / 255
