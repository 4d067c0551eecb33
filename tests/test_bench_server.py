"""benchmarks/bench_server.py: a few trials of each part, and that the judges see the faults they look for."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and processes are looked at in /proc")


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a file of the benchmarks; they are scripts of one folder, not a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.long
@pytest.mark.parametrize("part", ["overhead", "load", "faults"])
def test_a_few_trials_of_each_part_hold_and_are_told(imported: Any, tmp_path: Path, part: str) -> None:
    bench = imported("bench_server")
    assert bench.main([part, "--quick", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*-server.json")
    parts = json.loads(file.read_text())["parts"]
    assert list(parts) == [part]
    page = file.with_suffix(".md").read_text()
    assert "A quick run" in page and f"## {part.capitalize()}" in page
    if part == "faults":
        assert set(parts["faults"]["kinds"]) == set(bench.KINDS)
        assert "| hostile requests | all |" in page
    else:
        assert len(parts[part]["rows"]) == 2


def test_hostile_requests_are_answered_and_the_server_is_as_before(imported: Any, tmp_path: Path) -> None:
    tally = imported("faults_verdicts").Tally("hostile requests")
    imported("server_sockets").inject(tally, len(imported("server_hostile").MAKERS) - 1, 3, tmp_path)
    assert tally.faults == []
    assert tally.rows()[-1]["trials"] > 30


def test_a_later_run_of_one_part_keeps_the_figures_of_the_others(
    imported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = imported("bench_server")
    row = {"format": "png", "call_ms": 1000.0, "post_ms": 1100.0, "more_ms": 100.0, "more_percent": 10.0}
    row |= {"median_of_differences_ms": 90.0, "runs": 9, "holds": False}
    overhead = {"photo_px": [640, 480], "rows": [row], "holds": False}
    fault = {"subject": "bombs", "verdict": "hang", "example": "request 7 got nothing in 10.0 s"}
    rows = [{"kind": "hostile requests", "subject": "bombs", "trials": 2, "refused": 1, "hang": 1}]
    kind = {"rows": rows, "figures": {"a": 1}, "skipped": {"b": "c"}, "faults": [fault], "seconds": 3.0}
    kinds = {"hostile requests": kind}
    monkeypatch.setitem(bench.RUNS, "overhead", lambda *_: dict(overhead))
    monkeypatch.setitem(bench.RUNS, "faults", lambda *_: {"kinds": kinds, "holds": False})
    assert bench.main(["overhead", "--out", str(tmp_path)]) == 1
    assert bench.main(["faults", "--out", str(tmp_path)]) == 1
    (page,) = tmp_path.glob("*-server.md")
    assert "| png | 1000.0 | 1100.0 | 100.0 | 10.0 | 90.0 | **no** |" in page.read_text()
    assert "| hostile requests | bombs | 2 | 0 | 1 | 1 |" in page.read_text()
    assert "- **hostile requests, bombs: hang**: request 7 got nothing in 10.0 s" in page.read_text()
    assert "A quick run" not in page.read_text()


def test_the_same_seed_gives_the_same_requests(imported: Any) -> None:
    hostile = imported("server_hostile")
    first, second, other = ([b"".join(one.pieces) for one in hostile.hostile_requests(60, seed)] for seed in (1, 1, 2))
    assert first == second
    assert first != other


ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b"


@pytest.mark.parametrize(
    ("data", "is_closed", "verdict"),
    [
        (ANSWER % (39, b'{"error": {"message": "got no photo"}} '), True, "refused"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER % (0, b""), True, "refused"),
        (b"", True, "refused"),
        (b"", False, "hang"),
        (ANSWER % (0, b""), False, "hang"),
        (ANSWER % (13, b"root:x:0:0:\r\n"), True, "wrong result"),
        (ANSWER % (39, b'{"error": {"message": "two\\nlines"}}    '), True, "wrong result"),
        (b"HTTP/1.1 200 OK\r\n\r\nall is well", True, "wrong result"),
        (b"HTTP/1.1 500 Fault\r\n\r\n", True, "unexpected error"),
        (ANSWER % (2, b"no") + b"HTTP/1.1 500 Fault\r\n\r\n", True, "unexpected error"),
    ],
)
def test_answers_are_judged(imported: Any, data: bytes, is_closed: bool, verdict: str) -> None:
    sockets, hostile = imported("server_sockets"), imported("server_hostile")
    request = hostile.Hostile(subject="any", pieces=[b"GET"], answers=(400, hostile.CLOSED))
    received = sockets.Received(data=data, is_closed=is_closed, seconds=1.0)
    assert sockets.judged(request, received)[0] == verdict


@pytest.mark.parametrize(
    ("status", "words", "after_the_signal", "verdict"),
    [
        (200, "", False, "right"),
        (503, "the server was ended", False, "refused"),
        (0, "reset", True, "refused"),
        (-1, "refused", True, "refused"),
        (0, "reset", False, "wrong result"),
        (500, "a fault", True, "wrong result"),
    ],
)
def test_what_clients_get_at_the_end_is_judged(
    imported: Any, status: int, words: str, after_the_signal: bool, verdict: str
) -> None:
    endings = imported("server_endings")
    got = endings.Got(began=10.0, status=status, words=words)
    assert endings._verdict(got, 9.0 if after_the_signal else 11.0) == verdict
