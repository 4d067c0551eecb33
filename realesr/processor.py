"""What of the processor decides which engine and precision are fast: its vector instructions."""

import functools
import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


def has_fast_bf16() -> bool:
    """Whether the processor multiplies bf16 numbers, and oneDNN may use that.

    The system tells it on Linux only; elsewhere the answer is no, and `--precision bf16` has to be asked for. Source
    of the variable's name and values: oneDNN, developer guide, "CPU Dispatcher Control".
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return bool({"avx512_bf16", "amx_bf16"} & flags()) and limit not in _WITHOUT_BF16


def has_avx512() -> bool:
    """Whether the processor has AVX-512; no where the system does not tell."""
    return "avx512f" in flags()


@functools.cache
def flags() -> frozenset[str]:
    """Names of the processor's features as Linux lists them; none elsewhere."""
    return frozenset(_value_of("flags").split())


@functools.cache
def name() -> str:
    """The processor's name, as the system tells it."""
    return _value_of("model name") or platform.processor() or platform.machine()


def _value_of(key: str) -> str:
    """The first line of /proc/cpuinfo with this key; empty where there is none."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
