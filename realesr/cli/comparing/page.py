"""Writes a comparison as one HTML page with everything inside, and as a picture with names.

Nothing on the page asks a network for anything, and its Content-Security-Policy forbids it.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from realesr.cli.estimate import duration_in_words
from realesr.cli.names import escaped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from realesr.comparing import ComparedNetwork, Comparison

LANCZOS = "original (Lanczos)"
"""Name of the original, enlarged without a network."""
NARROWEST, WIDEST = 1 / 4, 10
"""Least and largest width by height of the field in which pictures are compared; narrower and wider ones have bars."""


def page(comparison: "Comparison", missing: Sequence[str] = ()) -> str:
    """Return the page as HTML.

    Args:
        comparison: what is shown.
        missing: names of networks that were left out because they are not on disk.
    """
    template = (files("realesr.cli.comparing") / "page.html").read_text("utf-8")
    gestures = (files("realesr.server") / "page" / "gestures.js").read_text("utf-8")
    height, width = comparison.lanczos.shape[:2]
    count = len(comparison.networks)
    networks = "1 network" if count == 1 else f"{count} networks"
    photo = _text(comparison.source.name)
    names = [LANCZOS, *(network.name for network in comparison.networks)]
    values = {
        "title": f"{photo}: {networks} compared",
        "heading": photo,
        "place": _text(place_in_words(comparison)),
        "caption": f"The same region, enlarged by {networks}",
        "width_px": f"{width}",
        "ratio": f"{min(max(width / height, NARROWEST), WIDEST):.6g}",
        "options": "".join(f'<option value="{index}">{_text(name)}</option>' for index, name in enumerate(names)),
        "rows": "\n".join([_original_row(comparison), *map(_row, range(1, count + 1), comparison.networks)]),
        "notices": _list(notices(comparison, missing)),
        "gestures": gestures,
    }
    return _filled(template, values)


def place_in_words(comparison: "Comparison") -> str:
    """Return what part of the photo is compared, and its scale, in one sentence."""
    left, top, width, height = comparison.region
    photo_width, photo_height = comparison.photo_px
    return (
        f"{width} x {height} px of {photo_width:,} x {photo_height:,} px, {left} px from the left and {top} px from "
        f"the top; all are shown {comparison.scale} times as large."
    )


def notices(comparison: "Comparison", missing: Sequence[str]) -> list[str]:
    """Return what a reader of the page should know, one line each."""
    lines = [*comparison.notices, *failures(comparison)]
    if any(network.niqe is not None for network in comparison.networks):
        lines.append(
            "NIQE tells without a reference how much a picture looks like clean photos: the lower, the more; it often "
            "disagrees with eyes, and where it does, believe yours"
        )
    lines.append("the time for the whole photo is an estimate: that of the region by the ratio of their areas")
    if missing:
        lines.append(f"not on disk, and left out: {', '.join(missing)}")
    return lines


def failures(comparison: "Comparison") -> list[str]:
    """Return one line for each network that gave nothing."""
    return [f"{name} gave nothing: {reason}" for name, reason in comparison.failed]


def measured_in_words(seconds: float) -> str:
    """Return a measured time: "9.1 s", "0.12 s"."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Return the template with the values of its {{fields}}; what looks like a field in a value stays."""
    return re.sub(r"\{\{(\w+)\}\}", lambda field: values[field[1]], template)


def _text(name: str) -> str:
    """Return a name as HTML; what would turn or hide text is escaped as in messages."""
    return escape(escaped(name))


def _original_row(comparison: "Comparison") -> str:
    """Return the row of the original."""
    cells = (("Scale", "-"), ("Region", "-"), ("Photo", "-"), ("NIQE", _score(comparison.lanczos_niqe)))
    return _html_row(0, comparison.lanczos, LANCZOS, "a filter, no network", cells)


def _row(index: int, network: "ComparedNetwork") -> str:
    """Return the row of a network."""
    facts = f"{network.licence or 'licence not known'}, {network.engine}"
    cells = (
        ("Scale", f"x{network.scale}"),
        ("Region", measured_in_words(network.seconds)),
        ("Photo", duration_in_words(network.photo_seconds)),
        ("NIQE", _score(network.niqe)),
    )
    return _html_row(index, network.pixels, network.name, facts, cells)


def _html_row(index: int, pixels: "NDArray[np.uint8]", name: str, facts: str, cells: Sequence[tuple[str, str]]) -> str:
    """Return one row of the table: the picture itself, its facts, and buttons that show it on a side."""
    buttons = " ".join(
        f'<button type="button" data-side="{side.lower()}" data-index="{index}" aria-pressed="false" '
        f'aria-label="Show {_text(name)} on the {side.lower()}">{side}</button>'
        for side in ("Left", "Right")
    )
    facts_html = "".join(f'<td data-label="{label}">{_text(value)}</td>' for label, value in cells)
    return (
        f'<tr><td class="picture"><img alt="{_text(name)}" src="{_data_uri(pixels)}"></td>'
        f'<th scope="row">{_text(name)}<small>{_text(facts)}</small></th>{facts_html}'
        f'<td class="show">{buttons}</td></tr>'
    )


def _score(niqe: float | None) -> str:
    """Return a score with two digits, or a dash for none."""
    return "-" if niqe is None else f"{niqe:.2f}"


def _list(lines: Sequence[str]) -> str:
    """Return lines as an HTML list."""
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _data_uri(pixels: "NDArray[np.uint8]") -> str:
    """Return pixels (H, W, 3) as the URI of a PNG file; sRGB is what a PNG file without a profile means."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
