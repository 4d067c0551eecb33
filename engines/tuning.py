"""Answers of `realesr tune`: which engine, precision, threads and tile are the fastest for a network on this machine.

One JSON file a network in the cache folder. An answer holds only for what it was measured with: another processor,
number of cores, other NVIDIA GPUs, another version of realesr or of an engine's package, or other weights, and it is
not looked at. Nor is it where engine winograd was compiled since, or is no longer there.
"""

import importlib.util
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import realesr
from realesr.engine import Precision
from realesr.engines.choice import ROWS
from realesr.errors import OutputError, UsageError
from realesr.machine.cgroup import usable_cores
from realesr.machine.nvidia_driver import gpu_names
from realesr.machine.processor import name as processor_name
from realesr.machine.tables import read_record
from realesr.machine.whole_file import not_written, write_whole
from realesr.models.weights import Weights
from realesr.models.zoo import cache_folder
from realesr.options import check_engine_options

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "ncnn", "torch")
"""Packages whose versions an answer depends on."""

_MOST_THREADS = 1024
_TILES_PX = (16, 1 << 16)
_LARGEST_BYTES = 1 << 20
"""Size from which a file is none of ours: an answer has 1 kB."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way of running a network."""

    engine: str
    """As `realesr.engines.open_engine` takes it. Likewise `device` and `precision`."""
    device: str
    precision: Precision
    threads: int | None = None
    """None for every core that this process may use."""
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Options of the engine that are not at their default: name -> value."""
    tile_px: int | None = None
    """Side of a tile with its overlap; None for as much as the memory allows."""

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "fp16", "bf16"):
            raise UsageError(f"got precision {self.precision}, expected fp32, fp16 or bf16")
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise UsageError(f"got {self.threads} threads, expected 1 to {_MOST_THREADS}")
        least, most = _TILES_PX
        if self.tile_px is not None and not least <= self.tile_px <= most:
            raise UsageError(f"got tiles of {self.tile_px} px, expected {least} to {most}")
        check_engine_options(self.options)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The fastest settings of one network on this machine."""

    best: Setting
    """Fastest of all that are near enough to float32."""
    fp32: Setting
    """Fastest of those in float32: for images of 16 bits, and where it is asked for."""


def keep(weights: Weights, answer: Answer) -> Path:
    """Write an answer where `kept` finds it.

    Raises:
        OutputError: the cache folder cannot be written.
    """
    path = _path(weights)
    record = {"network": weights.name, "measured_with": measured_with(weights), **asdict(answer)}
    try:
        write_whole(path, (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise not_written(path, error, "free some space, or set REALESR_CACHE to another folder") from error
    return path


def kept_setting(weights: Weights, precision: str) -> Setting | None:
    """Return the setting to take for "auto" or "fp32"; None for other precisions, or where nothing was measured."""
    answer = kept(weights) if precision in ("auto", "fp32") else None
    if answer is None:
        return None
    return answer.best if precision == "auto" else answer.fp32


def kept(weights: Weights) -> Answer | None:
    """Return the answer for this network on this machine as it is now; None where there is none, or a damaged one."""
    path = _path(weights)
    try:
        # Pipes and devices in its place would not end.
        if not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["measured_with"] != measured_with(weights):
            return None
        answer = read_record(Answer, {name: record[name] for name in ("best", "fp32")}, "the answer")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # the last from nested lists
        _log.warning("%s is damaged and is not looked at: tune again, or delete it", path)
        return None
    return answer if _is_ours(answer.best) and _is_ours(answer.fp32) and answer.fp32.precision == "fp32" else None


def _is_ours(setting: Setting) -> bool:
    """Return whether it is a setting that `realesr tune` tries, and not one that would end a command."""
    texts = [text for option in setting.options.items() for text in option]
    return all(text.isascii() and text.isprintable() for text in texts) and any(
        (row.engine, row.device) == (setting.engine, setting.device) and setting.precision in row.precisions
        for row in ROWS
    )


def forget() -> list[Path]:
    """Delete all answers, and return their paths.

    Raises:
        OutputError: a file cannot be deleted.
    """
    paths = sorted(_folder().glob("*.json"))
    try:
        for path in paths:
            path.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be deleted ({error.strerror}): delete it by hand") from error
    return paths


def measured_with(weights: Weights) -> dict[str, Any]:
    """Return all that an answer depends on; nothing is imported to find it out."""
    return {
        "weights": weights.sha256,
        "processor": processor_name(),
        "cores": usable_cores(),
        "gpus": list(gpu_names()),
        "instructions": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        "realesr": realesr.__version__,
        "winograd": _has_winograd(),
        **dict(_versions()),
    }


def _has_winograd() -> bool:
    """Return whether engine winograd was compiled: it is where realesr was installed with a compiler at hand."""
    return importlib.util.find_spec("realesr.engines.winograd._winograd") is not None


def _versions() -> Iterator[tuple[str, str]]:
    import importlib.metadata

    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "not installed"


def _path(weights: Weights) -> Path:
    return _folder() / f"{weights.name[:40]}-{weights.sha256[:12]}.json"


def _folder() -> Path:
    return cache_folder() / "tuning"
