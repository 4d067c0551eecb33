"""Injects damage into weights: mutated .pth, .safetensors and ncnn files, and pickles that are made to harm.

python benchmarks/faults_models.py --child     reads the file that each line of stdin names
"""

import io
import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from faults_children import AnsweringChild, answer_lines
from faults_mutations import mutated
from faults_networks import small_networks
from faults_verdicts import RIGHT, WRONG, Tally

TRIALS = 2000
_ORDERED, _SIZE = b"ccollections\nOrderedDict\n", b"ctorch\nSize\n"
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Load the whole files, the hostile pickles and `trials` mutated files, one by one, in child processes."""
    dice, whole = random.Random(seed), whole_files()
    child = AnsweringChild(Path(__file__))
    traps = folder / "ran"
    hostile = hostile_pickles(traps)
    try:
        for name, files in whole.items():
            path = _write(folder, f"whole-{name}", files)
            verdict, text = child.ask(str(path))
            tally.add("whole files", RIGHT if verdict == RIGHT else WRONG, f"{name}: {text}")
        for number in range(trials):
            if number < len(hostile):
                subject, files = "hostile pickles", {".pth": hostile[number]}
            else:
                subject, files = _mutated_files(whole, dice)
            path = _write(folder, f"{number:05}", files)
            verdict, text = child.ask(str(path))
            if traps.exists():
                verdict, text = WRONG, "code of the file was run"
                traps.unlink()
            tally.add(subject, verdict, f"number {number}: {text}", path)
            for suffix in files:
                path.with_suffix(suffix).unlink()
    finally:
        child.close()


def _write(folder: Path, stem: str, files: dict[str, bytes]) -> Path:
    for suffix, data in files.items():
        path = folder / f"{stem}{suffix}"
        path.write_bytes(data)
    return path


def _mutated_files(whole: dict[str, dict[str, bytes]], dice: random.Random) -> tuple[str, dict[str, bytes]]:
    """Return what a mutated network is, and its files; of a zip mostly the pickle within it is mutated."""
    name = dice.choice(sorted(whole))
    files = dict(whole[name])
    suffix = dice.choice(sorted(files))
    if suffix == ".pth" and name.startswith("zip") and dice.random() < 0.7:
        files[suffix] = _with_mutated_pickle(files[suffix], dice)
        return "pickles in .pth", files
    files[suffix] = mutated(files[suffix], dice)[1]
    return suffix, files


def _with_mutated_pickle(data: bytes, dice: random.Random) -> bytes:
    """Return a zip in which the pickle alone is mutated, with checksums that are right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as whole, zipfile.ZipFile(stream, "w") as archive:
        for name in whole.namelist():
            content = whole.read(name)
            archive.writestr(name, mutated(content, dice)[1] if name.endswith("data.pkl") else content)
    return stream.getvalue()


def whole_files() -> dict[str, dict[str, bytes]]:
    """Return name -> suffix -> content of small networks in every kind of file."""
    import safetensors.numpy

    from realesr.models.ncnn_graph import ncnn_files

    files: dict[str, dict[str, bytes]] = {}
    for network in small_networks(scale=4):
        param, data = ncnn_files(network)
        files[f"{network.name}-ncnn"] = {".param": param.encode(), ".bin": data}
        files[f"{network.name}-safetensors"] = {".safetensors": safetensors.numpy.save(network.state)}
        files |= _saved_by_torch(network.name, network.state)
    return files


def _saved_by_torch(name: str, state: dict[str, Any]) -> dict[str, dict[str, bytes]]:
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    tensors = {"params_ema": {key: torch.from_numpy(array) for key, array in state.items()}}
    files = {}
    for kind, is_zip in (("zip", True), ("stream", False)):
        stream = io.BytesIO()
        torch.save(tensors, stream, _use_new_zipfile_serialization=is_zip)
        files[f"{kind}-{name}"] = {".pth": stream.getvalue()}
    return files


def zip_of(program: bytes) -> bytes:
    """Return a pickle as the zip of a .pth file, with valid checksums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    return stream.getvalue()


class _Command:
    """Pickles as a call of os.system."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self._command,)


def hostile_pickles(trap: Path) -> list[bytes]:
    """Return .pth files that would run code, which makes the file `trap`, or make gigabytes out of little."""
    command = f"touch {trap}"
    programs = [
        *(pickle.dumps({"params": _Command(command)}, protocol) for protocol in range(6)),
        f"cos\nsystem\n(V{command}\ntR.".encode(),
        f"(S'{command}'\nios\nsystem\n.".encode(),
        f"c__builtin__\neval\n(V__import__('os').system({command!r})\ntR.".encode(),
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c" + bytes([len(command)]) + command.encode() + b"\x85R.",
        f"ctorch.hub\nload\n(V{command}\ntR.".encode(),
        b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
        b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.",
        b"\x80\x04}\x94"
        + b")\x94"
        + b"".join(b"h" + bytes([n]) * 1 + b"h" + bytes([n]) + b"\x86\x94" for n in range(60)),
        _ORDERED + b"q\0](" + b"(X\1\0\0\0aNl" * 2000 + b"eq\1" + b"h\0h\1\x85R" * 60_000 + b".",
        _SIZE + b"q\0](" + b"K\1" * 50_000 + b"eq\1" + b"h\0h\1\x85R" * 60_000 + b".",
        _REBUILD + b"q\0(" + b"N" * 100_000 + b"tq\1" + b"h\0h\1R" * 60_000 + b".",
        b"(" + b"N" * 100_000 + b"tq\1" + b"h\1Q" * 100_000 + b".",
        b"]" * 5_000_000 + b".",
        b"N" + b"\x94" * 5_000_000 + b".",
        b"}" + b"X\1\0\0\0a}" * 100_000 + b"s" * 100_000 + b".",
        b"}\x8b" + struct.pack("<i", 1_000_000) + b"\1" * 1_000_000 + b"Ns.",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 63) + b"}.",
        b"X" + struct.pack("<I", 0xFFFFFFFF) + b"a.",
        b"\x8e" + struct.pack("<Q", 1 << 62) + b".",
        b"}(" + b"".join(b"\x8a\x0c" + (k << 61).to_bytes(12, "little") + b"N" for k in range(1, 60_000)) + b"u.",
        pickle.dumps(OrderedDict(a=1), 0),
        pickle.dumps([[]] * 100_000, 2),
        b"",
        b".",
        b"}}Ns.",
        b"2" * 1000 + b".",
    ]
    head = b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    streams = [head + program + pickle.dumps([], 2) for program in programs]
    return [*map(zip_of, programs), *streams, *programs, _overlapping(500, 60_000)]


def _overlapping(count: int, size: int) -> bytes:
    """Return a zip whose entries are all the same bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data/0", bytes(size))
        for number in range(1, count):
            archive.writestr(f"archive/data/{number}", b"")
        archive.writestr("archive/data.pkl", b"}.")
        first = archive.filelist[0]
        for info in archive.filelist[1:count]:
            info.file_size = info.compress_size = size
            info.CRC, info.header_offset = first.CRC, first.header_offset
    return stream.getvalue()


def _judge(line: str) -> tuple[str, str]:
    from realesr.models.weights import read_weights

    weights = read_weights(Path(line))
    shapes = {key: array.shape for key, array in weights.state.items()}
    if shapes != dict(weights.architecture.shapes):
        return WRONG, f"arrays of other shapes than those of {weights.architecture}"
    return RIGHT, ""


if __name__ == "__main__":
    answer_lines(_judge)
