"""ONNX files of these tests go to a folder of their own."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALESR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
