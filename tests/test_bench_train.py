"""What benchmarks/bench_train.py works out of a run's log; its figures are no test's business."""

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench_train(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_train")


def record(iteration: int, time: float, **seconds: float) -> dict[str, Any]:
    return {"kind": "losses", "iteration": iteration, "time": time, "seconds": seconds}


def test_the_rate_is_by_wall_clock_and_what_the_parts_leave_is_a_gap(bench_train: Any) -> None:
    records = [
        record(4, 100.0, G=9.0),  # the last one that does not count: only its time does
        record(5, 100.5, degrade=0.1, G=0.3),
        record(6, 101.0, degrade=0.1, G=0.3),
        record(7, 102.0, degrade=0.1, G=0.3),
    ]
    row = bench_train.row_of("x4plus", "stage1", 6, records)
    assert row["iterations_s"] == pytest.approx(1.5)
    assert row["images_s"] == pytest.approx(9)
    assert row["counted"] == 3
    assert (row["degrade_percent"], row["G_percent"], row["D_percent"]) == pytest.approx((25, 75, 0))
    assert row["gaps_percent"] == pytest.approx(100 * (1 - 1.2 / 2))


def test_iterations_without_a_record_count_too(bench_train: Any) -> None:
    row = bench_train.row_of("x4plus", "stage1", 2, [record(10, 0.0, G=1.0), record(20, 5.0, G=4.0)])
    assert (row["iterations_s"], row["counted"], row["gaps_percent"]) == pytest.approx((2.0, 10, 20))
