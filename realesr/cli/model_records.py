"""What `realesr models` knows about networks: as records for JSON, and as rows and lines for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr.errors import ModelError

if TYPE_CHECKING:
    from realesr.models.pulled import PulledNetwork
    from realesr.models.zoo import ZooEntry

COLUMNS = ("name", "scale", "MB", "licence", "for", "on disk")


def listed_records() -> list[dict[str, Any]]:
    """Return the facts about every network of the zoo, and about every one that has been pulled."""
    from realesr.models.pulled import pulled_networks
    from realesr.models.zoo import ZOO

    return [*map(zoo_record, ZOO.values()), *map(pulled_record, pulled_networks())]


def zoo_record(entry: "ZooEntry") -> dict[str, Any]:
    """Return the facts about one network of the list."""
    from realesr.models.zoo import find_file

    return {
        "name": entry.name,
        "scale": entry.scale,
        "bytes": entry.bytes,
        "licence": entry.licence,
        "purpose": entry.purpose,
        "on_disk": find_file(entry),
    }


def pulled_record(network: "PulledNetwork") -> dict[str, Any]:
    """Return the facts about one network that has been pulled, with those of the list that it came from."""
    return {
        "name": network.name,
        "scale": network.network.scale,
        "bytes": network.bytes,
        "licence": network.licence or None,
        "purpose": purpose_of(network.tags, network.author),
        "on_disk": network.path,
        "title": network.title,
        "author": network.author,
        "source": network.source,
        "sha256": network.sha256,
    }


def purpose_of(tags: str, author: str) -> str:
    """Return what a network is for, in the words of a public list, and whose it is."""
    return "; ".join(part for part in (tags, author and f"by {author}") if part)


def row(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one row of the table."""
    return (*row_start(record), "no" if record["on_disk"] is None else "yes")


def row_start(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the first five cells of a row; "-" is what is not known."""
    size = "-" if record["bytes"] is None else f"{record['bytes'] / 1e6:.1f}"
    scale = "-" if record["scale"] is None else f"x{record['scale']}"
    return (record["name"], scale, size, record["licence"] or "-", record["purpose"] or "-")


def known_entry(name: str) -> "ZooEntry":
    """Return the network of this name.

    Raises:
        ModelError: there is none; the message has similar names.
    """
    from realesr.models.zoo import ZOO, near_names

    if name not in ZOO:
        near = ", ".join(near_names(name))
        raise ModelError(
            f"no network is called {name}: did you mean {near}? 'realesr models pull' fetches those of a public list"
        )
    return ZOO[name]


def network_record(name_or_path: str) -> dict[str, Any]:
    """Return the facts about a network by its name or file; a fact that is not known is None."""
    from realesr.models.pulled import find_pulled
    from realesr.models.zoo import ZOO, find_file

    entry = ZOO.get(name_or_path)
    if entry is None:
        pulled = find_pulled(name_or_path)
        return file_record(Path(name_or_path).expanduser()) if pulled is None else pulled_file_record(pulled)
    path_on_disk = find_file(entry)
    known = {"name": entry.name, "licence": entry.licence, "purpose": entry.purpose}
    if path_on_disk is None:
        return known | {"file": None, **architecture_record(entry.architecture), "sha256": entry.sha256}
    return weights_record(path_on_disk) | known


def pulled_file_record(network: "PulledNetwork") -> dict[str, Any]:
    """Return the facts about a pulled network, as found in its file and in its list."""
    names = ("name", "title", "author", "licence", "purpose", "source")
    return weights_record(network.path) | {name: pulled_record(network)[name] for name in names}


def file_record(path: Path) -> dict[str, Any]:
    """Return the facts about a file of a network."""
    if path.suffix.lower() == ".engine" and path.exists():
        return engine_record(path)
    return onnx_record(path) if path.suffix.lower() == ".onnx" and path.exists() else weights_record(path)


def weights_record(path: Path) -> dict[str, Any]:
    """Return the facts about a file of weights; a discriminator has no scale."""
    from realesr.models.weights import read_any_weights

    if not path.exists():
        known_entry(str(path))  # raises: neither a name nor a file
    weights = read_any_weights(path)
    record = {"name": weights.name, "file": path}
    return record | architecture_record(weights.architecture) | {"sha256": weights.sha256}


def architecture_record(architecture: Any) -> dict[str, Any]:
    """Return the facts about an architecture, or about a discriminator's."""
    fields = ("scale", "parameters", "macs_per_px", "radius_px", "multiple_of")
    return {"architecture": architecture.title, **{field: getattr(architecture, field, None) for field in fields}}


def onnx_record(path: Path) -> dict[str, Any]:
    """Return the facts about an .onnx file; the architecture is known where realesr wrote it."""
    import hashlib

    import onnx

    from realesr.engines import model_facts

    facts = model_facts(path)
    graph = onnx.load(path, load_external_data=False).graph
    known = {} if facts.architecture is None else architecture_record(facts.architecture)
    return {
        "name": facts.name,
        "file": path,
        "architecture": None,
        "parameters": onnx_parameters(graph),
        "macs_per_px": None,
        **known,
        "scale": facts.scale,
        "radius_px": facts.radius_px,
        "multiple_of": facts.multiple_of,
        "input": onnx_input(graph),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def engine_record(path: Path) -> dict[str, Any]:
    """Return the facts about an .engine file from the JSON beside it."""
    from realesr.engines.nvidia.tensorrt_sidecar import read_sidecar

    sidecar = read_sidecar(path)
    architecture = sidecar.facts.architecture
    known = {"architecture": None} if architecture is None else architecture_record(architecture)
    made_for = sidecar.gpu.name if sidecar.gpu else ", ".join(sidecar.targets) or "sm80 and later"
    (low, left), (high, right) = sidecar.profile.min_hw, sidecar.profile.max_hw
    return {
        "name": sidecar.name,
        "file": path,
        **known,
        "scale": sidecar.scale,
        "radius_px": sidecar.radius_px,
        "multiple_of": sidecar.multiple_of,
        "precision": sidecar.precision,
        "input": f"{sidecar.values}, {left} x {low} to {right} x {high} px",
        "built by": f"{sidecar.library} {sidecar.library_version}",
        "built for": made_for,
        "proven": sidecar.proof if isinstance(sidecar.proof, str) else "yes",
        "sha256": sidecar.engine_sha256,
    }


def onnx_parameters(graph: Any) -> int:
    """Return how many numbers the initializers of an ONNX graph have."""
    import math

    return sum(math.prod(tensor.dims) for tensor in graph.initializer)


def onnx_input(graph: Any) -> str:
    """Return the type and shape of an ONNX graph's input, like "float32 (n, 3, h, w)"."""
    import onnx

    tensor = graph.input[0].type.tensor_type
    sides = (dim.dim_param or str(dim.dim_value or "?") for dim in tensor.shape.dim)
    return f"{onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)} ({', '.join(sides)})"


def readable(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts as text with units, for people."""
    labels = {"macs_per_px": "cost", "radius_px": "receptive radius", "multiple_of": "sides", "sha256": "SHA-256"}
    formats = {
        "scale": "x{}",
        "parameters": "{:,}",
        "macs_per_px": "{:,.0f} multiply-accumulates per input pixel",
        "radius_px": "{} input pixels",
        "multiple_of": "multiples of {} input pixels; others are padded",
    }
    missing = {"file": "not on disk"}
    return {
        labels.get(name, name): missing.get(name, "-") if value is None else formats.get(name, "{}").format(value)
        for name, value in record.items()
    }
