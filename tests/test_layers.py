"""The arrows between the folders, read from the imports of every file; nothing is imported to find out."""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"realesr": "realesr", "engines": "realesr.engines", "export": "realesr.export", "train": "realesr.train"}
"""Folder of the repository -> name that it is imported by."""

ALLOWED = {
    "core": {"core"},
    "engines": {"core", "engines"},
    "export": {"core", "engines", "export"},
    "train": {"core", "train"},
    "api": {"core", "engines", "export", "train", "api"},
    "face": {"core", "api"},
    "cli": {"core", "engines", "export", "train", "api", "face", "cli"},
}
"""Layer -> layers that it may import. `face` is `realesr/__init__.py`, the public names."""

LIGHT_LIBRARIES = {*sys.stdlib_module_names, "typer"}
"""What a module may import outside functions if `realesr --help` is to be instant."""

TORCH_OWNERS = (
    "realesr.networks",
    "realesr.engines.torch_",
    "realesr.engines.triton_",
    "realesr.export.from_torch",
    "realesr.train",
)


def module_files() -> dict[str, Path]:
    """Every module of the four folders by the name that it is imported by."""
    modules = {}
    for folder, package in PACKAGES.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts))
            modules[name.removesuffix(".__init__")] = file
    return modules


MODULES = module_files()


def layer(module: str) -> str:
    """The layer that a module of ours belongs to."""
    if module == "realesr":
        return "face"
    if module == "realesr.__main__":
        return "cli"
    second = module.split(".")[1]
    return second if second in ("engines", "export", "train", "api", "cli") else "core"


def imported_names(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Full names of what one import statement asks for, of `from x import y` as x.y."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *base.split(".")]).rstrip(".")
    return [f"{base}.{alias.name}" for alias in node.names]


def is_ours(name: str) -> bool:
    """Whether an import is one between our modules; the version in `realesr` is free for all."""
    return name.startswith("realesr.") and name != "realesr.__version__"


def own_module(name: str) -> str:
    """The module of ours that a dotted name lies in: `realesr.tiles.plan_tiles` -> `realesr.tiles`."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(tree: ast.AST, *, functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements of a module that run; with `functions` those inside functions as well."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt) and for_types_only(node):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(node, functions=functions)


def names_at_once(module: str, source: str, *, is_package: bool) -> list[str]:
    """What importing a module imports."""
    package = module if is_package else module.rpartition(".")[0]
    return [name for node in statements(ast.parse(source), functions=False) for name in imported_names(node, package)]


@functools.cache
def is_light(module: str) -> bool:
    """Whether a module of ours imports, directly and through others of ours, nothing but light libraries."""
    file = MODULES[module]
    names = names_at_once(module, file.read_text(encoding="utf-8"), is_package=file.name == "__init__.py")
    return all(
        is_light(own_module(name)) if is_ours(name) else name.split(".")[0] in {*LIGHT_LIBRARIES, "realesr"}
        for name in names
    )


def faults(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What is wrong with the imports of one module."""
    tree = ast.parse(source)
    package = module if is_package else module.rpartition(".")[0]
    everywhere = [(node, name) for node in statements(tree, functions=True) for name in imported_names(node, package)]
    found = [
        f"{module} ({layer(module)}) imports {name} ({layer(own_module(name))})"
        for _, name in everywhere
        if is_ours(name) and layer(own_module(name)) not in ALLOWED[layer(module)]
    ]
    found += [
        f"{module} imports {name} by its folder"
        for _, name in everywhere
        if name.split(".")[0] in set(PACKAGES) - {"realesr"}
    ]
    found += [f"{module} imports above its folder" for node, _ in everywhere if getattr(node, "level", 0) > 1]
    if not module.startswith(TORCH_OWNERS):
        found += [
            f"{module} imports {name}" for _, name in everywhere if name.split(".")[0] in ("torch", "torchvision")
        ]
    if layer(module) == "cli":
        found += [
            f"{module} imports {name} outside functions"
            for name in names_at_once(module, source, is_package=is_package)
            if is_ours(name) and layer(own_module(name)) != "cli" and not is_light(own_module(name))
        ]
    return found


def test_every_folder_has_modules() -> None:
    assert {layer(module) for module in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    file = MODULES[module]
    assert faults(module, file.read_text(encoding="utf-8"), is_package=file.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("realesr.tiles", "from realesr.engines import open_engine"),
        ("realesr.tiles", "def f():\n    import realesr.engines"),
        ("realesr.tiles", "from realesr import api"),
        ("realesr.tiles", "import torch.nn"),
        ("realesr.tiles", "import engines"),
        ("realesr.engines.torch_engine", "from realesr.export import anything"),
        ("realesr.engines.torch_engine", "from realesr.cli.app import main"),
        ("realesr.engines.onnxruntime_engine", "try:\n    import torch\nexcept ImportError:\n    pass"),
        ("realesr.engines.onnxruntime_engine", "from .. import train"),
        ("realesr.train.trainer", "from realesr.engines import open_engine"),
        ("realesr.cli.app", "from realesr.api import upscale"),
        ("realesr.cli.app", "try:\n    from realesr.tiles import plan_tiles\nfinally:\n    pass"),
        ("realesr", "from realesr.cli import main"),
    ],
)
def test_an_import_against_the_arrows_is_found(module: str, source: str) -> None:
    assert faults(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("realesr.export.from_torch", "import torch\nfrom realesr.engines import open_engine"),
        ("realesr.engines.torch_engine", "import torch\nfrom realesr.networks.rrdb import RRDBNet"),
        ("realesr.cli.app", "def f():\n    from realesr.api import upscale"),
        ("realesr.cli.app", "from .console import Console\nfrom realesr.errors import UsageError"),
        ("realesr.tiles", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import realesr.engines"),
    ],
)
def test_an_import_along_the_arrows_is_none(module: str, source: str) -> None:
    assert faults(module, source) == []


def test_no_module_is_named_after_a_library() -> None:
    """Started as a script, its folder would come first on the path, and it would be imported in the library's place."""
    libraries = {
        "torch",
        "onnx",
        "onnxruntime",
        "numpy",
        "PIL",
        "pyvips",
        "tensorrt",
        "openvino",
        "ncnn",
        "typer",
        "rich",
    }
    assert [name for name in MODULES if name.rpartition(".")[2] in libraries] == []
