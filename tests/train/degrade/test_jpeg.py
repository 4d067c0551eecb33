"""Compares JPEG with libjpeg through Pillow, on photos that were never compressed (scikit-image has them)."""

import functools
import io
from collections.abc import Iterator

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from realesr.train.degrade.degradation import Subsampling
from realesr.train.degrade.jpeg import compress, compress_faithful, tables
from realesr.train.degrade.jpeg_tables import CHROMA_TABLE, LUMA_TABLE

QUALITIES = (5, 30, 50, 75, 95)
SUBSAMPLINGS: dict[Subsampling, int] = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
CROPS = {
    "astronaut": (60, 100, 256, 256),
    "coffee": (80, 200, 256, 256),
    "chelsea": (20, 120, 256, 256),
    "immunohistochemistry": (100, 100, 100, 100),
    "astronaut odd": (0, 150, 97, 61),
    "coffee odd": (150, 100, 61, 97),
}


@functools.cache
def crop(name: str) -> np.ndarray:
    top, left, height, width = CROPS[name]
    photo = getattr(skimage.data, name.split()[0])()
    return np.ascontiguousarray(photo[top : top + height, left : left + width])


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def levels(images: torch.Tensor) -> np.ndarray:
    return (images[0] * 255).round().permute(1, 2, 0).numpy()


def by_libjpeg(pixels: np.ndarray, quality: int, subsampling: Subsampling = "4:2:0") -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=SUBSAMPLINGS[subsampling])
    return np.asarray(Image.open(file)).astype(np.float64)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a - b) ** 2), 1e-9)))


def agreement(name: str, subsampling: Subsampling) -> Iterator[float]:
    """Return the PSNR between libjpeg's pixels and ours, quality by quality."""
    for quality in QUALITIES:
        ours = compress(tensor(crop(name)), torch.tensor([float(quality)]), [subsampling])
        yield psnr(levels(ours), by_libjpeg(crop(name), quality, subsampling))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_it_agrees_with_libjpeg_at_every_quality_and_subsampling(subsampling: Subsampling) -> None:
    found = [value for name in CROPS for value in agreement(name, subsampling)]
    assert min(found) >= 40
    assert np.mean(found) >= 50


@pytest.mark.parametrize("quality", QUALITIES)
def test_grey_agrees_with_libjpeg(quality: int) -> None:
    grey = np.repeat(crop("astronaut").mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    ours = compress(tensor(grey), torch.tensor([float(quality)]), ["4:4:4"])
    assert psnr(levels(ours), by_libjpeg(grey, quality, "4:4:4")) >= 45


def test_the_faithful_arithmetic_is_farther_from_libjpeg_and_as_far_from_the_original() -> None:
    pixels = crop("coffee")
    for quality in (30, 75):
        given = torch.tensor([float(quality)])
        faithful, truth = levels(compress_faithful(tensor(pixels), given)), by_libjpeg(pixels, quality)
        ours = levels(compress(tensor(pixels), given, ["4:2:0"]))
        assert psnr(ours, truth) > psnr(faithful, truth) + 6
        assert psnr(faithful, pixels) == pytest.approx(psnr(truth, pixels), abs=2)


def test_the_tables_are_those_that_libjpeg_writes() -> None:
    for quality in (1, 5, 10, 33, 50, 75, 95, 100):
        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
        written = Image.open(file).quantization  # type: ignore[attr-defined]
        for number, table in enumerate(tables(torch.tensor([float(quality)]))):
            assert table[0].int().flatten().tolist() == list(written[number])


def test_the_luma_table_has_horizontal_frequencies_in_its_rows() -> None:
    assert LUMA_TABLE[0][:4] == (16, 11, 10, 16)
    assert [row[0] for row in LUMA_TABLE[:4]] == [16, 12, 14, 14]
    assert np.array_equal(CHROMA_TABLE, np.transpose(CHROMA_TABLE))


@pytest.mark.parametrize("size", [(100, 100), (97, 61), (1, 1), (3, 17), (16, 16), (8, 2)])
def test_flat_images_of_any_size_stay_flat(size: tuple[int, int]) -> None:
    flat = torch.full((3, 3, *size), 0.9)
    kept = compress(flat, torch.tensor([5.0, 50.0, 95.0]), ["4:2:0", "4:2:2", "4:4:4"])
    assert float((kept.amax((2, 3)) - kept.amin((2, 3))).max()) == 0
    assert float((kept[1:] - 0.9).abs().max()) < 2 / 255
    if size[0] % 16 and size[0] > 16:
        dark = compress_faithful(flat, torch.tensor([5.0, 50.0, 95.0]))
        assert float(dark.amax() - dark.amin()) > 0.05  # the reference's black border shows


def test_a_batch_gives_exactly_what_its_samples_give_alone_and_keeps_its_qualities() -> None:
    batch = torch.cat([tensor(crop(name)) for name in ("astronaut", "coffee", "chelsea", "astronaut")])
    quality = torch.tensor([10.0, 40.0, 80.0, 95.0])
    kinds: list[Subsampling] = ["4:2:0", "4:4:4", "4:2:0", "4:2:2"]
    together, kept = compress(batch, quality, kinds), quality.clone()
    alone = [compress(batch[at : at + 1], quality[at : at + 1], kinds[at : at + 1]) for at in range(4)]
    assert torch.equal(together, torch.cat(alone))
    compress_faithful(batch, quality)
    assert torch.equal(quality, kept)


def test_a_second_time_at_the_same_quality_changes_little_and_more_quality_costs_less() -> None:
    once = compress(tensor(crop("astronaut")), torch.tensor([60.0]), ["4:4:4"])
    twice = compress(once, torch.tensor([60.0]), ["4:4:4"])
    assert float((once - twice).abs().mean()) * 255 < 0.3
    found = [
        psnr(levels(compress(tensor(crop("coffee")), torch.tensor([float(q)]), ["4:2:0"])), crop("coffee"))
        for q in QUALITIES
    ]
    assert found == sorted(found)


def test_no_samples_give_none() -> None:
    none = torch.empty(0, 3, 16, 16)
    assert compress(none, torch.empty(0), []).shape == none.shape
    assert compress_faithful(none, torch.empty(0)).shape == none.shape
