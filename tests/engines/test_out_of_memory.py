"""Real memory, really short: in processes of their own that the kernel allows little more than they hold already."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from realesr.models.compact import Compact
from realesr.engines import open_engine
from realesr.errors import OutOfMemory
from tests.engines.small_models import small_model

engine = open_engine(small_model(Compact(scale=4, features=64, convs=2)), engine=sys.argv[1], threads=1)
small, large = np.zeros((1, 3, 32, 32), np.float32), np.zeros((1, 3, 900, 900), np.float32)
before = engine.run(small)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (200 << 20),) * 2)
for attempt in range(2):
    try:
        engine.run(large)
    except OutOfMemory as error:
        assert "\\n" not in str(error)
        print("out of memory")
    assert np.array_equal(engine.run(small), before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS stops allocations only on Linux")
@pytest.mark.parametrize("engine", ["winograd", "onnxruntime", "openvino", "ncnn", "torch"])
def test_a_tile_that_does_not_fit_raises_and_a_smaller_one_then_works(engine: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, engine],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout.split("\n")) == (0, ["out of memory"] * 2 + [""]), run.stderr
