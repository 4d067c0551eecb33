"""Applies a drawn degradation: deterministic, on the device of its input, without waiting for a GPU.

    blur -> resize -> noise -> JPEG     first stage
    blur -> resize -> noise             second stage
    resize -> sinc -> JPEG              or JPEG -> resize -> sinc
    motion blur -> oversharpen -> H.264 where the recipe asks for them; off in those that ship
    rounded to 8 bits

Python decides on drawn values alone, never on pixels. Source of the order: Real-ESRGAN (Wang et al. 2021), 3.2 to 3.4;
realesrgan/models/realesrgan_model.py, feed_data.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from realesr.errors import UsageError
from realesr.train.degrade.codecs import recompress, recompress_h264
from realesr.train.degrade.degradation import Arithmetic, CodecDraw, Degradation, KernelDraw, NoiseDraw, SampleDraw
from realesr.train.degrade.filters import filter_batch
from realesr.train.degrade.jpeg import compress, compress_faithful
from realesr.train.degrade.kernels import kernels_of, motion_kernels, unsharp_kernels
from realesr.train.degrade.noise import add_noise
from realesr.train.degrade.resizing import first_resize, resize


def apply(hr: Tensor, degradation: Degradation) -> Tensor:
    """Degrade a batch.

    Args:
        hr: (N, 3, H, W) float32 RGB in [0, 1], as sharp as the recipe of training wants it.
        degradation: drawn for N images of this size.

    Returns:
        (N, 3, H // scale, W // scale) float32 in [0, 1], multiples of 1/255, without gradients. The same input
        gives the same pixels, and so does each sample with its slice of the degradation; fields of noise on a CPU and
        on a GPU differ. Only samples with WebP, AVIF or H.264 wait for a GPU.

    Raises:
        UsageError: a batch of another number or size of images, or of another type.
        MissingDependency: a codec that was drawn is not installed.
    """
    _check_batch(hr, degradation)
    with torch.no_grad(), _exact_float32(hr.device):
        parts, start = [], 0
        for _, group in itertools.groupby(degradation, key=lambda sample: sample.shared):
            samples = list(group)
            images = hr[start : start + len(samples)]
            parts.append(_degrade(images, samples, degradation))
            start += len(samples)
        return torch.cat(parts) if parts else hr.new_empty((0, 3, *degradation.lr_px))


def crop_pair(lr: Tensor, hr: Tensor, degradation: Degradation, crop_px: int) -> tuple[Tensor, Tensor]:
    """Cut what was drawn out of both images of each pair.

    Args:
        lr: (N, C, h, w).
        hr: (N, C, H, W); the HR corner lies at scale times the LR corner.
        degradation: drawn for these pairs with `crop_px`.
        crop_px: side in HR px.

    Returns:
        (N, C, crop_px // scale, crop_px // scale) and (N, C, crop_px, crop_px).

    Raises:
        UsageError: no crops were drawn, or of another size.
    """
    scale, corners = degradation.scale, [sample.crop_yx for sample in degradation]
    if degradation.crop_px != crop_px or len(lr) != len(corners) or len(hr) != len(corners):
        raise UsageError(
            f"got {len(hr)} pairs to crop to {crop_px} px, expected the {len(corners)} that crops of "
            f"{degradation.crop_px} px were drawn for: give draw the same crop_px"
        )
    small, large = [], []
    for at, corner in enumerate(corners):
        top, left = corner or (0, 0)
        side = crop_px // scale
        small.append(lr[at, :, top : top + side, left : left + side])
        top, left = top * scale, left * scale
        large.append(hr[at, :, top : top + crop_px, left : left + crop_px])
    if not small:
        return lr[..., : crop_px // scale, : crop_px // scale], hr[..., :crop_px, :crop_px]
    return torch.stack(small), torch.stack(large)


def _check_batch(hr: Tensor, degradation: Degradation) -> None:
    expected = (len(degradation), 3, *degradation.hr_px)
    if tuple(hr.shape) != expected or hr.dtype != torch.float32:
        raise UsageError(
            f"got a batch of {tuple(hr.shape)} in {hr.dtype}, expected {expected} in torch.float32, as was drawn for"
        )


@contextmanager
def _exact_float32(device: torch.device) -> Iterator[None]:
    """Run filters and DCTs in full float32, whatever the networks run in, and search for no fastest convolution: sizes
    seldom come again."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    can_autocast = torch.amp.is_autocast_available(device.type)
    try:
        with (
            torch.autocast(device.type, enabled=False) if can_autocast else nullcontext(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _degrade(images: Tensor, samples: Sequence[SampleDraw], degradation: Degradation) -> Tensor:
    """Degrade one group: samples of the same sizes and order of steps."""
    shared, arithmetic = samples[0].shared, degradation.arithmetic
    images = _blur(images, [sample.first.blur for sample in samples])
    images = first_resize(images, shared.first_resize, arithmetic)
    images = _noise(images, [sample.first.noise for sample in samples], degradation)
    images = _recode(images, [sample.first.codec for sample in samples], arithmetic)
    images = _blur(images, [sample.second.blur for sample in samples])
    images = resize(images, shared.second_resize, arithmetic)
    images = _noise(images, [sample.second.noise for sample in samples], degradation)
    codecs, sincs = [sample.second.codec for sample in samples], [sample.final_sinc for sample in samples]
    if shared.codec_first:
        images = _blur(resize(_recode(images, codecs, arithmetic), shared.final_resize, arithmetic), sincs)
    else:
        images = _recode(_blur(resize(images, shared.final_resize, arithmetic), sincs), codecs, arithmetic)
    images = _later_steps(images, samples)
    return (images * 255).round().clamp(0, 255) / 255


def _later_steps(images: Tensor, samples: Sequence[SampleDraw]) -> Tensor:
    """Do what comes after the final steps: motion, a camera's sharpening, a video's codec, in the order of a camera."""
    if any(sample.motion for sample in samples):
        images = filter_batch(images.clamp(0, 1), motion_kernels([sample.motion for sample in samples]))
    if any(sample.oversharpen for sample in samples):
        images = filter_batch(images.clamp(0, 1), unsharp_kernels([sample.oversharpen for sample in samples]))
    draws = [sample.h264 for sample in samples]
    if any(draws):
        pairs = zip(images, draws, strict=True)
        images = torch.stack([image if draw is None else recompress_h264(image, draw.crf) for image, draw in pairs])
    return images


def _blur(images: Tensor, kernels: Sequence[KernelDraw | None]) -> Tensor:
    return images if not any(kernels) else filter_batch(images, kernels_of(kernels))


def _noise(images: Tensor, draws: Sequence[NoiseDraw | None], degradation: Degradation) -> Tensor:
    return add_noise(images, draws, arithmetic=degradation.arithmetic, photons=degradation.photons)


def _recode(images: Tensor, draws: Sequence[CodecDraw | None], arithmetic: Arithmetic) -> Tensor:
    """Clamp, then encode and decode each sample by its codec."""
    images = images.clamp(0, 1)
    jpeg = [at for at, draw in enumerate(draws) if draw is not None and draw.codec == "jpeg"]
    if len(jpeg) == len(draws):
        return _jpeg(images, [draw for draw in draws if draw is not None], arithmetic)
    recoded = list(images)
    if jpeg:
        chosen = [draw for draw in draws if draw is not None and draw.codec == "jpeg"]
        for at, image in zip(jpeg, _jpeg(torch.stack([images[at] for at in jpeg]), chosen, arithmetic), strict=True):
            recoded[at] = image
    for at, draw in enumerate(draws):
        if draw is not None and draw.codec != "jpeg":
            recoded[at] = recompress(images[at], draw.codec, draw.quality)
    return torch.stack(recoded)


def _jpeg(images: Tensor, draws: Sequence[CodecDraw], arithmetic: Arithmetic) -> Tensor:
    quality = torch.tensor([draw.quality for draw in draws], dtype=torch.float32)
    if arithmetic == "faithful":
        return compress_faithful(images, quality)
    return compress(images, quality, [draw.subsampling for draw in draws])
