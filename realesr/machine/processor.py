"""Reads the facts of the processor that decide which engine and precision are fast: its vector instructions."""

import functools
import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


def has_fast_bf16() -> bool:
    """Return whether the processor has instructions for bf16, and oneDNN may use them.

    Only Linux reports it; elsewhere this returns False, and bf16 runs only where the user names it as the precision.
    Source of the variable's name and values: oneDNN, developer guide, "CPU Dispatcher Control".
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return bool({"avx512_bf16", "amx_bf16"} & flags()) and limit not in _WITHOUT_BF16


def has_amx() -> bool:
    """Return whether the processor multiplies matrices of bf16 (AMX), and oneDNN may use that.

    ONEDNN_MAX_CPU_ISA allows it by "ALL", "DEFAULT" and what has "_AMX" in its name; see `has_fast_bf16`.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return "amx_bf16" in flags() and (not limit or limit in ("ALL", "DEFAULT") or "_AMX" in limit)


@functools.cache
def flags() -> frozenset[str]:
    """Return the names of the processor's features as Linux lists them; empty on other systems."""
    return frozenset(_value_of("flags").split())


@functools.cache
def name() -> str:
    """Return the processor's name, as the system reports it."""
    return _value_of("model name") or platform.processor() or platform.machine()


def _value_of(key: str) -> str:
    """Return the value of the first line of /proc/cpuinfo with this key; empty where there is none."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
