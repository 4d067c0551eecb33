"""Counts damaged JPEGs that are refused, and whole ones that are not.

A JPEG holds no checksum, and libjpeg fills what it cannot decode. Damaged are files that were cut, or of whose
compressed data some bytes were changed, so that libjpeg, which warns and goes on, decodes another picture. Whole are
files in all the ordinary variants that Pillow and libvips write.
"""

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyvips
from faults_image_files import photo, saved
from faults_images import enlarged, judged
from faults_verdicts import REFUSED, WRONG, Tally
from PIL import Image, ImageFile

TRIALS = 1250
"""700 damaged files, of which some show the same picture and do not count, and 550 whole ones."""
_WHOLE_SHARE = 0.44
_START_OF_SCAN = b"\xff\xda"


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Enlarge damaged and whole JPEGs, and count which are refused."""
    dice, whole_count = random.Random(seed), round(trials * _WHOLE_SHARE)
    names = _written(folder / "whole", ((name, data, True) for name, data in whole_jpegs(whole_count)))
    refused = _refused(tally, folder / "whole", names)
    tally.figures |= {"whole": len(names), "whole_refused": refused[1]}
    names = _written(folder / "damaged", damaged_jpegs(trials - whole_count, dice))
    noticed, all_refused = _refused(tally, folder / "damaged", names)
    tally.figures |= {
        "damaged": len(names),
        "damaged_refused": all_refused,
        "damaged_noticed_by_libjpeg": sum(names.values()),
        "damaged_noticed_by_libjpeg_refused": noticed,
    }


def _written(folder: Path, files: Iterator[tuple[str, bytes, bool]]) -> dict[str, bool]:
    folder.mkdir(parents=True)
    names = {}
    for name, data, is_noticed in files:
        (folder / name).write_bytes(data)
        names[name] = is_noticed
    return names


def _refused(tally: Tally, folder: Path, names: dict[str, bool]) -> tuple[int, int]:
    """Return how many files are refused: of those that libjpeg warns of, and of all."""
    refused, is_whole = set(), folder.name == "whole"
    for source, record in enlarged(folder, folder.with_name(f"{folder.name}-out")):
        verdict, example = judged(source, record, {})
        if verdict == REFUSED:
            refused.add(source.name)
        if is_whole and verdict == REFUSED:
            verdict = WRONG
        tally.add(f"{folder.name} JPEGs", verdict, f"{source.name}: {example}", source)
    return sum(names[name] for name in refused), len(refused)


def whole_jpegs(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield whole JPEGs of ordinary variants: encoder, quality, subsampling, scans, tables, restarts, sizes, modes."""
    dice = random.Random(1)
    for number in range(count):
        height, width = dice.choice(((1, 1), (8, 8), (17, 9), (20, 24), (33, 65), (64, 48)))
        image = Image.fromarray(photo(height, width)).convert(dice.choice(("RGB", "RGB", "L", "CMYK")))
        quality = dice.choice((10, 40, 75, 90, 95, 100))
        if number % 3 == 2 and image.mode != "CMYK":
            array = pyvips.Image.new_from_array(np.asarray(image))
            data = bytes(
                array.jpegsave_buffer(
                    Q=quality,
                    interlace=dice.random() < 0.5,
                    optimize_coding=dice.random() < 0.5,
                    subsample_mode=dice.choice(("auto", "on", "off")),
                    restart_interval=dice.choice((0, 0, 1, 7)),
                )
            )
        else:
            data = saved(
                image,
                "JPEG",
                quality=quality,
                progressive=dice.random() < 0.5,
                optimize=dice.random() < 0.5,
                subsampling=dice.choice((0, 1, 2)),
                restart_marker_blocks=dice.choice((0, 0, 1, 7)),
            )
        yield f"{number:04}.jpg", data


def damaged_jpegs(count: int, dice: random.Random) -> Iterator[tuple[str, bytes, bool]]:
    """Yield name, content, and whether libjpeg warns, of damaged files that show another picture."""
    wholes = [data for _, data in whole_jpegs(200) if len(data) - data.index(_START_OF_SCAN) > 100]
    for number in range(count):
        whole = dice.choice(wholes)
        start = whole.index(_START_OF_SCAN) + 12
        if number % 3 == 0:
            damage, data = "cut", whole[: dice.randrange(start, len(whole) - 2)]
        else:
            changed = bytearray(whole)
            for _ in range(dice.choice((1, 2, 8, 64))):
                changed[dice.randrange(start, len(whole) - 2)] = dice.randrange(256)
            damage, data = "changed", bytes(changed)
        if decoded(data) != decoded(whole):
            yield f"{number:04}~{damage}~.jpg", data, _is_noticed(data)


def decoded(data: bytes) -> bytes | None:
    """Return the pixels as libjpeg decodes them, damage or not; None where it cannot."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.tobytes()
    except (OSError, SyntaxError):
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _is_noticed(data: bytes) -> bool:
    """Return whether libjpeg warns of anything, or gives up."""
    try:
        pyvips.Image.jpegload_buffer(data, fail_on="warning").copy_memory()
    except pyvips.Error:
        return True
    return False
