"""realesr in somebody else's process: it leaves the process's state alone, and lets the interpreter end."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import save_file

from realesr.models.compact import Compact
from tests.models.small_networks import small_state

ENGINES = [
    name
    for name, package in (
        ("winograd", "numpy"),
        ("onnxruntime", "onnxruntime"),
        ("openvino", "openvino"),
        ("ncnn", "ncnn"),
        ("torch", "torch"),
    )
    if find_spec(package)
]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    save_file(small_state(Compact(scale=2, features=8, convs=1)), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def _run(program: str, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


STATE = """
import gc, importlib, locale, logging, os, random, signal, socket, sys, threading, warnings
from pathlib import Path
import numpy as np
import PIL.Image, PIL.ImageFile
import pyvips
engine, model, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
torch = None
if engine == "torch":
    import torch
    import sympy  # adds a filter of warnings, and torch imports it when it needs it

def _mask():
    mask = os.umask(0)
    os.umask(mask)
    return mask

def state():
    handlers = {n: repr(getattr(l, "handlers", None)) + str(getattr(l, "level", None))
                for n, l in logging.root.manager.loggerDict.items() if not n.startswith("realesr")}
    vips, text = pyvips.vips_lib, [module._to_string for module in (pyvips, pyvips.error, pyvips.gvalue)]
    root = logging.root
    found = {
        "environment": dict(os.environ), "folder": os.getcwd(), "path": list(sys.path), "numpy": np.geterr(),
        "pixels": PIL.Image.MAX_IMAGE_PIXELS, "truncated": PIL.ImageFile.LOAD_TRUNCATED_IMAGES,
        "warnings": list(warnings.filters), "locale": locale.setlocale(locale.LC_ALL),
        "hooks": (sys.excepthook, threading.excepthook), "recursion": sys.getrecursionlimit(),
        "switch": sys.getswitchinterval(), "gc": (gc.isenabled(), gc.get_threshold()),
        "signals": {n: signal.getsignal(n) for n in signal.valid_signals()}, "random": random.getstate(),
        "numpy random": np.random.get_state()[1].tolist(), "socket": socket.getdefaulttimeout(),
        "root logger": (root.level, list(root.handlers), root.manager.disable), "text": text,
        "vips": (vips.vips_cache_get_max(), vips.vips_cache_get_max_mem(), vips.vips_concurrency_get()),
    }
    if sys.platform != "win32":
        import resource
        found["limits"] = [resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT_")]
        found["mask"] = _mask()
    if torch:
        found["torch"] = (torch.get_num_threads(), torch.get_num_interop_threads(), torch.is_grad_enabled(),
            torch.get_default_dtype(), torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.deterministic, torch.get_float32_matmul_precision(), torch.initial_seed())
    return found, handlers

def check(what):
    after, handlers = state()
    changed = [name for name in before if before[name] != after[name]]
    changed += [name for name in handlers_before if handlers_before[name] != handlers[name]]
    print(what, changed, flush=True)

pyvips.cache_set_max(77)
pyvips.concurrency_set(3)
if torch:
    torch.set_num_threads(3)
before, handlers_before = state()
import realesr
check("imported")
with realesr.Upscaler(model, engine=engine, threads=2) as upscaler:
    upscaler.upscale(np.zeros((20, 30, 3), np.uint8))
    upscaler.upscale(PIL.Image.new("RGBA", (20, 30)))
    for suffix in ("png", "jpg", "tif", "webp", "avif"):
        upscaler.upscale_file(folder / "in.jpg", folder / f"out.{suffix}")
    try:
        upscaler.upscale_file(folder / "cut.jpg", folder / "none.png")
    except realesr.errors.InputError:
        pass
    check("open")
check("closed")
"""


@pytest.mark.parametrize("engine", [*ENGINES, "nearest"])
def test_the_state_of_the_process_is_as_before(engine: str, network: Path, tmp_path: Path) -> None:
    Image.effect_noise((40, 30), 50).convert("RGB").save(tmp_path / "in.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "in.jpg").read_bytes()[:500])
    model = "realesr-animevideov3" if engine == "nearest" else network
    run = _run(STATE, engine, model, tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == ["imported []", "open []", "closed []"]


LEFT = """
import sys, threading
from pathlib import Path
import numpy as np
import realesr
engine, model, source = sys.argv[1:]
upscaler = realesr.Upscaler(model, engine=engine, threads=2)
is_on_its_way = threading.Semaphore(0)

def arrays():
    image = np.zeros((90, 80, 3), np.uint8)
    while True:
        upscaler.upscale(image)
        is_on_its_way.release()

def files():
    while True:
        for suffix in ("png", "avif"):
            target = Path(source).with_name("out." + suffix)
            upscaler.upscale_file(Path(source), target, file=realesr.FileOptions(overwrite=True))
            is_on_its_way.release()

for work in (arrays, files):
    threading.Thread(target=work, daemon=True).start()
for _ in range(3):
    is_on_its_way.acquire()
"""


@pytest.mark.parametrize("engine", [*ENGINES, "nearest"])
def test_the_interpreter_ends_while_daemon_threads_work(engine: str, network: Path, tmp_path: Path) -> None:
    Image.effect_noise((120, 90), 50).convert("RGB").save(tmp_path / "in.jpg")
    model = "realesr-animevideov3" if engine == "nearest" else network
    run = _run(LEFT, engine, model, tmp_path / "in.jpg", timeout=30)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


GOING_ON = """
import atexit, sys, threading
import numpy as np

def last():
    print("last", upscaler.upscale(image).shape, flush=True)

atexit.register(last)
import realesr
upscaler = realesr.Upscaler(sys.argv[2], engine=sys.argv[1], threads=2)
image = np.zeros((8, 8, 3), np.uint8)

def work():
    threading.main_thread().join()
    print("thread", upscaler.upscale(image).shape, flush=True)

threading.Thread(target=work).start()
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_that_the_interpreter_waits_for_go_on(engine: str, network: Path) -> None:
    run = _run(GOING_ON, engine, network)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == ["thread (16, 16, 3)", "last (16, 16, 3)"]
