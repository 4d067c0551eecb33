"""Order of copies and work on two streams, on a GPU that runs them in every order which that leaves open."""

import numpy as np
import pytest
from numpy.typing import NDArray

from realesr.engine import IoDtype
from realesr.engines.nvidia.tensorrt_pipeline import Pipeline
from realesr.errors import EngineError, OutOfMemory
from tests.engines.nvidia.fake_gpu import FakeContext, FakeMemory, fake_log

SCALE = 2


class Rig:
    """A pipeline and what it runs on."""

    def __init__(self, *, captures: bool = True, io_dtype: IoDtype = "float32", **memory) -> None:
        self.memory = FakeMemory(**memory)
        self.log = fake_log()
        dtype = np.uint8 if io_dtype == "uint8" else np.float32
        self.context = FakeContext(self.memory, self.log, SCALE, dtype)
        with self.memory.active():
            self.pipeline = Pipeline(
                self.memory,
                self.context,
                names=("input", "output"),
                scale=SCALE,
                io_dtype=io_dtype,
                captures=captures,
                failure=lambda what: EngineError(f"{what}: {self.log.messages}"),
            )

    def run(self, batch: NDArray[np.float32], each: int = 1) -> NDArray[np.float32]:
        self.memory.calls.clear()
        with self.memory.active():
            return self.pipeline.run(batch, each)


def picture(count: int = 1, height: int = 5, width: int = 7, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, 3, height, width), dtype=np.float32)


def enlarged(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    return batch.repeat(SCALE, 2).repeat(SCALE, 3)


@pytest.mark.parametrize("seed", range(12))
def test_every_order_that_the_streams_allow_gives_the_same_pixels(seed: int) -> None:
    rig = Rig(seed=seed, can_capture=seed % 2 == 0)
    for step, (count, each) in enumerate([(1, 1), (2, 1), (8, 1), (8, 2), (8, 4), (3, 1), (3, 3), (8, 1), (8, 1)]):
        batch = picture(count, seed=step)
        np.testing.assert_array_equal(rig.run(batch, each), enlarged(batch))


@pytest.mark.parametrize("seed", range(4))
def test_sizes_may_change_from_run_to_run(seed: int) -> None:
    rig = Rig(seed=seed)
    for height, width in [(5, 7), (5, 7), (7, 5), (1, 1), (1, 1), (1, 1), (5, 7)]:
        batch = picture(3, height, width)
        np.testing.assert_array_equal(rig.run(batch), enlarged(batch))
    with rig.memory.active():
        rig.pipeline.release()
    assert rig.memory.buffers == {}
    assert rig.memory.pinned_arrays == []
    assert rig.memory.graphs == []


def test_the_next_part_is_uploaded_before_the_last_one_is_downloaded() -> None:
    rig = Rig(can_capture=False)
    rig.run(picture(4))
    order = [call for call in rig.memory.calls if call in ("upload", "execute", "download", "wait here")]
    expected = ["upload", "execute", "upload", "download", "execute", "upload", "download", "execute"]
    expected += ["upload", "download", "execute", "download"]
    assert order == expected + ["wait here"] * 4, "nothing waits before all has been sent"


def test_parts_of_one_image_need_no_more_memory_on_the_gpu_than_two_of_them() -> None:
    rig = Rig()
    rig.run(picture(2))
    two = sum(map(len, rig.memory.buffers.values()))
    rig.run(picture(8))
    assert sum(map(len, rig.memory.buffers.values())) == two


def test_buffers_are_kept_for_the_same_shape() -> None:
    rig = Rig()
    rig.run(picture(4))
    rig.run(picture(4))
    assert not {"allocate", "pinned", "free", "new_event", "set_input_shape"} & set(rig.memory.calls)


def test_work_is_captured_when_a_slot_runs_again_and_then_launched() -> None:
    rig = Rig()
    rig.run(picture(2))
    assert rig.memory.calls.count("execute") == 2
    assert "capture" not in rig.memory.calls
    rig.run(picture(2))
    assert rig.memory.calls.count("capture") == 2, "one for the memory of each slot"
    rig.run(picture(8))
    assert rig.memory.calls.count("launch") == 8
    assert not {"capture", "execute"} & set(rig.memory.calls)
    rig.run(picture(1, 3, 3))
    assert rig.memory.graphs == [], "another shape is other work"


@pytest.mark.parametrize(("captures", "can_capture"), [(False, True), (True, False)])
def test_nothing_is_captured_where_that_is_not_wanted_or_not_possible(captures: bool, can_capture: bool) -> None:
    rig = Rig(captures=captures, can_capture=can_capture)
    for _ in range(3):
        rig.run(picture(4))
        assert not {"capture", "launch"} & set(rig.memory.calls)


def test_work_that_cannot_be_captured_is_run_plainly() -> None:
    rig = Rig()
    rig.memory.capture_error = EngineError("the driver gave CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
    for _ in range(3):
        np.testing.assert_array_equal(rig.run(picture(4)), enlarged(picture(4)))
    assert "capture" not in rig.memory.calls, "it is tried once"


def test_capturing_without_memory_is_out_of_memory() -> None:
    rig = Rig()
    rig.run(picture(2))
    rig.memory.capture_error = OutOfMemory("no")
    with pytest.raises(OutOfMemory):
        rig.run(picture(2))


@pytest.mark.parametrize("total_bytes", range(0, 30_000, 3000))
def test_what_does_not_fit_gives_everything_back_and_a_smaller_tile_works(total_bytes: int) -> None:
    rig = Rig(total_bytes=total_bytes)
    large, small = picture(4, 16, 16), picture(4, 1, 1)
    needed = 2 * 16 * 16 * 3 * 4 * (1 + SCALE**2) + 16 * 3 * 16 * 16
    if total_bytes < needed:
        with pytest.raises(OutOfMemory):
            rig.run(large)
        assert rig.memory.buffers == {}
        assert rig.memory.pinned_arrays == []
    else:
        rig.run(large)
    if total_bytes >= 1000:
        np.testing.assert_array_equal(rig.run(small), enlarged(small))


def test_a_network_that_does_not_run_is_told_with_its_words_and_may_be_tried_again() -> None:
    rig = Rig(captures=False)
    rig.run(picture(4))
    rig.context.error = "Error Code 1: Myelin (no kernel)"
    with pytest.raises(EngineError, match=r"did not run.*no kernel"):
        rig.run(picture(4))
    assert rig.memory.buffers == {}
    rig.context.error = ""
    np.testing.assert_array_equal(rig.run(picture(4)), enlarged(picture(4)))


def test_ctrl_c_frees_nothing_that_the_gpu_still_uses() -> None:
    rig = Rig()

    def interrupt() -> None:
        raise KeyboardInterrupt

    rig.memory.on_wait = interrupt
    with pytest.raises(KeyboardInterrupt):
        rig.run(picture(4))
    assert rig.memory.buffers == {}  # the fake would have told of memory that was freed in use
    rig.memory.on_wait = lambda: None
    np.testing.assert_array_equal(rig.run(picture(4)), enlarged(picture(4)))


@pytest.mark.parametrize("seed", range(3))
def test_networks_of_integers_get_levels_and_give_them_back(seed: int) -> None:
    rig = Rig(seed=seed, io_dtype="uint8")
    batch = picture(5)
    batch[0, 0, 0, :3] = (-1, 2, 0.5)
    expected = np.rint(np.clip(batch, 0, 1) * 255) / np.float32(255)
    output = rig.run(batch)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, enlarged(expected.astype(np.float32)), atol=1e-7)
