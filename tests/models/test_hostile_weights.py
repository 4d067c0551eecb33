"""Small files of weights that are made to take gigabytes, to take for ever, or to end Python: one line of error each.

Each is read in a process of its own, whose address space may grow by four times the file and 100 MB.
"""

import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from realesr.errors import ModelError
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.models.safetensors_file import read_safetensors
from realesr.models.span import folded_span
from realesr.models.torch_file import read_torch
from realesr.models.weights import read_weights
from tests.models.small_networks import small_state

ORDERED, SIZE = b"ccollections\nOrderedDict\n", b"ctorch\nSize\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"

READ = """
import resource, sys
from pathlib import Path
from realesr.errors import ModelError
from realesr.models.weights import read_weights
import realesr.models.ncnn_file, numpy as np
path = Path(sys.argv[1])
np.dot(np.ones((64, 64)), np.ones((64, 64)))  # its threads are started
own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = own + 4 * path.stat().st_size + (100 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
try:
    read_weights(path)
except ModelError as error:
    print(error)
else:
    print("read")
"""


def said_apart(path: Path) -> str:
    """Return what reading a file says, in a process with limits."""
    if sys.platform != "linux":
        pytest.skip("limits of memory are those of Linux")
    run = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, ""), run.stderr[-500:]
    assert run.stdout.count("\n") == 1
    return run.stdout


def zip_of(program: bytes, **storages: bytes) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('s')}", content)
    return stream.getvalue()


def doubled(times: int) -> bytes:
    """Push a tuple that holds the one before twice."""
    return b"\x80\x04)\x94" + b"".join(
        b"h" + bytes([number]) + b"h" + bytes([number]) + b"\x86\x94" for number in range(times)
    )


def nested(times: int) -> bytes:
    return b"\x80\x02)" + b"\x85" * times


MANY = 170_000

PROGRAMS = {
    "a nested tuple as key": (b"\x80\x02}" + nested(100_000)[2:] + b"Ns.", "nests tuples more than 16 deep"),
    "a doubled tuple as key": (b"\x80\x04}\x94" + doubled(60)[4:] + b"Ns.", "nests tuples more than 16 deep|damaged"),
    "a doubled tuple as name": (doubled(14) + b"\x8c\x01x\x93.", "asks for a name that is a tuple of 2"),
    "a doubled tuple as kind": (doubled(14) + b"ctorch\nFloatStorage\nX\x01\0\0\0aNK\1tQ.", "damaged|refers to"),
    "a key of dicts": (b"}}Ns.", "has a dict as a key, unhashable"),
    "a key of a name": (b"}" + SIZE + b"Ns.", "has a name as a key, unhashable"),
    "a long tuple as key": (b"}(" + b"K\1" * 40 + b"tNs.", "has a tuple of 40 as a key"),
    "keys of one hash": (
        b"}("
        + b"".join(b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N" for k in range(1, 60_000))
        + b"u.",
        "has more than 10,000 keys that are no text",
    ),
    "a huge integer": (
        b"}\x8b" + struct.pack("<i", 1_000_000) + b"\x01" * 1_000_000 + b"Ns.",
        "integer of [0-9,]+ bits",
    ),
    "repeated OrderedDicts": (
        ORDERED + b"q\0" + b"](" + b"(X\1\0\0\0aNl" * 2000 + b"eq\1" + b"h\0h\1\x85R" * 60_000 + b".",
        "makes OrderedDicts of more than|more than 524,288 instructions",
    ),
    "repeated Sizes": (
        SIZE + b"q\0](" + b"K\1" * 50_000 + b"eq\1" + b"h\0h\1\x85R" * 60_000 + b".",
        "makes a torch.Size of a list",
    ),
    "a call of many arguments": (
        REBUILD + b"q\0(" + b"N" * 100_000 + b"tq\1" + b"h\0h\1R" * 60_000 + b".",
        "calls .*_rebuild_tensor_v2 with 100,000 arguments",
    ),
    "references of many parts": (b"(" + b"N" * 100_000 + b"tq\1" + b"h\1Q" * MANY + b".", "a tuple of 100,000"),
    "three million lists": (b"]" * 3_000_000 + b".", "more than 524,288 instructions"),
    "three million slots": (b"N" + b"\x94" * 3_000_000 + b".", "more than 524,288 instructions"),
    "nested lists": (b"]q\0" + b"]a" * 5 + (b"]\x94" + b"a") * 5 + b".", "holds no state dict|damaged"),
    "deep dicts": (b"}" + b"X\1\0\0\0a}" * 100_000 + b"s" * 100_000 + b".", "nests dicts and lists more than 64 deep"),
    "a wide text": (b"X" + struct.pack("<I", 20_000_000) + "\U0001f600".encode() + b"a" * 20_000_000, "more than"),
    "other copies": (b"N2.", "uses the pickle instruction DUP"),
}


IN_OLD_FILES = ["a key of dicts", "keys of one hash", "three million lists", "a wide text"]
"""Programs that are tried in the files of before torch 1.6 too, which hold them bare, one behind the other."""


@pytest.mark.parametrize(
    ("name", "zipped"),
    [(name, True) for name in PROGRAMS] + [(name, False) for name in IN_OLD_FILES],
    ids=lambda value: {True: "zip", False: "stream"}.get(value, value),
)
def test_programs_that_make_much_of_little_are_refused(tmp_path: Path, name: str, zipped: bool) -> None:
    program, words = PROGRAMS[name]
    head = b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    path = tmp_path / "net.pth"
    path.write_bytes(zip_of(program) if zipped else head + program + pickle.dumps([], 2))
    assert re.search(words, said := said_apart(path)), said


def overlapping(count: int, size: int) -> bytes:
    """A zip whose entries all have the bytes of one."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data/0", bytes(size))
        for number in range(1, count):
            archive.writestr(f"archive/data/{number}", b"")
        archive.writestr("archive/data.pkl", b"}.")
        first = archive.filelist[0]
        for info in archive.filelist[1:count]:
            info.file_size = info.compress_size = size
            info.CRC = first.CRC
            info.header_offset = first.header_offset
    return stream.getvalue()


def with_field(data: bytes, name: bytes, offset: int, form: str, value: int) -> bytes:
    """Change a number in the directory's entry of a name."""
    at = data.index(b"PK\1\2")
    while data[at + 46 : at + 46 + len(name)] != name:
        at = data.index(b"PK\1\2", at + 4)
    changed = bytearray(data)
    struct.pack_into(form, changed, at + offset, value)
    return bytes(changed)


TWO = zip_of(b"}.", s0=bytes(64), s1=bytes(64))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (overlapping(500, 60_000), "entries overlap each other"),
        (with_field(TWO, b"archive/data/1", 42, "<L", 0), "entries overlap each other"),
        (with_field(TWO, b"archive/data/1", 42, "<L", 10**9), "begins beyond the file's end"),
        (with_field(TWO, b"archive/data/1", 42, "<L", 7), "is not where the directory says"),
        (with_field(with_field(TWO, b"archive/data/1", 20, "<L", 10**9), b"archive/data/1", 24, "<L", 10**9), "beyond"),
        (with_field(TWO, b"archive/data/1", 24, "<L", 10**9), "compressed entry archive/data/1"),
        (with_field(TWO, b"archive/data/1", 20, "<L", 0xFFFFFFFF), "an entry whose size is missing"),
        (with_field(TWO, b"archive/data/1", 8, "<H", 1), "compressed entry archive/data/1"),
        (with_field(TWO, b"archive/data/1", 28, "<H", 60_000), "a directory that ends early"),
        (with_field(TWO, b"archive/data.pkl", 16, "<L", 1), "has another checksum than was written"),
        (TWO.replace(b"archive/data/1", b"archive/data/0"), "two entries are called archive/data/0"),
        (TWO[:-14] + b"\xff\xff\xff\xff" + TWO[-10:], "directory's place is missing|directory that ends early"),
        (TWO[:-6] + struct.pack("<L", 1 << 30) + TWO[-2:], "a directory that reaches beyond"),
        (b"PK\5\6" + bytes(18), "zip without data.pkl"),
    ],
)
def test_zips_that_claim_what_they_do_not_hold_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        read_torch(data)


def test_a_directory_of_very_many_entries_is_refused(tmp_path: Path) -> None:
    entry = b"PK\1\2" + bytes(42)
    count = 200_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 46 * count, 4, 0)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, 46 * count, 4)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 4 + 46 * count, 1)
    (tmp_path / "net.pth").write_bytes(b"PK\3\4" + entry * count + end64 + locator + end)
    assert "200000 entries, expected at most 65536" in said_apart(tmp_path / "net.pth")


def test_tensors_that_share_a_storage_take_no_more_than_the_file_and_a_fixed_share(tmp_path: Path) -> None:
    architecture = Compact(scale=4, features=500, convs=40)
    base = torch.zeros(500 * 500 * 9, dtype=torch.float16)
    state = {key: base[: int(np.prod(shape))].reshape(shape) for key, shape in architecture.shapes.items()}
    torch.save(state, tmp_path / "net.pth")
    assert (tmp_path / "net.pth").stat().st_size < 5_000_000
    assert "numbers in 4,5" in (said := said_apart(tmp_path / "net.pth")), said


def test_names_alone_make_no_blocks(tmp_path: Path) -> None:
    state = {
        key: torch.from_numpy(array)
        for key, array in small_state(RRDB(scale=4, features=2, blocks=1, growth=1)).items()
    }
    empty = torch.zeros(0)
    torch.save(state | {f"body.{number}.x": empty for number in range(8000)}, tmp_path / "net.pth")
    assert "has 8000 blocks in 21 convolutions" in said_apart(tmp_path / "net.pth")
    torch.save(state | {f"conv_up{number}.weight": empty for number in range(7000)}, tmp_path / "net.pth")
    assert "doubles more than 4 times" in said_apart(tmp_path / "net.pth")
    torch.save(state | {f"x{number}": empty for number in range(9000)}, tmp_path / "net.pth")
    assert "a state dict of 9," in said_apart(tmp_path / "net.pth")


def test_numbers_in_keys_may_have_any_length(tmp_path: Path) -> None:
    torch.save(
        {"model.0.weight": torch.zeros(8, 3, 3, 3), f"model.{'9' * 5000}.weight": torch.zeros(1)}, tmp_path / "x.pth"
    )
    with pytest.raises(ModelError):
        read_weights(tmp_path / "x.pth")


def test_branches_of_a_span_that_would_fold_into_more_than_they_are_are_refused() -> None:
    shapes = {"sk": (300, 300, 1, 1), "conv.0": (1, 300, 1, 1), "conv.1": (1, 1, 3, 3), "conv.2": (300, 1, 1, 1)}
    state: dict[str, Any] = {}
    for branch, shape in shapes.items():
        state |= {
            f"conv_1.{branch}.weight": np.ones(shape, np.float32),
            f"conv_1.{branch}.bias": np.ones(shape[0], np.float32),
        }
    with pytest.raises(ModelError, match="go from 300 over 1 and 1 to 300 channels: expected the two in the middle"):
        folded_span(state)


def test_weights_do_not_keep_the_file_alive(tmp_path: Path) -> None:
    state = {key: torch.from_numpy(array) for key, array in small_state(Compact(scale=2, features=4, convs=1)).items()}
    torch.save(state, tmp_path / "net.pth")
    safetensors.numpy.save_file({key: tensor.numpy() for key, tensor in state.items()}, tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        for array in read_weights(tmp_path / name).state.values():
            assert array.flags.owndata
            assert array.flags.aligned
            assert array.flags.writeable


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_or_a_device_is_no_file_of_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.pth")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    for name in ("net.pth", "zero.pth"):
        with pytest.raises(ModelError, match=r"is a pipe or a device: expected a file"):
            read_weights(tmp_path / name)


# ---- safetensors


def safetensors_of(header: object, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def entry(shape: object = (4,), places: object = (0, 16), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": places}


def test_the_file_of_these_tests_is_one() -> None:
    arrays, metadata = read_safetensors(safetensors_of({"__metadata__": {"a": "b"}, "x": entry()}, bytes(16)))
    assert (list(arrays), arrays["x"].shape, metadata) == (["x"], (4,), {"a": "b"})


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (3, 5), (2, 1, 3, 3)], ids=str)
def test_arrays_are_those_that_the_library_reads(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = torch.from_numpy(np.array(np.random.default_rng(0).normal(size=shape) * 9)).to(getattr(torch, dtype))
    safetensors.torch.save_file({"a": torch.ones(3), "b": values}, tmp_path / "x.safetensors", {"key": "value"})
    arrays, metadata = read_safetensors((tmp_path / "x.safetensors").read_bytes())
    expected = values.float() if dtype == "bfloat16" else values
    np.testing.assert_array_equal(arrays["b"], expected.numpy())
    assert arrays["b"].dtype == expected.numpy().dtype
    assert (sorted(arrays), metadata) == (["a", "b"], {"key": "value"})


@pytest.mark.parametrize(
    "data",
    [
        *(
            safetensors_of({"x": entry(shape=shape)}, bytes(16))
            for shape in ([-4], [4.0], [True, 4], ["4"], 4, None, [[4]])
        ),
        *(safetensors_of({"x": entry(shape=shape)}, bytes(16)) for shape in ([2**63], [2**62, 4], [5], [], [1] * 17)),
        safetensors_of({"x": entry(shape=[0, 2**47, 2**47, 2**47], places=[0, 0])}),
        safetensors_of({"x": entry(shape=[0, 2**63], places=[0, 0])}),
        *(
            safetensors_of({"x": entry(places=places)}, bytes(16))
            for places in (
                [0, 17],
                [-1, 15],
                [16, 0],
                [0, 16.0],
                [False, 16],
                [0],
                [0, 8, 16],
                "0,16",
                None,
                [0, 2**64],
            )
        ),
        *(safetensors_of({"x": entry(dtype=dtype)}, bytes(16)) for dtype in ("F33", "f32", 32, None, ["F32"], "F32\n")),
        safetensors_of({"x": entry(), "y": entry()}, bytes(16)),
        safetensors_of({"x": entry(), "y": entry(places=[8, 24])}, bytes(24)),
        safetensors_of({"x": entry(), "y": entry(places=[20, 36])}, bytes(36)),
        safetensors_of({"x": entry(places=[4, 20])}, bytes(20)),
        safetensors_of({"x": entry()}, bytes(20)),
        safetensors_of(
            b'{"x":' + json.dumps(entry()).encode() + b',"x":' + json.dumps(entry()).encode() + b"}", bytes(16)
        ),
        safetensors_of(b'{"x":{"dtype":"F32","shape":[4],"shape":[4],"data_offsets":[0,16]}}', bytes(16)),
        safetensors_of(b'{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}', bytes(16)),
        safetensors_of(b'{"x":{"dtype":"F32","shape":[' + b"9" * 9000 + b'],"data_offsets":[0,16]}}', bytes(16)),
        safetensors_of({"__metadata__": {"a": 1}, "x": entry()}, bytes(16)),
        safetensors_of({"__metadata__": ["a"], "x": entry()}, bytes(16)),
        safetensors_of({"__metadata__": None, "x": entry()}, bytes(16)),
        safetensors_of([entry()], bytes(16)),
        safetensors_of({"x": [1]}, bytes(16)),
        safetensors_of(b"[" * 200_000),
        safetensors_of(b'{"a":' * 200_000),
        safetensors_of(b"\xff{}"),
        struct.pack("<Q", 2**64 - 1) + bytes(99),
        struct.pack("<Q", 3 << 20) + b" " * (4 << 20),
        b"\0\0\0",
    ],
)
def test_safetensors_that_contradict_themselves_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"is no readable \.safetensors file \(.*\): damaged or incomplete") as caught:
        read_safetensors(data)
    assert "\n" not in str(caught.value)


def test_a_large_header_takes_little(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(safetensors_of(b'{"a":[' + b"{}," * 690_000 + b"{}]}"))
    assert "is no readable .safetensors file" in said_apart(tmp_path / "net.safetensors")


# ---- ncnn


def ncnn_pair(folder: Path, lines: list[str], data: bytes = b"", announced: object = None) -> Path:
    count = len(lines) if announced is None else announced
    (folder / "net.param").write_text("\n".join(["7767517", f"{count} 9", *lines, ""]))
    (folder / "net.bin").write_bytes(data)
    return folder / "net.bin"


CHANNELS = 1_000_000


@pytest.mark.parametrize(
    ("lines", "data", "words"),
    [
        (
            [
                "Input i 0 1 v",
                f"MemoryData m 0 1 c 0=1 2={CHANNELS}",
                f"Convolution x 1 1 v w 0={CHANNELS} 1=1 6={3 * CHANNELS}",
                "BinaryOp b 2 1 w c b0 0=2",
                *(f"BinaryOp b 1 1 b{n} b{n + 1} 0=2 1=1 2=1.5" for n in range(500)),
            ],
            bytes(4 * CHANNELS + 4 + 12 * CHANNELS),
            "at most 1,048,576 numbers of arithmetic along channels",
        ),
        ([""] * 60_000, b"", "has 60,002 lines: expected a network, at most 16,384"),
        (["Concat " + "a " * 300_000], b"", "has the line 'Concat a a"),
        (["Eltwise e 1 1 a b -23301=" + "1," * 300_000], b"", "has the line 'Eltwise"),
        (["Input i 0 2 v v"], b"", "two results called 'v', expected different names"),
        (["Input i 0 1 v", "PReLU p 1 1 v w 0=-4"], b"", "ends after|convolutions"),
        (["Input i 0 1 v", "Convolution c 1 1 v w 0=-3 1=3 4=1 6=81"], b"", "as many weights as its channels"),
        (["Input i 0 1 v", f"Convolution c 1 1 v w 0={2**63} 1=3 4=1 6=81"], b"", "a number 0 of at most"),
        (["Input i 0 1 v", "Convolution c 1 1 v w 0=² 1=3 4=1 6=81"], b"", "without a number 0"),
        (["Input i 0 1 v", f"Convolution c 1 1 v w 0={'9' * 4200} 1=3 4=1 6=81"], b"", "has the line|a number 0"),
        (["Input i -1 1 v"], b"", "has the line 'Input i -1 1 v'"),
        (["Input i 0 1 v", "Sigmoid s 1 1 lost y"], b"", "reads 'lost', which is not made before"),
    ],
)
def test_graphs_of_ncnn_that_make_much_of_little_are_refused(
    tmp_path: Path, lines: list[str], data: bytes, words: str
) -> None:
    path = ncnn_pair(tmp_path, lines, data)
    if sys.platform == "linux":
        assert re.search(words, said := said_apart(path)), said


def test_ordered_dicts_of_python_2_and_other_plain_keys_are_read() -> None:
    program = pickle.dumps({"a": {0: 1, 2.5: 2, None: 3, True: 4, (0, "x"): 5, b"b": 6}, "b": OrderedDict(c=[1])}, 4)
    assert read_torch(zip_of(program)) == {"a": {0: 1, 2.5: 2, None: 3, True: 4, (0, "x"): 5, b"b": 6}, "b": {"c": [1]}}
    assert read_torch(zip_of(ORDERED + b"](](X\1\0\0\0cK\1e](X\1\0\0\0dK\2ee\x85R.")) == {"c": 1, "d": 2}
