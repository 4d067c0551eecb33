"""The public names of `realesr`."""

import ast
from pathlib import Path
from types import ModuleType

import pytest

import realesr


def names_for_type_checkers() -> set[str]:
    """Return the names that `realesr/__init__.py` imports below `if TYPE_CHECKING`."""
    tree = ast.parse(Path(realesr.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_public_names_are_sorted() -> None:
    assert realesr.__all__ == sorted(realesr.__all__)


@pytest.mark.parametrize("name", realesr.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(realesr, name) is not None


def test_type_checkers_see_the_same_public_names() -> None:
    assert names_for_type_checkers() | {"__version__"} == set(realesr.__all__)


@pytest.mark.parametrize("name", sorted({*realesr.__all__} - {"__version__", "errors"}))
def test_what_is_public_has_a_docstring(name: str) -> None:
    assert getattr(realesr, name).__doc__


def test_no_module_bears_the_name_of_a_public_function() -> None:
    """`import realesr.upscale` would otherwise put the module in the function's place."""
    modules = {file.stem for file in Path(realesr.__file__).parent.glob("*")}
    functions = {name for name in realesr.__all__ if not isinstance(getattr(realesr, name), ModuleType)}
    assert modules & functions == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="upscaler"):
        _ = realesr.upscaler


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert version("realesr") == realesr.__version__
