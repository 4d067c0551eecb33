"""Free memory of an NVIDIA GPU, from its driver: for engines whose own library does not tell it."""

import ctypes

from realesr.machine.nvidia_driver import open_driver


def gpu_free_bytes(number: int) -> int | None:
    """Return the free memory of the GPU of this number, as the driver counts them; none where it cannot be told.

    It is asked for in the primary context, which is that of CUDA's runtime, torch and ONNX Runtime: their memory is not
    free. Source: NVIDIA CUDA Driver API; all functions return 0 where all is well.
    """
    driver, device, context = open_driver(), ctypes.c_int(0), ctypes.c_void_p()
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), number) != 0:
        return None
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) != 0:
        return None
    try:
        return _free_bytes(driver, context)
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)


def _free_bytes(driver: ctypes.CDLL, context: ctypes.c_void_p) -> int | None:
    free, total, popped = ctypes.c_size_t(0), ctypes.c_size_t(0), ctypes.c_void_p()
    if driver.cuCtxPushCurrent_v2(context) != 0:
        return None
    try:
        return free.value if driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0 else None
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(popped))
