"""Which network a state dict belongs to.

A new architecture is named in FAMILIES, in `recognise` and in `candidates`, and for the message in _EXPECTED.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields

from realesr.errors import ModelError
from realesr.models.architecture import Architecture, State
from realesr.models.compact import Compact, compact_candidates, detect_compact
from realesr.models.discriminator import UNetDiscriminator, detect_discriminator
from realesr.models.rrdb import RRDB, detect_rrdb, rrdb_candidates, with_rrdb_names
from realesr.models.span import Span, detect_span, folded_span, span_candidates

FAMILIES: Mapping[str, type[Architecture]] = {"rrdb": RRDB, "compact": Compact, "span": Span}
"""Name of a family of networks, as recipes and ONNX metadata have it -> its class."""

_MAX_TEXT_CHARACTERS, _MAX_NUMBER = 1 << 12, 1 << 12
"""Length of an architecture's text, and the largest number of blocks, channels, ... in it. Such a text has no weights
beside it that would bear it out, and a billion blocks are a billion times 31 layers."""

_EXPECTED = "RRDBNet (conv_first.weight, ...), SRVGGNetCompact (body.0.weight, ...) or SPAN (conv_1.sk.weight, ...)"


def recognise(state: State, *, activation: str | None = None) -> tuple[Architecture | UNetDiscriminator, State]:
    """Find the network whose state dict this is, and check every key and shape.

    Args:
        state: arrays by any of the names that are known for them.
        activation: see `detect_compact`.

    Returns:
        The network, and its arrays by the names that its layers have.

    Raises:
        ModelError: It is no network of ours, or keys are missing, unexpected or of another shape.
    """
    state = folded_span(with_rrdb_names(state))
    found = detect_rrdb(state) or detect_compact(state, activation) or detect_span(state) or detect_discriminator(state)
    if found is None:
        raise ModelError(f"no network that realesr knows has these weights: got {_first(state)}; expected {_EXPECTED}")
    _check_shapes(state, found)
    return found, state


def detect(state: State, *, activation: str | None = None) -> Architecture:
    """Return the network that enlarges whose state dict this is; the arguments and errors are those of `recognise`."""
    found, _ = recognise(state, activation=activation)
    if isinstance(found, UNetDiscriminator):
        raise ModelError("these are the weights of a discriminator, which enlarges nothing: expected a generator's")
    return found


def candidates(shapes: Sequence[tuple[int, ...]]) -> list[Architecture]:
    """Return the networks that convolutions of these shapes, in the order of use, could be."""
    return [*rrdb_candidates(shapes), *compact_candidates(shapes), *span_candidates(shapes)]


def text_from_architecture(architecture: Architecture) -> str:
    """Return one line of JSON that `architecture_from_text` reads: the metadata of our ONNX files."""
    fields = asdict(architecture)  # type: ignore[call-overload]  # every architecture is a dataclass
    return json.dumps({"network": type(architecture).__name__, **fields})


def architecture_from_text(text: str) -> Architecture | None:
    """Return the architecture that `text_from_architecture` wrote, or None where the text is none of ours."""
    if len(text) > _MAX_TEXT_CHARACTERS:
        return None
    try:
        written = json.loads(text)
        family = FAMILIES[written.pop("network").lower()]
        has_sane_numbers = all(
            type(written[field.name]) is field.type and written[field.name] <= _MAX_NUMBER
            for field in fields(family)  # type: ignore[arg-type]  # every architecture is a dataclass
            if field.type in (int, bool) and field.name in written
        )
        return family(**written) if has_sane_numbers else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ModelError):
        return None


def _check_shapes(state: State, architecture: Architecture | UNetDiscriminator) -> None:
    expected = architecture.shapes
    missing = [key for key in expected if key not in state]
    if missing:
        raise ModelError(f"weights of a {architecture.title} miss {_first(missing)}: is the file complete?")
    unexpected = [key for key in state if key not in expected]
    if unexpected:
        raise ModelError(f"weights look like a {architecture.title} but also hold {_first(unexpected)}")
    for key, shape in expected.items():
        if state[key].shape != shape:
            raise ModelError(f"{key} of a {architecture.title} has the shape {state[key].shape}, expected {shape}")


def _first(keys: Collection[str]) -> str:
    shown = ", ".join(list(keys)[:4])
    return f"{shown}, ... ({len(keys)} in all)" if len(keys) > 4 else shown or "no arrays"
