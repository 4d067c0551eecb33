"""What is tried, what is found to be the fastest, and when it stops; engines are fakes with a clock of their own."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from realesr.engine import EngineBase, EngineSpec, ProgressCallback
from realesr.engines import open_chosen_engine, open_engine, trial
from realesr.engines.choice import ROWS, Machine
from realesr.engines.memory_cost import GPU_COST, GPU_PIECES
from realesr.engines.trial import (
    Trial,
    answer_from,
    fastest,
    further_options,
    larger_tiles,
    photo_like,
    settings,
    trials,
)
from realesr.engines.tuning import Answer, Setting, forget, keep
from realesr.errors import EngineError, UsageError
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.runtime.rows import Band
from realesr.runtime.tiles import TilePlan
from tests.engines.small_models import small_model

WEIGHTS = small_model(Compact(scale=2, features=8, convs=1))
NCNN = Setting(engine="ncnn", device="cpu", precision="fp32", tile_px=96)
OPENVINO = replace(NCNN, engine="openvino")
BF16 = replace(OPENVINO, precision="bf16")
BF16_TRIED = ("openvino", "bf16", None, 96)
SPEEDS_US = {("ncnn", "fp32"): 2.0, ("openvino", "fp32"): 3.0, ("openvino", "bf16"): 1.0, ("onnxruntime", "fp32"): 4.0}


class FakeClock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class FakeEngine(EngineBase):
    """Takes its time on the fake clock; in bf16 a number away from fp32."""

    def __init__(self, clock: FakeClock, setting: dict[str, Any], error: float) -> None:
        self.spec = EngineSpec(name=setting["engine"], scale=2, precision=setting["precision"], device="cpu")
        self._clock, self._error = clock, error
        self._us = SPEEDS_US[setting["engine"], setting["precision"]] * (1 if setting["threads"] is None else 3)

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        self._clock.seconds += self._us * batch.shape[2] * batch.shape[3] / 1e6
        return batch.repeat(2, 2).repeat(2, 3) + np.float32(self._error if self.spec.precision == "bf16" else 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return pretend(monkeypatch, error=0.001)


def pretend(monkeypatch: pytest.MonkeyPatch, error: float) -> FakeClock:
    """A machine with bf16 on which torch does not start."""
    clock = FakeClock()

    def open_fake(_: Any, **setting: Any) -> FakeEngine:
        if setting["engine"] == "torch":
            raise EngineError("engine torch got no luck, expected some")
        return FakeEngine(clock, setting, error)

    offered = frozenset({("ncnn", "cpu"), ("openvino", "cpu"), ("onnxruntime", "cpu"), ("torch", "cpu")})
    machine = Machine(nvidia_gpus=0, has_fast_bf16=True, offered=offered)
    monkeypatch.setattr(trial, "machine_here", lambda **_: machine)
    monkeypatch.setattr(trial, "open_engine", open_fake)
    monkeypatch.setattr(trial, "usable_cores", lambda: 4)
    monkeypatch.setattr(trial, "CPU_TILE_MACS", WEIGHTS.architecture.macs_per_px * 100**2)
    return clock


def test_the_fastest_is_found_and_then_varied(clock: FakeClock) -> None:
    done = list(trials(WEIGHTS, overlap_px=3, seconds=60, clock=clock))
    tried = [(one.setting.engine, one.setting.precision, one.setting.threads, one.setting.tile_px) for one in done]
    assert tried[:3] == [(name, "fp32", None, 96) for name in ("ncnn", "openvino", "onnxruntime")]
    assert tried[3:6] == [("torch", "fp32", None, None), BF16_TRIED, ("torch", "bf16", None, None)]
    assert tried[6:] == [("openvino", "bf16", 2, 96), *(("openvino", "bf16", None, side) for side in (224, 352, 512))]
    answer = answer_from(done)
    assert answer is not None
    assert answer.best == replace(BF16, tile_px=None), "larger tiles overlap less"
    assert answer.fp32 == replace(NCNN, tile_px=None)


def test_figures_are_for_the_pixels_that_a_tile_answers_for(clock: FakeClock) -> None:
    first = next(trials(WEIGHTS, overlap_px=3, seconds=60, clock=clock))
    assert first.us_per_px == pytest.approx(2.0 * 96**2 / 90**2)


def test_bf16_that_is_too_far_from_fp32_is_shown_and_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = pretend(monkeypatch, error=0.01)
    done = list(trials(WEIGHTS, overlap_px=3, seconds=60, clock=clock))
    (bf16,) = (one for one in done if one.setting == BF16)
    assert bf16.psnr_db == pytest.approx(40, abs=0.5)
    answer = answer_from(done)
    assert answer is not None
    assert (answer.best.engine, answer.best.precision) == ("ncnn", "fp32")


def test_what_fails_is_told_and_the_others_go_on(clock: FakeClock) -> None:
    done = list(trials(WEIGHTS, overlap_px=3, seconds=60, clock=clock))
    assert [one.problem for one in done if one.setting.engine == "torch"] == [
        "engine torch got no luck, expected some"
    ] * 2


def test_nothing_is_begun_after_the_time(clock: FakeClock) -> None:
    one_run = 3 * 2.0 * 96**2 / 1e6
    done = list(trials(WEIGHTS, overlap_px=3, seconds=one_run / 2, clock=clock))
    assert [one.setting for one in done] == [NCNN]


def test_no_engine_no_answer() -> None:
    assert answer_from([Trial(setting=NCNN, problem="broken")]) is None
    assert answer_from([]) is None


def test_a_tile_is_kept_only_where_a_larger_one_was_tried() -> None:
    larger = replace(NCNN, tile_px=192)
    for us, expected in ((0.5, None), (2.0, 96)):
        answer = answer_from([Trial(setting=NCNN, us_per_px=1), Trial(setting=larger, us_per_px=us)])
        assert answer is not None
        assert answer.best.tile_px == expected
    answer = answer_from([Trial(setting=NCNN, us_per_px=1), Trial(setting=larger, problem="out of memory")])
    assert answer is not None
    assert answer.best == NCNN


def test_a_larger_tile_is_tried_where_there_is_time_for_its_runs(clock: FakeClock) -> None:
    first_tiles_s = 3 * (2 + 3 + 4 + 1 + 3) * 96**2 / 1e6
    done = list(trials(WEIGHTS, overlap_px=32, seconds=first_tiles_s + 3 * 224**2 / 1e6, clock=clock))
    assert done[-1].setting == replace(BF16, tile_px=224), "overlap costs the engine no time"


def test_a_gain_of_two_percent_is_not_worth_another_number_of_threads() -> None:
    for us, expected in ((0.98, None), (0.9, 2)):
        found = fastest([Trial(setting=NCNN, us_per_px=1), Trial(setting=replace(NCNN, threads=2), us_per_px=us)])
        assert found is not None
        assert found.threads == expected
    found = fastest([Trial(setting=NCNN, us_per_px=1), Trial(setting=OPENVINO, us_per_px=0.99)])
    assert found == OPENVINO


def test_gpus_are_tried_in_fp16_and_tensorrt_is_left_out() -> None:
    everything = Machine(nvidia_gpus=1, offered=frozenset((row.engine, row.device) for row in ROWS))
    found = settings(everything)
    assert {setting.precision for setting in found if setting.device == "cuda"} == {"fp32", "fp16"}
    assert {setting.precision for setting in found if setting.device == "cpu"} == {"fp32"}
    assert not {"tensorrt"} & {setting.engine for setting in found}
    assert len(found) == len(set(found))


GPU = Machine(nvidia_gpus=1, offered=frozenset({("torch", "cuda"), ("onnxruntime", "cuda")}))
GPU_SIDE_PX = 192
ALL_MODES = {"graphs": 0.0, "eager": 2e-3}
"""Seconds that starting the kernels of a run takes."""


class FakeGpuEngine(EngineBase):
    """A GPU with time for kernels to start and time for pixels; joined tiles cost the host nothing."""

    def __init__(self, clock: FakeClock, setting: dict[str, Any], us: float, memory_bytes: int) -> None:
        options = setting["options"]
        self.plans: list[TilePlan] = []
        self.spec = EngineSpec(
            name=setting["engine"],
            scale=2,
            precision=setting["precision"],
            device="cuda:0",
            joins_tiles=setting["engine"] == "torch",
            device_bytes=memory_bytes,
            pieces=GPU_PIECES,
        )
        self._clock = clock
        self._us = us * (1 if setting["precision"] == "fp32" else 0.5)
        self._start_seconds = ALL_MODES[options.get("mode", "eager")]
        self._host_seconds = 0.0 if self.spec.joins_tiles else 1e-3
        if setting["engine"] == "onnxruntime":
            self._us *= 3 if options == {"prefer_nhwc": "1"} else 4

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        self._take(batch.shape[2] * batch.shape[3], self._host_seconds)
        return batch.repeat(2, 2).repeat(2, 3)

    def bytes_for(self, architecture: Architecture, height_px: int, width_px: int, *, in_strips: bool = False) -> float:
        return GPU_COST.bytes_for(architecture, height_px, width_px, self.spec.precision)

    def _take(self, pixels: int, host_seconds: float) -> None:
        self._clock.seconds += self._start_seconds + self._us * pixels / 1e6 + host_seconds

    def open_tile_rows(self, plan: TilePlan, *, eight_bit: bool) -> "FakeTileRows":
        assert eight_bit
        self.plans.append(plan)
        return FakeTileRows(self, plan)


class FakeTileRows:
    """Rows of tiles that are black."""

    def __init__(self, engine: FakeGpuEngine, plan: TilePlan) -> None:
        self._engine, self._plan = engine, plan

    def push(self, index: int, lr: Band) -> "FakeRow":
        height, width = self._plan.tile_shape
        for _ in self._plan.columns.tiles:
            self._engine._take(height * width, 0.0)
        ends = [row.last for row in self._plan.rows.tiles]
        rows_px = ends[index] - (ends[index - 1] if index else 0)
        return FakeRow(np.zeros((3, 2 * rows_px, 2 * lr.shape[2]), np.uint8))

    def fade(self, index: int) -> Band | None:
        return None

    def close(self) -> None:
        pass


class FakeRow:
    def __init__(self, rows: NDArray[np.uint8]) -> None:
        self._rows = rows

    def result(self, _: ProgressCallback) -> NDArray[np.uint8]:
        return self._rows


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, us: float = 0.2, memory_bytes: int = 25_000_000) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(trial, "machine_here", lambda **_: GPU)
    monkeypatch.setattr(trial, "open_engine", lambda _, **setting: FakeGpuEngine(clock, setting, us, memory_bytes))
    monkeypatch.setattr(trial, "CPU_TILE_MACS", WEIGHTS.architecture.macs_per_px * 100**2)
    monkeypatch.setattr(trial, "GPU_TILE_MACS", WEIGHTS.architecture.macs_per_px * GPU_SIDE_PX**2)
    return clock


def test_the_options_of_a_gpu_are_tried_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = pretend_gpu(monkeypatch)
    done = list(trials(WEIGHTS, overlap_px=3, seconds=60, clock=clock))
    tried = [(one.setting.engine, one.setting.precision, dict(one.setting.options)) for one in done]
    graphs, nhwc = {"mode": "graphs"}, {"prefer_nhwc": "1"}
    variants = [("onnxruntime", {}), ("onnxruntime", nhwc), ("torch", {}), ("torch", graphs)]
    assert tried[:8] == [(engine, which, options) for which in ("fp32", "fp16") for engine, options in variants]
    assert tried[8:9] == [("torch", "fp16", {**graphs, "streams": "2"})]
    answer = answer_from(done)
    assert answer is not None
    best = Setting(engine="torch", device="cuda", precision="fp16", options=graphs)
    assert replace(answer.best, tile_px=None) == best, "two streams gain nothing"
    assert answer.fp32 == replace(best, precision="fp32")


def test_other_options_have_to_be_worth_it() -> None:
    plain = Setting(engine="torch", device="cuda", precision="fp16", tile_px=96)
    graphs = replace(plain, options={"mode": "graphs"})
    for us, expected in ((0.98, plain), (0.96, graphs)):
        found = [Trial(setting=plain, us_per_px=1, psnr_db=60), Trial(setting=graphs, us_per_px=us, psnr_db=60)]
        assert fastest(found) == expected


def test_a_gpu_is_timed_over_four_large_tiles_and_their_joining(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = pretend_gpu(monkeypatch)
    done = list(trials(WEIGHTS, overlap_px=3, seconds=60, clock=clock))
    torch_fp32 = next(one for one in done if one.setting.engine == "torch")
    assert torch_fp32.setting.tile_px == GPU_SIDE_PX
    seconds = 2e-3 + 0.2 * GPU_SIDE_PX**2 / 1e6
    assert torch_fp32.us_per_px == pytest.approx(seconds * 1e6 / (GPU_SIDE_PX - 6) ** 2)
    sides = [one.setting.tile_px for one in done]
    assert sides[:9] == [GPU_SIDE_PX] * 9
    assert sides[9:] == [224, 288, 352], "as large as the GPU's memory allows"


@pytest.mark.parametrize(("us", "expected"), [(0.2, GPU_SIDE_PX), (40, 128), (400, 64)])
def test_the_first_tile_of_a_slow_gpu_is_smaller(monkeypatch: pytest.MonkeyPatch, us: float, expected: int) -> None:
    clock = pretend_gpu(monkeypatch, us=us)
    done = list(trials(WEIGHTS, overlap_px=3, seconds=2000, clock=clock))
    assert next(one for one in done if one.setting.engine == "torch").setting.tile_px == expected


def test_the_first_tile_fits_into_the_memory_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = pretend_gpu(monkeypatch, memory_bytes=8_750_000)
    first = next(trials(WEIGHTS, overlap_px=3, seconds=60, clock=clock))
    assert first.setting.tile_px is not None
    assert 64 <= first.setting.tile_px < GPU_SIDE_PX


def test_the_first_tile_of_an_h100_is_576_px_of_x4plus() -> None:
    from realesr.models.zoo import ZOO

    side = (trial.GPU_TILE_MACS / ZOO["realesrgan-x4plus"].architecture.macs_per_px) ** 0.5
    assert int(side) // 32 * 32 == 576


def test_own_kernels_are_tried_where_they_are_for_the_network() -> None:
    fast = Setting(engine="torch", device="cuda", precision="fp16")
    large, compact = RRDB(scale=4), WEIGHTS.architecture
    assert further_options(fast, large)[0] == {"kernels": "triton"}
    for setting, architecture in ((fast, compact), (replace(fast, precision="fp32"), large)):
        assert "kernels" not in {name for options in further_options(setting, architecture) for name in options}
    assert further_options(replace(fast, device="cpu"), large) == []
    assert further_options(replace(fast, engine="onnxruntime"), large) == []


def test_larger_tiles_end_with_the_largest() -> None:
    assert larger_tiles(64, 288) == [128, 192, 288]
    assert larger_tiles(64, 96) == [96]
    assert larger_tiles(288, 288) == []


def test_the_picture_has_values_like_a_photo() -> None:
    picture = photo_like(97)
    assert picture.shape == (1, 3, 97, 97)
    assert 0 <= picture.min() < 0.2 and 0.8 < picture.max() <= 1
    assert np.corrcoef(picture[..., 1:].ravel(), picture[..., :-1].ravel())[0, 1] > 0.5, "neighbours are alike"
    assert np.array_equal(picture, photo_like(97))


def test_upscale_takes_what_was_kept() -> None:
    setting = Setting(engine="torch", device="cpu", precision="fp32", threads=1, tile_px=128)
    keep(WEIGHTS, Answer(best=setting, fp32=replace(setting, engine="onnxruntime")))
    try:
        chosen = open_chosen_engine(WEIGHTS)
        with chosen.engine as engine:
            assert (engine.spec.name, chosen.tuned_tile_px) == ("torch", 128)
            assert chosen.chosen_because == "the fastest that was measured here"
        for asked, expected in ((("fp32", "auto"), "onnxruntime"), (("auto", "cpu"), "torch")):
            with open_engine(WEIGHTS, precision=asked[0], device=asked[1]) as engine:
                assert engine.spec.name == expected
        with open_engine(WEIGHTS, engine="openvino") as engine:
            assert engine.spec.name == "openvino"
    finally:
        forget()


def test_upscale_takes_the_options_that_were_kept() -> None:
    setting = Setting(engine="torch", device="cpu", precision="fp32", threads=1, options={"join": "device"})
    keep(WEIGHTS, Answer(best=setting, fp32=setting))
    try:
        chosen = open_chosen_engine(WEIGHTS)
        with chosen.engine as engine:
            assert engine.spec.joins_tiles
            assert chosen.chosen_because.endswith("measured here, with join=device")
        with open_engine(WEIGHTS, options={"join": "host"}) as engine:
            assert not engine.spec.joins_tiles
        with open_engine(WEIGHTS, engine="torch", device="cpu") as engine:
            assert not engine.spec.joins_tiles
        with pytest.raises(UsageError, match="engine torch got the option prefer_nhwc, expected"):
            open_engine(WEIGHTS, options={"prefer_nhwc": "1"})
    finally:
        forget()
