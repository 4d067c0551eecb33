"""Reads a network's weights from any file that we know into plain arrays. No torch, and no code from a file is run.

What reads a kind of file is imported when there is one: together it takes 0.03 s of every start.
"""

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError, UsageError
from realesr.models.architecture import Architecture
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.state_dict import Arrays, state_dict

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".param")
"""Suffixes of the files that `read_weights` reads; ncnn's .bin and .param belong together."""

_MAX_BYTES = 1 << 30
"""Assumption: 15 times the largest released network. Larger files are whole trainings, or not ours at all."""

_MAX_FLOAT32_SHARE, _SHARED_BYTES = 2, 1 << 24
"""Size of a network as float32, by its file's: half precision becomes twice as large. What is beyond that the file does
not hold: tensors there share a storage, thousands of them perhaps. Some sharing is let pass."""


@dataclass(frozen=True, eq=False)
class Weights:
    """A network that enlarges: its architecture and its arrays."""

    name: str
    """Name in the zoo, else the file's name without suffix."""
    architecture: Architecture
    state: dict[str, NDArray[np.float32]]
    """Exactly the keys and shapes of `architecture.shapes`; C-contiguous."""
    sha256: str
    """Hash of the file (ncnn: .param, then .bin); of a blend, the hash of both networks' hashes and the share."""


@dataclass(frozen=True, eq=False)
class DiscriminatorWeights:
    """A discriminator and its arrays, for `models info` and to resume training."""

    name: str
    architecture: UNetDiscriminator
    state: dict[str, NDArray[np.float32]]
    sha256: str


def read_weights(path: Path, *, sha256: str | None = None) -> Weights:
    """Read a network that enlarges.

    Args:
        path: .safetensors, .pth, .pt or .ckpt, or either of ncnn's two files.
        sha256: what `Weights.sha256` will be, where the caller has compared the file with it; None to compute it.

    Raises:
        ModelError: the file is missing, damaged, of no known kind, asks to run code, or holds no network of ours.
    """
    found = read_any_weights(path, sha256=sha256)
    if isinstance(found, DiscriminatorWeights):
        raise ModelError(f"{path} holds a discriminator, which enlarges nothing: give a generator")
    return found


def read_any_weights(path: Path, *, sha256: str | None = None) -> Weights | DiscriminatorWeights:
    """Read a generator or a discriminator; arguments and errors are those of `read_weights`."""
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ModelError(f"{path} is no file of weights: expected one of {', '.join(SUFFIXES)} (or .onnx)")
    try:
        return read(path, sha256)
    except ModelError as error:
        from realesr.models.torch_file import printable

        message = printable(str(error))
        full = message if str(path.with_suffix("")) in message else f"{path}: {message}"
        raise ModelError(full, option=error.option) from error


def interpolate(a: Weights, b: Weights, share_of_a: float) -> Weights:
    """Interpolate the weights of two networks of one architecture: share_of_a * a + (1 - share_of_a) * b.

    Source: Real-ESRGAN, realesrgan/utils.py (deep network interpolation); realesr-general-x4v3 is `a` there.

    Raises:
        UsageError: the share is not in [0, 1], or the architectures differ.
    """
    if not 0 <= share_of_a <= 1:
        raise UsageError(f"got a share of {share_of_a}: expected 0 to 1")
    if a.architecture != b.architecture:
        a_is, b_is = a.architecture.title, b.architecture.title
        if a_is == b_is:
            a_is, b_is = str(a.architecture), str(b.architecture)
        raise UsageError(
            f"{a.name} ({a_is}) and {b.name} ({b_is}) cannot be blended: expected two networks of the same "
            "architecture, scale and size",
            option="denoise_with",
        )
    share = np.float32(share_of_a)
    state = {key: share * array + (1 - share) * b.state[key] for key, array in a.state.items()}
    digest = hashlib.sha256(f"{a.sha256} {b.sha256} {share_of_a!r}".encode()).hexdigest()
    return Weights(f"{a.name}-with-{b.name}", a.architecture, state, digest)


def _read_safetensors(path: Path, sha256: str | None) -> Weights | DiscriminatorWeights:
    from realesr.models.safetensors_file import read_safetensors

    data = _read_bytes(path)
    arrays, metadata = read_safetensors(data)
    return _named(path.stem, state_dict(arrays), data, sha256, metadata.get("activation"))


def _read_torch(path: Path, sha256: str | None) -> Weights | DiscriminatorWeights:
    from realesr.models.torch_file import read_torch

    data = _read_bytes(path)
    return _named(path.stem, state_dict(read_torch(data)), data, sha256)


def _read_ncnn(path: Path, sha256: str | None) -> Weights:
    from realesr.models.ncnn_file import read_ncnn

    for part in (path.with_suffix(".param"), path.with_suffix(".bin")):
        if not part.exists():
            raise ModelError(f"{part} does not exist: an ncnn network is a .param and a .bin of one name in one folder")
    param, data = _read_bytes(path.with_suffix(".param")), _read_bytes(path.with_suffix(".bin"))
    architecture, state = read_ncnn(param.decode("utf-8", "replace"), data)
    return Weights(path.stem, architecture, state, sha256 or _sha256(param, data))


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


_READERS: dict[str, Callable[[Path, str | None], Weights | DiscriminatorWeights]] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".ckpt": _read_torch,
    ".bin": _read_ncnn,
    ".param": _read_ncnn,
}


def _read_bytes(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise ModelError(f"{path} is a pipe or a device: expected a file")
        if found.st_size > _MAX_BYTES:
            raise ModelError(f"{path} has {found.st_size:,} bytes: expected a network, at most {_MAX_BYTES:,}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist: check the path, or give a name of the zoo", option="model") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


def _named(
    name: str, state: Arrays, data: bytes, sha256: str | None, activation: str | None = None
) -> Weights | DiscriminatorWeights:
    """Return the network of a state dict out of a file, whose numbers no longer need the file."""
    from realesr.models.recognition import recognise

    _check_is_stored(state, len(data))
    architecture, arrays = recognise(state, activation=activation)
    for key, array in arrays.items():
        if array.dtype.kind != "f":
            raise ModelError(f"{key} is of {array.dtype}: expected floating-point weights, not quantised ones")
    # In the order of use, so that two files of the same numbers give the same ONNX file.
    with np.errstate(over="ignore"):
        floats = {key: np.require(arrays[key], np.float32, ["C", "A", "W"]) for key in architecture.shapes}
    sha256 = sha256 or _sha256(data)
    if isinstance(architecture, UNetDiscriminator):
        return DiscriminatorWeights(name, architecture, floats, sha256)
    return Weights(name, architecture, floats, sha256)


def _check_is_stored(state: Arrays, file_bytes: int) -> None:
    """Raise ModelError where arrays have many more numbers together than the file holds."""
    numbers = sum(array.size for array in state.values() if array.dtype.kind == "f")
    if 4 * numbers > _MAX_FLOAT32_SHARE * file_bytes + _SHARED_BYTES:
        raise ModelError(
            f"has arrays of {numbers:,} numbers in {file_bytes:,} bytes, for they share what is stored: expected a "
            "network whose arrays are stored each; save clones of them"
        )
