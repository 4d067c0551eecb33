"""ONNX Runtime's devices: plug-ins beside it, options of providers, input and output that stay on a device.

No GPU is needed: a fake plug-in stands on the CPU provider's own device, and bindings are made in the CPU's memory.
"""

import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest

from realesr.engines import available_engines, open_chosen_engine, open_engine
from realesr.engines.choice import PLUGIN_MODULES
from realesr.engines.onnx_runtime import devices as onnxruntime_devices
from realesr.engines.onnx_runtime.binding import DeviceBinding
from realesr.engines.onnx_runtime.devices import ProviderPlace, add_place, place_for
from realesr.errors import EngineError, MissingDependency, OutOfMemory, UsageError
from realesr.models.compact import Compact
from realesr.models.onnx_graph import onnx_bytes
from tests.engines.small_models import small_model

COMPACT = small_model(Compact(scale=2, features=8, convs=1))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What a plug-in shows is looked at once in a process."""
    onnxruntime_devices._registered.cache_clear()
    yield
    onnxruntime_devices._registered.cache_clear()


class Device:
    """As ONNX Runtime shows a device of a plug-in."""

    def __init__(self, name: str = "FakeProvider", *, is_virtual: bool = False, version: str = "0.4.0") -> None:
        self.ep_name = name
        self.ep_metadata = {"version": version}
        self.device = types.SimpleNamespace(metadata={"is_virtual": "1"} if is_virtual else {})


def install(
    monkeypatch: pytest.MonkeyPatch, kind: str, found: list[Any], fails: str = "", name: str = "FakeProvider"
) -> None:
    """A plug-in's package whose library registers, or does not, and then shows these devices."""
    (module_name,) = PLUGIN_MODULES[kind]
    module = types.ModuleType(module_name)
    module.__spec__ = types.SimpleNamespace(name=module_name)  # type: ignore[assignment]
    module.get_library_path = lambda: "/nowhere.so"  # type: ignore[attr-defined]
    module.get_ep_names = lambda: [name]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module_name, module)

    registered: list[str] = []

    def register(library: str, path: str) -> None:
        if library in registered:
            raise RuntimeError(f"EP library is already registered under {library}")
        registered.append(library)
        if fails:
            raise RuntimeError(fails)

    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", register)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: found)


def real_cpu_device() -> Any:
    return next(device for device in onnxruntime.get_ep_devices() if device.ep_name == "CPUExecutionProvider")


def test_a_network_runs_on_the_device_of_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "webgpu", [real_cpu_device()], name="CPUExecutionProvider")
    batch = np.random.default_rng(0).random((1, 3, 9, 7), dtype=np.float32)
    with (
        open_engine(COMPACT, engine="onnxruntime", device="webgpu", precision="fp32") as engine,
        open_engine(COMPACT, engine="onnxruntime", device="cpu") as exact,
    ):
        assert engine.spec.device == "webgpu:0"
        np.testing.assert_allclose(engine.run(batch), exact.run(batch), atol=1e-6)
    chosen = open_chosen_engine(COMPACT, device="webgpu")
    with chosen.engine as engine:
        assert (engine.spec.precision, chosen.chosen_because) == (
            "fp16",
            "a GPU with ONNX Runtime's WebGPU plug-in",
        )
    assert "webgpu" in onnxruntime_devices.devices()


def test_a_plugin_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLUGIN_MODULES, "webgpu", ("no_such_module_at_all",))
    with pytest.raises(MissingDependency, match="run 'pip install onnxruntime-ep-webgpu'"):
        place_for("webgpu")
    assert "webgpu" not in onnxruntime_devices.devices()
    assert not [problem for problem in onnxruntime_devices.plugin_problems() if problem.startswith("webgpu")]


@pytest.mark.parametrize(
    ("found", "fails", "words"),
    [
        ([], "", "starts but finds no device: expected a GPU with its driver and the Vulkan loader"),
        ([Device(is_virtual=True)], "", "starts but finds no device"),
        ([Device("Another")], "", "starts but finds no device"),
        (
            [],
            "[ONNXRuntimeError] : 1 : FAIL : libvulkan.so.1:\n cannot open",
            r"cannot start here \(libvulkan.so.1: cannot open\)",
        ),
    ],
)
def test_a_plugin_that_does_not_work_is_one_line(
    monkeypatch: pytest.MonkeyPatch, found: list[Any], fails: str, words: str
) -> None:
    install(monkeypatch, "webgpu", found, fails)
    with pytest.raises(EngineError, match=words) as caught:
        open_engine(COMPACT, engine="onnxruntime", device="webgpu:0")
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError) as again:
        place_for("webgpu")
    assert str(again.value) == str(caught.value), "a second look must not register the library again"
    assert "webgpu" not in onnxruntime_devices.devices()
    facts = next(facts for facts in available_engines() if facts.name == "onnxruntime")
    assert facts.works, "the CPU works all the same"
    assert any(note.startswith("webgpu: the plug-in") for note in facts.notes)


def test_a_broken_plugin_leaves_the_cpu_to_the_automatic_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "webgpu", [], "too old")
    chosen = open_chosen_engine(COMPACT, engine="onnxruntime")
    with chosen.engine as engine:
        assert engine.spec.device == "cpu"
        assert "onnxruntime on webgpu did not start (the plug-in onnxruntime-ep-webgpu" in chosen.chosen_because


def test_webgpu_numbers_need_a_plugin_that_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "webgpu", [Device(version="0.4.0")])
    with pytest.raises(EngineError, match=r"0\.4\.0 chooses the GPU itself: expected webgpu, or version 0\.5"):
        add_place(None, ProviderPlace(kind="webgpu", number=1), "fp16")
    install(monkeypatch, "webgpu", [Device(version="0.5.0")])
    asked: list[Any] = []
    options = types.SimpleNamespace(add_provider_for_devices=lambda devices, own: asked.extend([devices, own]))
    assert add_place(options, ProviderPlace(kind="webgpu", number=1), "fp16") == ("FakeProvider", {})
    assert asked[1] == {"adapterIndex": "1"}


def test_further_devices_of_a_plugin_are_taken_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Device(), Device()
    install(monkeypatch, "tensorrt_rtx", [first, Device("Another"), second])
    asked: list[Any] = []
    options = types.SimpleNamespace(add_provider_for_devices=lambda devices, own: asked.append((devices, own)))
    add_place(options, place_for("tensorrt_rtx:1"), "fp16")
    assert asked == [([second], {})]
    with pytest.raises(EngineError, match="tensorrt_rtx:2, expected tensorrt_rtx:0 to tensorrt_rtx:1"):
        add_place(options, place_for("tensorrt_rtx:2"), "fp16")
    with pytest.raises(UsageError, match="expected tensorrt_rtx:0, tensorrt_rtx:1"):
        place_for("tensorrt_rtx:x")


def test_float32_on_cuda_is_not_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    for precision, expected in (("fp32", "0"), ("fp16", None)):
        _, arguments = add_place(None, ProviderPlace(kind="cuda"), precision)  # type: ignore[arg-type]
        options = arguments["providers"][0][1]
        assert options.get("use_tf32") == expected
        assert options["arena_extend_strategy"] == "kSameAsRequested"


def test_what_the_search_for_cudas_libraries_prints_is_no_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`preload_dlls` of onnxruntime-gpu 1.31.1 tells by print, in onnxruntime/__init__.py, what it does not find."""
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    message = "Failed to load libcudnn.so.9: cannot open shared object file\n"
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write(message))
    add_place(None, ProviderPlace(kind="cuda"), "fp16")
    assert capsys.readouterr() == ("", message)


def bound() -> tuple[DeviceBinding, Any]:
    session = onnxruntime.InferenceSession(onnx_bytes(COMPACT), providers=["CPUExecutionProvider"])
    return DeviceBinding(session, "cpu", 0), session


def test_a_binding_gives_what_the_session_gives_for_every_shape() -> None:
    binding, session = bound()
    options = onnxruntime.RunOptions()
    for seed, shape in enumerate([(1, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8), (1, 3, 5, 9), (1, 3, 8, 8)]):
        batch = np.random.default_rng(seed).random(shape, dtype=np.float32)
        batch.flags.writeable = False
        expected = session.run(None, {"input": batch})[0]
        assert np.array_equal(binding.run(batch, options), expected)


class CopyingBinding:
    """As ONNX Runtime's, where the first node that takes the input is on another device than the value.

    `IOBinding::BindInput` then copies it, there and then: core/session/IOBinding.cc, CopyOneInputAcrossDevices.
    """

    def __init__(self, binding: Any) -> None:
        self._binding = binding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._binding, name)

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self._binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value.numpy().copy()))


def test_a_value_that_was_copied_when_it_was_bound_is_bound_again() -> None:
    _, session = bound()

    class Session:
        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

        def io_binding(self) -> CopyingBinding:
            return CopyingBinding(session.io_binding())

        def run_with_iobinding(self, binding: CopyingBinding, options: Any) -> None:
            session.run_with_iobinding(binding._binding, options)

    binding = DeviceBinding(Session(), "cpu", 0)
    for seed in range(3):
        batch = np.random.default_rng(seed).random((1, 3, 8, 8), dtype=np.float32)
        expected = session.run(None, {"input": batch})[0]
        assert np.array_equal(binding.run(batch, onnxruntime.RunOptions()), expected)


def test_what_a_binding_gives_belongs_to_the_caller() -> None:
    binding, _ = bound()
    options = onnxruntime.RunOptions()
    batch = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)
    first = binding.run(batch, options)
    kept, given = first.copy(), batch.copy()
    second = binding.run(batch * np.float32(0.5), options)
    assert np.array_equal(first, kept)
    assert np.array_equal(batch, given)
    assert not np.shares_memory(first, second)
    first[:] = -1
    assert np.array_equal(binding.run(batch, options), kept)


def test_a_binding_gives_its_memory_back_where_a_tile_does_not_fit() -> None:
    binding, _ = bound()
    batch = np.zeros((1, 3, 8, 8), np.float32)
    binding.run(batch, onnxruntime.RunOptions())

    class Full:
        def run_with_iobinding(self, *_: Any) -> None:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")

    working, binding._session = binding._session, Full()
    with pytest.raises(RuntimeError):
        binding.run(batch, onnxruntime.RunOptions())
    assert binding._input is None
    binding._session = working
    assert binding.run(batch, onnxruntime.RunOptions()).shape == (1, 3, 16, 16)


def test_an_engine_with_a_binding_keeps_the_promises_of_one_without() -> None:
    with open_engine(COMPACT, engine="onnxruntime", device="cpu") as plain:
        batch = np.random.default_rng(0).random((2, 3, 6, 7), dtype=np.float32)
        expected = plain.run(batch)
        plain._binding = DeviceBinding(plain._session, "cpu", 0)  # type: ignore[attr-defined]
        assert np.array_equal(plain.run(batch), expected)

        class Full:
            def run(self, *_: Any) -> None:
                raise RuntimeError("CUDA failure 2: out of memory ; GPU=0")

        plain._binding = Full()  # type: ignore[attr-defined]
        with pytest.raises(OutOfMemory, match="expected a smaller tile"):
            plain.run(batch)
