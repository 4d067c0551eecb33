"""Networks in processes that are made after one was opened: forked, spawned, or from a server process."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from realesr import Upscaler
from realesr.models.compact import Compact
from tests.models.small_networks import small_state

CPU_ENGINES = ("winograd", "onnxruntime", "openvino", "ncnn", "torch")

FORKED = """
import os, sys
import numpy as np
from realesr import Upscaler
from realesr.errors import EngineError

model, engine = sys.argv[1:]
image = np.zeros((8, 8, 3), np.uint8)
upscaler = Upscaler(model, engine=engine, precision="fp32", threads=2)
upscaler.upscale(image)
child = os.fork()
if not child:
    for again in (lambda: upscaler.upscale(image), lambda: Upscaler(model, engine=engine)):
        try:
            again()
        except EngineError as error:
            print(error, flush=True)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert upscaler.upscale(image).shape == (16, 16, 3)
print("the parent goes on", flush=True)
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    save_file(small_state(Compact(scale=2, features=8, convs=1)), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("engine", [*CPU_ENGINES, "nearest"])
def test_a_forked_child_is_told_and_ends_and_the_parent_goes_on(engine: str, network: Path) -> None:
    model = "realesr-animevideov3" if engine == "nearest" else str(network)
    script = FORKED.replace("(16, 16, 3)", "(32, 32, 3)") if engine == "nearest" else FORKED
    run = subprocess.run([sys.executable, "-c", script, model, engine], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("this process was forked from one that had opened a network") == 2
    assert run.stdout.endswith("the parent goes on\n")


def enlarged_shape(model: str) -> tuple[int, ...]:
    with Upscaler(model, threads=1) as upscaler:
        return upscaler.upscale(np.zeros((8, 8, 3), np.uint8)).shape


@pytest.mark.parametrize("method", sorted({"spawn", "forkserver"} & set(multiprocessing.get_all_start_methods())))
def test_spawned_children_open_their_own(method: str, network: Path) -> None:
    assert enlarged_shape(str(network)) == (16, 16, 3)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(enlarged_shape, str(network)).result(timeout=60) == (16, 16, 3)
