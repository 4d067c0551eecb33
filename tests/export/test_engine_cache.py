"""The cache of engines: what is loaded again, what is built anew, and what two processes do to each other."""

import dataclasses
import errno
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from realesr.engines.nvidia import tensorrt_library
from realesr.engines.nvidia.cuda_memory import GpuFacts
from realesr.engines.nvidia.tensorrt_sidecar import read_sidecar, sidecar_path, text_from_sidecar
from realesr.errors import EngineError, MissingDependency, UsageError
from realesr.export import engine_cache
from realesr.export.engine_cache import cached_engine
from realesr.export.tensorrt_build import TensorrtOptions
from realesr.machine.whole_file import file_sha256
from realesr.models.compact import Compact
from realesr.models.onnx_graph import onnx_bytes
from realesr.models.weights import Weights
from tests.engines.nvidia.fake_gpu import H100, RTX_4090, SIDECAR
from tests.models.small_networks import small_weights

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed (tensorrt-rtx-cu13)"
)
WEIGHTS: Weights = small_weights(Compact(scale=2, features=8, convs=1))


class Trt:
    """As much of the library as the cache looks at."""

    __version__ = "1.7.1.116"
    ComputeCapability = SimpleNamespace(__members__={name: 0 for name in ("NONE", "CURRENT", "SM75", "SM86", "SM89")})


class Cache:
    """A cache of its own on a machine with a GPU of our choice, and a builder that builds at once, and counts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "engines"
        self.gpu = RTX_4090
        self.trt: Any = Trt()
        self.builds = 0
        monkeypatch.setenv("REALESR_CACHE", str(folder))
        monkeypatch.setattr(engine_cache, "gpu_facts", lambda number: self.gpu)
        monkeypatch.setattr(engine_cache, "installed", lambda: ("tensorrt-rtx",))
        monkeypatch.setattr(engine_cache, "load", lambda library: self.trt)
        monkeypatch.setattr(engine_cache, "export_tensorrt", self.build)

    def build(self, onnx_path: Path, target: Path, options: TensorrtOptions) -> None:
        self.builds += 1
        target.parent.mkdir(parents=True)
        target.write_bytes(onnx_path.read_bytes())
        sidecar = dataclasses.replace(
            SIDECAR,
            library_version=self.trt.__version__,
            onnx_sha256=file_sha256(onnx_path),
            engine_sha256=file_sha256(target),
            profile=options.profile,
        )
        sidecar_path(target).write_text(text_from_sidecar(sidecar))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    return Cache(tmp_path, monkeypatch)


def test_an_engine_is_built_once(cache: Cache) -> None:
    path = cached_engine(WEIGHTS)
    assert cached_engine(WEIGHTS) == cached_engine(WEIGHTS, device="cuda:0", precision="fp16") == path
    assert cache.builds == 1
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "key.json",
        "small-fp16.engine",
        "small-fp16.engine.json",
    ]
    assert cache.names() == [path.parent.name], "nothing is left beside it"
    assert json.loads((path.parent / "key.json").read_text())["gpu"]["name"] == RTX_4090.name


def test_whatever_an_engine_depends_on_asks_for_another(cache: Cache) -> None:
    paths = [cached_engine(WEIGHTS), cached_engine(WEIGHTS, precision="fp32")]
    paths.append(cached_engine(WEIGHTS, read_px=600))
    paths.append(cached_engine(small_weights(WEIGHTS.architecture, seed=1)))
    for changes in ({"name": "NVIDIA L4"}, {"driver": "13.1 (590.10)"}, {"compute_capability": (8, 6)}):
        cache.gpu = dataclasses.replace(RTX_4090, **changes)
        paths.append(cached_engine(WEIGHTS))
    cache.gpu = RTX_4090
    cache.trt.__version__ = "1.8.0"
    paths.append(cached_engine(WEIGHTS))
    cache.trt.__version__ = Trt.__version__
    assert len(set(paths)) == len(paths) == cache.builds == 8
    assert cached_engine(WEIGHTS) == paths[0]
    assert cache.builds == 8


def test_a_tile_that_the_usual_engine_takes_asks_for_no_other(cache: Cache) -> None:
    assert cached_engine(WEIGHTS, read_px=300) == cached_engine(WEIGHTS)
    assert cache.builds == 1


def damage(path: Path, how: str) -> None:
    sidecar = sidecar_path(path)
    if how == "engine":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif how == "no engine":
        path.unlink()
    elif how == "no sidecar":
        sidecar.unlink()
    elif how == "broken sidecar":
        sidecar.write_text("{")
    elif how == "foreign sidecar":
        sidecar.write_text(sidecar.read_text().replace("1.7", "1.6"))
    elif how == "no key":
        path.with_name("key.json").unlink()
    elif how == "foreign key":
        key = path.with_name("key.json")
        key.write_text(key.read_text().replace(RTX_4090.name, H100.name))


@pytest.mark.parametrize(
    "how",
    [
        "engine",
        "truncated",
        "no engine",
        "no sidecar",
        "broken sidecar",
        "foreign sidecar",
        "no key",
        "foreign key",
    ],
)
def test_what_is_damaged_or_foreign_is_built_anew(cache: Cache, how: str) -> None:
    path = cached_engine(WEIGHTS)
    damage(path, how)
    assert cached_engine(WEIGHTS) == path
    assert cache.builds == 2
    assert cached_engine(WEIGHTS) == path
    assert cache.builds == 2
    assert cache.names() == [path.parent.name]


def test_an_onnx_file_has_engines_as_well(cache: Cache, tmp_path: Path) -> None:
    source = tmp_path / "mine.onnx"
    source.write_bytes(onnx_bytes(WEIGHTS, "fp32"))
    path = cached_engine(source)
    assert path.name == "mine-fp32.engine"
    source.write_bytes(onnx_bytes(WEIGHTS, "fp16"))
    assert cached_engine(source).name == "mine-fp16.engine"
    assert cache.builds == 2
    with pytest.raises(UsageError, match=r"got precision fp16 for mine\.onnx, which has its own"):
        cached_engine(source, precision="fp16")


def test_where_nothing_may_be_built_that_is_said(cache: Cache) -> None:
    with pytest.raises(EngineError, match=r"no engine of small has been built for NVIDIA GeForce RTX 4090 yet"):
        cached_engine(WEIGHTS, may_build=False)
    path = cached_engine(WEIGHTS)
    assert cached_engine(WEIGHTS, may_build=False) == path


def test_a_gpu_that_the_library_does_not_know_is_told_with_what_to_install(cache: Cache) -> None:
    cache.gpu = H100
    with pytest.raises(EngineError, match=r"is not for .*H100.* \(sm90\), but for sm75, sm86, sm89: run 'pip install"):
        cached_engine(WEIGHTS)
    assert cache.builds == 0


def test_without_any_tensorrt_the_line_that_installs_it_is_told(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_cache, "installed", lambda: ())
    with pytest.raises(MissingDependency, match="engine tensorrt needs TensorRT: run 'pip install tensorrt"):
        cached_engine(WEIGHTS)


def test_bf16_is_refused(cache: Cache) -> None:
    with pytest.raises(UsageError, match="engine tensorrt got precision bf16, expected fp16 or fp32"):
        cached_engine(WEIGHTS, precision="bf16")


def test_tensorrt_itself_is_preferred_and_gets_a_timing_cache(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def build(onnx_path: Path, target: Path, options: Any) -> None:
        asked.append(options)
        raise EngineError("no builder here")

    monkeypatch.setattr(engine_cache, "installed", lambda: ("tensorrt", "tensorrt-rtx"))
    cache.trt = SimpleNamespace(__version__="11.4.0")
    monkeypatch.setattr(engine_cache, "export_tensorrt", build)
    cache.gpu = H100
    with pytest.raises(EngineError, match="no builder here"):
        cached_engine(WEIGHTS, device="cuda:1")
    (options,) = asked
    assert (options.library, options.compute_capabilities, options.device) == ("tensorrt", (), 1)
    assert options.timing_cache.name == "timing-NVIDIA-H100-80GB-HBM3-11-4-0.bin"
    assert options.reference.name.endswith("fp32.onnx")
    assert cache.names() == []


def test_a_full_disk_is_one_line(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("realesr.export.engine_cache.folder_beside", full)
    with pytest.raises(EngineError, match=r"\(No space left on device\): free .* or set REALESR_CACHE") as caught:
        cached_engine(WEIGHTS)
    assert "\n" not in str(caught.value)


TWO = """
import sys
from realesr.export import engine_cache
from tests.export.test_engine_cache import WEIGHTS
from tests.engines.nvidia.fake_gpu import RTX_4090
engine_cache.gpu_facts = lambda number: RTX_4090
engine_cache.installed = lambda: ("tensorrt-rtx",)
sys.stdin.readline()
print(engine_cache.cached_engine(WEIGHTS))
"""


@needs_rtx
def test_two_processes_at_once_do_not_break_each_other(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=120)[0].strip() for process in processes}
    cache.trt = tensorrt_library.load("tensorrt-rtx")
    path = cached_engine(WEIGHTS)
    assert answers == {str(path)}
    assert cache.builds == 0, "what they left is whole"
    assert cache.names() == [path.parent.name]
    sidecar = read_sidecar(path)
    assert (sidecar.targets, sidecar.precision, sidecar.weights_sha256) == (("sm89",), "fp16", WEIGHTS.sha256)


def test_the_quicker_of_two_builders_wins(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    inner: list[Any] = []

    def overtaken(*arguments: Any) -> None:
        cache.build(*arguments)
        if not inner:
            inner.append("running")
            inner.append(cached_engine(WEIGHTS))  # another process, while this one was building

    monkeypatch.setattr(engine_cache, "export_tensorrt", overtaken)
    path = cached_engine(WEIGHTS)
    assert inner == ["running", path]
    assert cache.names() == [path.parent.name]


def test_the_facts_of_the_gpu_are_asked_for_the_device_that_was_named(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def facts(number: int) -> GpuFacts:
        asked.append(number)
        raise EngineError("got the device cuda:3, expected one that there is")

    monkeypatch.setattr(engine_cache, "gpu_facts", facts)
    with pytest.raises(EngineError, match="cuda:3"):
        cached_engine(WEIGHTS, device="cuda:3")
    assert asked == [3]
