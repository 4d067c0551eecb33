"""What is tried, what is found to be the fastest, and when it stops; engines are fakes with a clock of their own."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from realesr.architectures import Compact
from realesr.engine import EngineBase, EngineSpec
from realesr.engines import open_engine, trial
from realesr.engines.choice import ROWS, Machine
from realesr.engines.trial import Trial, answer_from, fastest, larger_tiles, photo_like, settings, trials
from realesr.errors import EngineError
from realesr.tuning import Answer, Setting, keep
from tests.engines.small_models import small_model

WEIGHTS = small_model(Compact(scale=2, features=8, convs=1))
NCNN = Setting(engine="ncnn", device="cpu", precision="fp32", tile_px=96)
OPENVINO = replace(NCNN, engine="openvino")
BF16 = replace(OPENVINO, precision="bf16")
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

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
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
    monkeypatch.setattr(trial, "free_bytes", lambda: 1 << 40)
    monkeypatch.setattr(trial, "WORK_MAC", WEIGHTS.architecture.mac_per_px * 100**2)
    return clock


def test_the_fastest_is_found_and_then_varied(clock: FakeClock) -> None:
    done = list(trials(WEIGHTS, overlap_px=3, seconds=60, clock=clock))
    tried = [(one.setting.engine, one.setting.precision, one.setting.threads, one.setting.tile_px) for one in done]
    assert tried[:4] == [(name, "fp32", None, 96) for name in ("ncnn", "openvino", "onnxruntime", "torch")]
    assert tried[4:6] == [("openvino", "bf16", None, 96), ("torch", "bf16", None, 96)]
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
    found = settings(everything, 64)
    assert {setting.precision for setting in found if setting.device == "cuda"} == {"fp32", "fp16"}
    assert {setting.precision for setting in found if setting.device == "cpu"} == {"fp32"}
    assert not {"tensorrt"} & {setting.engine for setting in found}
    assert len(found) == len(set(found))


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
        with open_engine(WEIGHTS) as engine:
            assert (engine.spec.name, engine.spec.best_tile_px) == ("torch", 128)
            assert engine.spec.chosen_because == "the fastest that 'realesr tune' has measured here"
        for asked, expected in ((("fp32", "auto"), "onnxruntime"), (("auto", "cpu"), "torch")):
            with open_engine(WEIGHTS, precision=asked[0], device=asked[1]) as engine:
                assert engine.spec.name == expected
        with open_engine(WEIGHTS, engine="openvino") as engine:
            assert engine.spec.name == "openvino"
    finally:
        from realesr.tuning import forget

        forget()
