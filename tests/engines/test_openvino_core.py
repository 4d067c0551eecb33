"""Networks that are closed in the order in which they were opened leave Python able to handle signals."""

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
