"""NVIDIA's GPUs, as their driver tells them: neither an engine's package nor CUDA's libraries are loaded."""

import ctypes
import functools
import sys

_LONGEST_NAME_BYTES = 256
"""With the zero at its end; the driver cuts off what is longer."""


def open_driver() -> ctypes.CDLL | None:
    """Return NVIDIA's driver, ready to be called; none where there is none, or it does not start.

    Source: NVIDIA CUDA Driver API, cuInit.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None


@functools.cache
def gpu_names() -> tuple[str, ...]:
    """Return the name of each GPU that the driver shows to this process, in its order; none where there is no driver.

    CUDA_VISIBLE_DEVICES counts. Source: NVIDIA CUDA Driver API, cuDeviceGetCount, cuDeviceGet and cuDeviceGetName; all
    return 0 where all is well.
    """
    driver, count = open_driver(), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_name_of(driver, number) for number in range(count.value))


def _name_of(driver: ctypes.CDLL, number: int) -> str:
    device = ctypes.c_int(0)
    name = ctypes.create_string_buffer(_LONGEST_NAME_BYTES)
    if driver.cuDeviceGet(ctypes.byref(device), number) != 0:
        return "unknown"
    if driver.cuDeviceGetName(name, _LONGEST_NAME_BYTES, device) != 0:
        return "unknown"
    return name.value.decode(errors="replace")
