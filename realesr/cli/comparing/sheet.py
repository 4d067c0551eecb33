"""Draws a comparison as one picture: the original and every network's result side by side, with names and facts."""

import io
import math
from typing import TYPE_CHECKING

from realesr.cli.estimate import duration_in_words
from realesr.cli.names import escaped

from .page import LANCZOS

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from realesr.comparing import ComparedNetwork, Comparison

LONGEST_PX = 1024
"""Longest side of one result on the sheet; larger ones are shrunk."""
LEAST_CELL_PX = 420
"""Least width of a cell: names need it."""
FONT_PX, TEXT_PX, GAP_PX = 26, 76, 24
PAPER, INK = (250, 250, 248), (27, 27, 25)


def sheet(comparison: "Comparison") -> bytes:
    """Return the sheet as a PNG file in sRGB: rows of cells, each two lines of text above a picture."""
    from PIL import Image, ImageDraw, ImageFont

    cells = [((LANCZOS, "a filter, no network"), comparison.lanczos)]
    cells += [(_lines(network), network.pixels) for network in comparison.networks]
    width, height = _picture_size(comparison)
    cell_width, cell_height = max(width, LEAST_CELL_PX), height + TEXT_PX
    columns = math.ceil(math.sqrt(len(cells)))
    rows = math.ceil(len(cells) / columns)
    sheet_size = (columns * (cell_width + GAP_PX) + GAP_PX, rows * (cell_height + GAP_PX) + GAP_PX)
    drawn = Image.new("RGB", sheet_size, PAPER)
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(FONT_PX)
    for index, (lines, pixels) in enumerate(cells):
        row, column = divmod(index, columns)
        left, top = GAP_PX + column * (cell_width + GAP_PX), GAP_PX + row * (cell_height + GAP_PX)
        text = "\n".join(_fitting(line, font, cell_width) for line in lines)
        draw.multiline_text((left, top), text, INK, font)
        picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        drawn.paste(picture, (left, top + TEXT_PX))
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    return buffer.getvalue()


def _picture_size(comparison: "Comparison") -> tuple[int, int]:
    """Return width and height of each picture on the sheet: the largest result's, or less."""
    height, width = comparison.lanczos.shape[:2]
    share = min(1.0, LONGEST_PX / max(height, width))
    return max(1, round(width * share)), max(1, round(height * share))


def _lines(network: "ComparedNetwork") -> tuple[str, str]:
    """Return the two lines above a network's picture."""
    score = "" if network.niqe is None else f", NIQE {network.niqe:.2f}"
    facts = f"x{network.scale}, whole photo {duration_in_words(network.photo_seconds)}{score}"
    return escaped(network.name), facts


def _fitting(text: str, font: "FreeTypeFont | ImageFont", width_px: int) -> str:
    """Return text that is cut at its end where it is wider than `width_px`."""
    while font.getlength(text) > width_px and len(text) > 1:
        text = text[:-2] + "\N{HORIZONTAL ELLIPSIS}"
    return text
