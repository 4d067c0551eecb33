"""What a command asks of the C library's memory, in processes of their own: it holds for all of a process."""

import subprocess
import sys

import pytest

KEPT = """
import ctypes
import psutil
from realesr.machine.heap import return_large_memory
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
{call}
c.free(c.malloc(30 << 20))  # from now on the library would keep pieces of this size
pieces = [c.malloc(8 << 20) for _ in range(20)]
last = c.malloc(1 << 20)
for piece in pieces:
    ctypes.memset(piece, 1, 8 << 20)
before = psutil.Process().memory_info().rss
for piece in pieces[:-1]:
    c.free(piece)
print(before - psutil.Process().memory_info().rss)
"""


def returned_bytes(call: str) -> int:
    answer = subprocess.run([sys.executable, "-c", KEPT.format(call=call)], capture_output=True, text=True, check=True)
    return int(answer.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_large_memory_that_is_freed_goes_back_to_the_system() -> None:
    assert returned_bytes("return_large_memory()") > 140e6
    assert returned_bytes("") < 20e6
