"""Memory of an NVIDIA GPU, from its driver: for engines whose own library does not tell it."""

import ctypes

from realesr.machine.nvidia_driver import open_driver


def gpu_memory_bytes(number: int) -> int | None:
    """Return the memory of the GPU of this number, whether it is free or not; none where it cannot be told.

    Source: NVIDIA CUDA Driver API; all functions return 0 where all is well.
    """
    driver, device, total = open_driver(), ctypes.c_int(0), ctypes.c_size_t(0)
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), number) != 0:
        return None
    return total.value if driver.cuDeviceTotalMem_v2(ctypes.byref(total), device) == 0 else None
