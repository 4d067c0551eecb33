"""The dry run that shares engine winograd's work among more threads than there are here."""

from pathlib import Path

import pytest

from realesr.engines.winograd import kernel

if not kernel.is_usable():
    pytest.skip("winograd.c was not compiled here, or not for this processor", allow_module_level=True)

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
MOST_IDLE, MOST_IDLE_IN_A_PHASE = 0.05, 0.1


@pytest.mark.parametrize("side_px", [384, 700])
@pytest.mark.parametrize("threads", [8, 32])
@pytest.mark.parametrize("network", ["realesrgan-x4plus", "realesr-animevideov3"])
def test_threads_have_work_nearly_all_the_time(
    monkeypatch: pytest.MonkeyPatch, network: str, threads: int, side_px: int
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from bench_winograd_threads import NETWORKS, dry_run, idle

    phases = dry_run(NETWORKS[network], side_px, threads)
    assert len(phases) > 10
    assert idle(phases, threads) < MOST_IDLE
    assert max(idle([phase], threads) for phase in phases) < MOST_IDLE_IN_A_PHASE


@pytest.mark.parametrize("threads", [8, 32])
@pytest.mark.parametrize(("width_px", "rows"), [(1200, 168), (4000, 48)])
def test_in_strips_threads_have_work_nearly_all_the_time(
    monkeypatch: pytest.MonkeyPatch, width_px: int, rows: int, threads: int
) -> None:
    """But for the end of a dense block, where the last convolution has fewer rows than the others."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from bench_winograd_threads import NETWORKS, dry_run, idle

    phases = dry_run(NETWORKS["realesrgan-x4plus"], rows, threads, width_px=width_px, in_strips=True)
    assert idle(phases, threads) < MOST_IDLE


def test_an_uneven_phase_leaves_threads_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench_winograd_threads

    phase = bench_winograd_threads.Phase(tasks=3, busy=3.0, longest=2.0, weight_bytes=0)
    assert bench_winograd_threads.idle([phase], 2) == 0.25
