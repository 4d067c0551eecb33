"""ONNX files that are made to take all time or memory, or whose metadata lie: one line of error, and soon."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from realesr.engines import model_facts, open_engine
from realesr.engines.onnx_runtime import first_run as first_run_module
from realesr.engines.onnx_runtime.onnx_contents import read_contents
from realesr.errors import ModelError
from realesr.models.compact import Compact
from realesr.models.onnx_graph import onnx_bytes
from realesr.models.rrdb import RRDB
from tests.engines.small_models import small_model, write_nearest

COMPACT = Compact(scale=2, features=8, convs=1)


def write_graph(
    path: Path, nodes: list[Any], *, arrays: dict[str, Any] | None = None, domain: str = "", dtype: int = 1
) -> Path:
    """A network from "x" to "y", of the opset 18."""
    shapes: tuple[list[str | int | None], ...] = (["n", 3, "h", "w"], ["n", 3, "H", "W"])
    source, result = (helper.make_tensor_value_info(name, dtype, s) for name, s in zip("xy", shapes, strict=True))
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (arrays or {}).items()]
    graph = helper.make_graph(nodes, "g", [source], [result], initializers)
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def endless_loop(path: Path) -> Path:
    """Runs a body 2^62 times."""
    types = {"i": TensorProto.INT64, "going": TensorProto.BOOL, "still": TensorProto.BOOL}
    infos = {name: helper.make_tensor_value_info(name, kind, []) for name, kind in types.items()}
    images = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("a", "b")]
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("Identity", ["a"], ["b"])],
        "body",
        [infos["i"], infos["going"], images[0]],
        [infos["still"], images[1]],
    )
    node = helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)
    return write_graph(path, [node], arrays={"count": np.array(2**62, np.int64)})


@pytest.mark.parametrize("use", [model_facts, open_engine])
def test_an_endless_loop_is_refused_by_name_before_it_runs(tmp_path: Path, use: Any) -> None:
    with pytest.raises(ModelError, match=r"has the operator Loop, whose body may run without end: expected a network"):
        use(endless_loop(tmp_path / "loop.onnx"))


def test_a_body_in_a_function_of_the_file_is_found(tmp_path: Path) -> None:
    path = endless_loop(tmp_path / "loop.onnx")
    model = onnx.load(path)
    (node,) = model.graph.node
    function = helper.make_function("mine", "F", ["x", "count"], ["y"], [node], [helper.make_opsetid("", 18)])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[0].CopyFrom(helper.make_node("F", ["x", "count"], ["y"], domain="mine"))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="has the operator Loop"):
        model_facts(path)


def test_a_function_of_the_file_is_run(tmp_path: Path) -> None:
    path = write_nearest(tmp_path / "x.onnx", scale=3)
    model = onnx.load(path)
    node = model.graph.node[2]
    model.functions.append(
        helper.make_function("mine", "F", ["same", "scales"], ["large"], [node], [helper.make_opsetid("", 18)])
    )
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[2].CopyFrom(helper.make_node("F", ["same", "scales"], ["large"], domain="mine"))
    onnx.save(model, path)
    assert model_facts(path).scale == 3


def test_operators_of_other_sets_are_refused_by_name(tmp_path: Path) -> None:
    node = helper.make_node("Evil\x1b[31m", ["x"], ["y"], domain="their.own")
    with pytest.raises(ModelError, match=r"needs the operator 'Evil\\x1b\[31m' of their\.own: expected those of ONNX"):
        model_facts(write_graph(tmp_path / "x.onnx", [node], domain="their.own"))


def doubled(path: Path) -> Path:
    """A list that is joined to itself forty times."""
    nodes = [helper.make_node("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=0) for i in range(40)]
    nodes[0].input[:] = ["x", "x"]
    return write_graph(path, [*nodes, helper.make_node("Identity", ["v40"], ["y"])])


def constant(path: Path) -> Path:
    """A constant of 40 GB, computed when the file is opened."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return write_graph(path, nodes, arrays={"size": np.array([100_000, 100_000], np.int64)})


@pytest.mark.parametrize(
    "write",
    [lambda path: write_nearest(path, scale=1000), doubled, constant],
    ids=["enlarged by a thousand", "doubled", "constant"],
)
@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs a limit of memory")
def test_a_graph_that_takes_all_memory_is_an_error_of_the_file(tmp_path: Path, write: Any) -> None:
    with pytest.raises(ModelError, match=r"bomb\.onnx (takes far more memory|ended the process)") as caught:
        model_facts(write(tmp_path / "bomb.onnx"))
    assert "\n" not in str(caught.value)


def test_an_enlargement_that_fits_but_is_absurd_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="enlarges 65 times, expected at most 64"):
        model_facts(write_nearest(tmp_path / "x.onnx", scale=65))


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs alarms")
def test_a_graph_that_takes_hours_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = first_run_module.child_command()
    program = (
        "import runpy, realesr.engines.onnx_runtime.first_run as f; f.LIMIT_SECONDS, f._SECONDS_PER_PX = 2, 0;"
        "import json, sys, os; sys.stdout.write(json.dumps(f._run_child(json.load(sys.stdin)))); os._exit(0)"
    )
    monkeypatch.setattr(first_run_module, "child_command", lambda: [*command[:2], "-c", program])
    size = 6000
    nodes = [helper.make_node("RandomNormal", [], ["m0"], shape=[size, size])]
    nodes += [helper.make_node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(50)]
    nodes += [
        helper.make_node("ReduceSum", ["m50"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"x\.onnx takes more than 60 s for its first image"):
        model_facts(write_graph(tmp_path / "x.onnx", nodes))
    assert time.monotonic() - start < 20


def test_a_file_is_tried_once_in_a_process_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nearest(tmp_path / "x.onnx", scale=3)
    tried: list[Path] = []
    ask = first_run_module._answer

    def counted(path: Path, task: Any) -> Any:
        tried.append(path)
        return ask(path, task)

    monkeypatch.setattr(first_run_module, "_answer", counted)
    model_facts(path)
    with open_engine(path):
        pass
    assert len(tried) == 1
    write_nearest(path, scale=4)
    assert model_facts(path).scale == 4


def test_the_working_folder_lends_the_trial_no_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    monkeypatch.chdir(tmp_path)
    write_nearest(Path("x.onnx"))
    assert model_facts(Path("x.onnx")).scale == 2
    assert not Path("ran").exists()


# ---- metadata


def ours(path: Path, **facts: str) -> Path:
    """An export of ours with other facts; an empty one is left out."""
    model = onnx.load_from_string(onnx_bytes(small_model(COMPACT)))
    written = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    written |= {f"realesr.{key}": value for key, value in facts.items()}
    helper.set_model_props(model, {key: value for key, value in written.items() if value})
    onnx.save(model, path)
    return path


def text(**fields: object) -> str:
    return json.dumps({"network": "RRDB", "scale": 2, "features": 8, "blocks": 1, "growth": 4} | fields)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"scale": "3"}, "says scale = 3, but its network has 2"),
        ({"scale": "0"}, "says scale = 0, but its network has 2"),
        ({"multiple_of": "2"}, "says multiple_of = 2, but its network has 1"),
        ({"radius_px": "0"}, "says radius_px = 0, but its network has 3"),
        ({"radius_px": "9999"}, "says radius_px = 9999, but its network has 3"),
        ({"architecture": text()}, r"says that it is RRDBNet .*but has 3 convolutions"),
        ({"architecture": text(blocks=4000)}, r"says that it is RRDBNet .*but has 3 convolutions"),
        (
            {"architecture": json.dumps({"network": "Compact", "scale": 2, "features": 4000, "convs": 1})},
            r"4000 features.*but has 3 convolutions in [\d,]+ bytes",
        ),
        (
            {"architecture": json.dumps({"network": "Compact", "scale": 4, "features": 2, "convs": 1})},
            "says scale = 4, but its network has 2",
        ),
    ],
    ids=str,
)
@pytest.mark.usefixtures("first_run_here")
def test_facts_that_contradict_the_graph_are_refused(tmp_path: Path, facts: dict[str, str], words: str) -> None:
    path = ours(tmp_path / "x.onnx", **facts)
    for use in (model_facts, open_engine):
        with pytest.raises(ModelError, match=words):
            use(path)


@pytest.mark.parametrize(
    "lie",
    [
        {"radius_px": "²"},
        {"radius_px": "٣"},
        {"scale": "²", "multiple_of": "1_0"},
        {"scale": "9" * 5000},
        {"architecture": "[" * 100_000},
        {"architecture": text(blocks=10**9)},
        {"architecture": text(blocks=2.5)},
        {"architecture": text(blocks=True)},
        {"architecture": text(blocks="1")},
        {"architecture": text(blocks=None)},
        {"architecture": text(blocks=-1)},
        {"architecture": text(scale=0)},
        {"architecture": text(network=["rrdb"])},
        {"architecture": json.dumps({"network": "Compact", "scale": 4000})},
        {"architecture": "[]"},
        {"architecture": "NaN"},
    ],
    ids=lambda lie: str(lie)[:40],
)
@pytest.mark.usefixtures("first_run_here")
def test_facts_that_are_not_as_we_write_them_count_for_nothing(tmp_path: Path, lie: dict[str, str]) -> None:
    path = ours(tmp_path / "x.onnx", **lie)
    facts = model_facts(path)
    assert (facts.scale, facts.multiple_of) == (2, 1)
    assert facts.architecture == (None if "architecture" in lie else COMPACT)
    assert facts.radius_px == 3


@pytest.mark.usefixtures("first_run_here")
def test_a_radius_that_no_network_has_is_not_believed(tmp_path: Path) -> None:
    path = write_nearest(tmp_path / "x.onnx", metadata={"realesr.radius_px": "9000"})
    assert model_facts(path).radius_px is None


def test_a_fixed_shape_of_ours_is_opened_but_not_run(tmp_path: Path) -> None:
    from realesr.models.graph_options import GraphOptions
    from realesr.models.onnx_graph import graph_bytes

    path = tmp_path / "x.onnx"
    architecture = RRDB(scale=4, features=8, blocks=1, growth=4)
    path.write_bytes(graph_bytes(small_model(architecture), GraphOptions(shape_nhw=(1, 2048, 2048))))
    start = time.monotonic()
    assert model_facts(path).scale == 4
    assert time.monotonic() - start < 10


# ---- bytes


def test_contents_are_those_that_onnx_reads(tmp_path: Path) -> None:
    path = ours(tmp_path / "x.onnx")
    model = onnx.load(path)
    contents = read_contents(path)
    assert contents.operators.total() == len(model.graph.node)
    assert set(contents.operators) == {node.op_type for node in model.graph.node}
    assert contents.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert contents.stored_bytes == path.stat().st_size


def test_weights_beside_a_file_count_as_its_own(tmp_path: Path) -> None:
    model = onnx.load_from_string(onnx_bytes(small_model(COMPACT)))
    onnx.save(model, tmp_path / "x.onnx", save_as_external_data=True, location="x.data", size_threshold=100)
    sizes = [(tmp_path / name).stat().st_size for name in ("x.onnx", "x.data")]
    assert sizes[1] > 1000
    assert read_contents(tmp_path / "x.onnx").stored_bytes == sum(sizes)
    assert model_facts(tmp_path / "x.onnx").architecture == COMPACT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x3a\x80\x80\x80\x02" + b"\x0a\x00" * (1 << 21), "has more than 65,536 operators|has more than 524,288"),
        (b"\x3a\x80\x80\x80\x02" + b"\x12\x00" * (1 << 21), "cannot be opened|has more than 524,288 fields"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cannot be opened as an ONNX network"),
        (b"\x3b\x3c", "cannot be opened as an ONNX network"),
        (b"\x80" * 20, "cannot be opened as an ONNX network"),
        (b"\x08\x08", "cannot be opened as an ONNX network"),
    ],
    ids=["empty nodes", "empty fields", "length", "groups", "number", "no graph"],
)
def test_bytes_that_are_no_graph_are_refused_at_once(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(ModelError, match=words):
        model_facts(path)
    assert time.process_time() - start < 10


# ---- half precision


@pytest.mark.parametrize("shape", [("n", 3, "h", "w"), (1, 3, 12, 14)])
@pytest.mark.usefixtures("first_run_here")
def test_files_whose_image_is_of_half_precision_are_run(tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    path = write_nearest(tmp_path / "x.onnx", dtype=TensorProto.FLOAT16, scale=3, shape=shape)
    batch = np.random.default_rng(0).random((1, 3, 12, 14), dtype=np.float32)
    with open_engine(path, precision="fp16") as engine:
        found = engine.run(batch)
        assert (engine.spec.precision, engine.spec.io_dtype, engine.spec.scale) == ("fp16", "float32", 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, batch.astype(np.float16).astype(np.float32).repeat(3, 2).repeat(3, 3))
