"""`realesr models`: lists the networks, fetches them, and shows what a file holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realesr.errors import ModelError

from .help import CommandHelp, GroupHelp
from .output_options import Debug, Quiet

if TYPE_CHECKING:
    from realesr.models.zoo import ZooEntry

LIST_EXAMPLES = """\
realesr models                         # a table
realesr models | cut -f 1              # in a pipe: columns between tabs
realesr models --json                  # one JSON object per network
realesr models fetch realesr-general-x4v3
realesr models info realesrgan-x4plus"""
FETCH_EXAMPLES = """\
realesr models fetch realesr-general-x4v3
realesr models fetch realesrgan-x4plus realesrgan-x4plus-anime --quiet
realesr models fetch realesrgan-x2plus --debug"""
INFO_EXAMPLES = """\
realesr models info realesrgan-x4plus
realesr models info my-network.safetensors --json
realesr models info my-network.onnx --debug"""

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, one object a line.")]

models = typer.Typer(cls=GroupHelp, rich_markup_mode=None)


@models.callback(invoke_without_command=True, epilog=LIST_EXAMPLES)
def list_models(context: typer.Context, json: Json = False, debug: Debug = False) -> None:
    """List the networks, or fetch them.

    Name, scale, MB of the released file, licence, what it is for, whether it is on disk: a table on a terminal; in a
    pipe one network a line, its columns separated by tabs, "-" where a size is not known. JSON has the place, too.
    """
    if context.invoked_subcommand is not None:
        return
    from . import console

    with console.errors_reported(console.Messages(debug=debug)):
        from realesr.models.zoo import ZOO

        records = [zoo_record(entry) for entry in ZOO.values()]
        if json:
            for record in records:
                console.json_line(record)
        else:
            console.table("Networks", ("name", "scale", "MB", "licence", "for", "on disk"), [row(r) for r in records])


@models.command(cls=CommandHelp, epilog=FETCH_EXAMPLES)
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAMES", help="Networks, as 'realesr models' lists them.")],
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download networks that are not on disk yet, and check them.

    The path of each file goes to stdout. A download that broke off continues where it ended.
    """
    from . import console

    messages = console.Messages(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        from realesr.models import zoo

        entries = [known_entry(name) for name in names]
        for entry in entries:
            with messages.download(entry.name) as on_download:
                path = zoo.fetch(entry, on_progress=on_download)
            console.result(str(path))


@models.command(cls=CommandHelp, epilog=INFO_EXAMPLES)
def info(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH", help="A name, or a file: .onnx, .engine, .safetensors, .pth, ncnn's .bin or .param."
        ),
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a network is.

    Architecture, parameters, cost, receptive radius, hash: as found in the file, and of a network that is not on disk,
    as its release has them.
    """
    from . import console

    with console.errors_reported(console.Messages(debug=debug)):
        record = network_record(network)
        if json:
            console.json_line(record)
        else:
            console.facts(readable(record))


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


def row(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one row of the table."""
    size = "-" if record["bytes"] is None else f"{record['bytes'] / 1e6:.1f}"
    on_disk = "no" if record["on_disk"] is None else "yes"
    return (record["name"], f"x{record['scale']}", size, record["licence"], record["purpose"], on_disk)


def known_entry(name: str) -> "ZooEntry":
    """Return the network of this name.

    Raises:
        ModelError: there is none; the message has similar names.
    """
    from realesr.models.zoo import ZOO, near_names

    if name not in ZOO:
        raise ModelError(f"no network is called {name}: did you mean {', '.join(near_names(name))}?")
    return ZOO[name]


def network_record(name_or_path: str) -> dict[str, Any]:
    """Return the facts about a network by its name or file; a fact that is not known is None."""
    from realesr.models.zoo import ZOO, find_file

    entry = ZOO.get(name_or_path)
    if entry is None:
        path = Path(name_or_path).expanduser()
        if path.suffix.lower() == ".engine" and path.exists():
            return engine_record(path)
        return onnx_record(path) if path.suffix.lower() == ".onnx" and path.exists() else weights_record(path)
    path_on_disk = find_file(entry)
    known = {"name": entry.name, "licence": entry.licence, "purpose": entry.purpose}
    if path_on_disk is None:
        return known | {"file": None, **architecture_record(entry.architecture), "sha256": entry.sha256}
    return weights_record(path_on_disk) | known


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
