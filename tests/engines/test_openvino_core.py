"""Networks that are closed in any order leave Python able to handle signals."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed")

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, signal
import numpy as np
from realesr.engines import open_engine
from realesr.models.compact import Compact
from tests.engines.small_models import small_model
batch = np.zeros((1, 3, 8, 8), np.float32)
engines = [open_engine(small_model(Compact(scale=2, features=8, convs=1)), engine="openvino") for _ in range(2)]
for engine in engines:
    engine.run(batch)
for engine in engines:
    engine.close()
del engine, engines
signal.signal(signal.SIGTERM, lambda *_: None)
os.kill(os.getpid(), signal.SIGTERM)
print("still here")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_signal_after_two_networks_were_closed_does_not_end_python() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "still here\n"), result.stderr


ANY_ORDER = """
import os, signal, sys
import numpy as np
from realesr.engines import open_engine
from realesr.models.compact import Compact
from tests.engines.small_models import small_model

handled = []
def is_handled():
    handled.clear()
    os.kill(os.getpid(), signal.SIGUSR1)
    return handled == [signal.SIGUSR1]

signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
batch, model = np.zeros((1, 3, 8, 8), np.float32), small_model(Compact(scale=2, features=8, convs=1))
for names in sys.argv[1:]:
    engines, _, order = names.partition("/")
    opened = []
    for name in engines.split(","):
        opened.append(open_engine(model, engine=name, threads=1))
        opened[-1].run(batch)
        assert is_handled()
    for number in map(int, order):
        opened[number].close()
        opened[number] = None
        assert is_handled()
print("still here")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("other", ["openvino", "onnxruntime", "ncnn", "torch", "winograd"])
def test_engines_may_be_closed_in_any_order(other: str) -> None:
    if other not in ("openvino", "winograd"):
        pytest.importorskip(other)
    cases = [f"openvino,{other},openvino/{''.join(order)}" for order in itertools.permutations("012")]
    command = [sys.executable, "-c", ANY_ORDER, *cases]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (0, "still here\n"), result.stderr
