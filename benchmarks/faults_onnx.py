"""Injects damage into ONNX files: mutated bytes, and graphs whose operators, shapes, numbers and metadata are changed.

    python benchmarks/faults_onnx.py --child     opens and runs the file that each line of stdin names

Whatever stands the first run, in a process of its own that realesr starts, is opened by ONNX Runtime and enlarges an
image.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
from faults_children import AnsweringChild, answer_lines
from faults_mutations import mutated
from faults_networks import small_networks
from faults_verdicts import RIGHT, WRONG, Tally

TRIALS = 520
_SIDE_PX = 16
_OPERATORS = ("Identity", "Relu", "Loop", "If", "Resize", "Transpose", "Tile", "Expand", "MatMul", "Cast", "Nonsense")
_NUMBERS = (0, 1, -1, 2, 3, 7, 1 << 16, 1 << 31, -(1 << 63), (1 << 63) - 1)
_TEXTS = ("", "0", "-1", "9" * 500, "[" * 2000, "nan", "../../etc/passwd", "\x1b[31m", "x" * 5000)


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Open the whole files, then `trials` mutated ones, one by one, in child processes."""
    dice, whole = random.Random(seed), whole_files()
    child = AnsweringChild(Path(__file__))
    try:
        for name, data in whole.items():
            path = folder / f"whole-{name}.onnx"
            path.write_bytes(data)
            verdict, text = child.ask(str(path))
            tally.add("whole files", RIGHT if verdict == RIGHT else WRONG, f"{name}: {text}")
        names = sorted(whole)
        for number in range(trials):
            name = names[number % len(names)]
            subject, data = changed_graph(whole[name], dice)
            path = folder / f"{number:05}-{name}.onnx"
            path.write_bytes(data)
            verdict, text = child.ask(str(path))
            tally.add(subject, verdict, f"{path.name}: {text}", path)
            path.unlink()
    finally:
        child.close()


def whole_files() -> dict[str, bytes]:
    """Return name -> content of two files of ours and one that realesr did not write."""
    from realesr.models.onnx_graph import onnx_bytes

    return {"foreign": _foreign(), **{network.name: onnx_bytes(network) for network in small_networks(scale=2)}}


def _foreign() -> bytes:
    """Return a network that convolves and enlarges by three."""
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.zeros((27, 3, 3, 3), np.float32)
    kernel[np.arange(27), np.arange(27) // 9, 1, 1] = 1
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["many"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["many"], ["large"], blocksize=3, mode="CRD"),
        helper.make_node("Clip", ["large", "low", "high"], ["y"]),
    ]
    arrays = {"kernel": kernel, "low": np.float32(0), "high": np.float32(1)}
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, f"{name}h", f"{name}w"]) for name in ("x", "y")
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "foreign", infos[:1], infos[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


def changed_graph(data: bytes, dice: random.Random) -> tuple[str, bytes]:
    """Return what was changed in a file, bytes or a part of its graph, and the file."""
    if dice.random() < 0.35:
        return "bytes", mutated(data, dice)[1]
    import onnx

    model = onnx.load_from_string(data)
    subject = dice.choice(tuple(_CHANGES))
    for _ in range(dice.choice((1, 1, 3))):
        _CHANGES[subject](model, dice)
    return subject, bytes(model.SerializeToString())


def _change_operator(model: Any, dice: random.Random) -> None:
    dice.choice(model.graph.node).op_type = dice.choice(_OPERATORS)


def _change_wires(model: Any, dice: random.Random) -> None:
    """Give an operator another input, twice the same, or none; or leave one out."""
    node = dice.choice(model.graph.node)
    names = [*(name for other in model.graph.node for name in other.output), "", "missing"]
    choice = dice.randrange(3)
    if choice == 0 and node.input:
        node.input[dice.randrange(len(node.input))] = dice.choice(names)
    elif choice == 1:
        node.output[0] = dice.choice(names)
    elif len(model.graph.node) > 1:
        del model.graph.node[dice.randrange(len(model.graph.node))]


def _change_attribute(model: Any, dice: random.Random) -> None:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    attribute = dice.choice(attributes)
    if attribute.ints:
        attribute.ints[dice.randrange(len(attribute.ints))] = dice.choice(_NUMBERS)
    else:
        attribute.i, attribute.f = dice.choice(_NUMBERS), dice.choice((0.0, -1.0, float("nan"), float("inf")))
        attribute.s = dice.choice(_TEXTS).encode()


def _change_array(model: Any, dice: random.Random) -> None:
    """Change an array's shape, type, numbers or place."""
    array = dice.choice(model.graph.initializer)
    choice = dice.randrange(5)
    if choice == 0 and array.dims:
        array.dims[dice.randrange(len(array.dims))] = dice.choice(_NUMBERS)
    elif choice == 1:
        array.data_type = dice.randrange(25)
    elif choice == 2:
        array.raw_data = mutated(array.raw_data, dice)[1] if array.raw_data else b"abc"
    elif choice == 3:
        array.data_location = 1
        for key, value in (("location", dice.choice(_TEXTS)), ("offset", "0"), ("length", str(dice.choice(_NUMBERS)))):
            entry = array.external_data.add()
            entry.key, entry.value = key, value
    elif array.raw_data:
        array.raw_data = np.full(len(array.raw_data) // 4, dice.choice((np.nan, np.inf, 1e38)), np.float32).tobytes()


def _change_image(model: Any, dice: random.Random) -> None:
    """Change shape or type of the input or the result."""
    info = dice.choice([*model.graph.input, *model.graph.output]).type.tensor_type
    if dice.random() < 0.3 or not info.shape.dim:
        info.elem_type = dice.randrange(25)
    elif dice.random() < 0.5:
        dice.choice(info.shape.dim).dim_value = dice.choice(_NUMBERS)
    else:
        del info.shape.dim[dice.randrange(len(info.shape.dim))]


def _change_metadata(model: Any, dice: random.Random) -> None:
    if not model.metadata_props:
        entry = model.metadata_props.add()
        entry.key = "realesr.scale"
    dice.choice(model.metadata_props).value = dice.choice(_TEXTS)


def _change_versions(model: Any, dice: random.Random) -> None:
    model.ir_version = dice.choice((0, 1, 3, 99, 1 << 40))
    model.opset_import[0].version = dice.choice(_NUMBERS)


_CHANGES = {
    "operators": _change_operator,
    "wires": _change_wires,
    "attributes": _change_attribute,
    "arrays": _change_array,
    "image shapes": _change_image,
    "metadata": _change_metadata,
    "versions": _change_versions,
}


def _judge(line: str) -> tuple[str, str]:
    from realesr.engines import open_engine

    with open_engine(Path(line), engine="onnxruntime", threads=1) as engine:
        height, width = engine.spec.size.fixed_px or (_SIDE_PX, _SIDE_PX)
        if not engine.spec.size.fits(height, width) or height * width > 1 << 20:
            return RIGHT, ""
        result = engine.run(np.full((1, 3, height, width), 0.5, np.float32))
        expected = (1, 3, height * engine.spec.scale, width * engine.spec.scale)
        return (RIGHT, "") if result.shape == expected else (WRONG, f"got {result.shape}, expected {expected}")


if __name__ == "__main__":
    answer_lines(_judge)
