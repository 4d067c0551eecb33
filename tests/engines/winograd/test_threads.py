"""The dry run that shares engine winograd's work among more threads than there are here."""

from pathlib import Path

import pytest

from realesr.engines.winograd import kernel

if not kernel.is_usable():
    pytest.skip("winograd.c was not compiled here, or not for this processor", allow_module_level=True)

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
MOST_IDLE = 0.05


@pytest.mark.parametrize("threads", [8, 32])
@pytest.mark.parametrize("network", ["realesrgan-x4plus", "realesr-animevideov3"])
def test_threads_have_work_nearly_all_the_time(monkeypatch: pytest.MonkeyPatch, network: str, threads: int) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench_winograd_threads

    phases = bench_winograd_threads.dry_run(bench_winograd_threads.NETWORKS[network], 700, threads)
    assert len(phases) > 10
    assert min(phase.tasks for phase in phases) >= threads
    assert bench_winograd_threads.idle(phases, threads) < MOST_IDLE


def test_an_uneven_phase_leaves_threads_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench_winograd_threads

    phase = bench_winograd_threads.Phase(tasks=3, busy=3.0, longest=2.0, weight_bytes=0)
    assert bench_winograd_threads.idle([phase], 2) == 0.25
