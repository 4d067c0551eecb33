"""Reads the files of `torch.save` without torch, and without running what they ask for.

Such a file is a pickle, which `realesr.models.pickle_machine` follows, with the tensors' bytes beside it.

Two formats (torch/serialization.py): since 1.6 a zip of stored entries, <name>/data.pkl and <name>/data/<key>; before
it a stream of five pickles (magic number, version, system, object, storage keys), then each storage's length and bytes.

Arrays are views of the file's bytes, however many tensors share a storage: what is read takes no more than the file,
the pickle's objects (bounded there) and the bfloat16 numbers, of which each storage is converted once.
"""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError
from realesr.models.pickle_machine import SAVE_ANEW, Storage, Tensor, follow, refused
from realesr.models.zip_entries import zip_entries

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001

_MAX_DEPTH = 64
"""Dicts and lists in each other. Checkpoints of whole trainings nest about five."""

_MAX_TENSORS = 1 << 15
"""Assumption: eight times the tensors of the largest training, optimizers among them."""

_MAX_MESSAGE = 500


def read_torch(data: bytes) -> Any:
    """Read what `torch.save` wrote: dicts, lists and tuples of arrays and plain values.

    Args:
        data: the whole file.

    Returns:
        The saved object; every tensor in its dicts and lists is a read-only array (views of `data` where torch had
        views). bfloat16 becomes float32, for numpy has none.

    Raises:
        ModelError: damaged or truncated, another format, or a pickle that asks for more than a state dict needs.
    """
    try:
        if data[257:262] == b"ustar":
            raise ModelError(f"is a tar archive, as torch before 0.2 wrote it: load it there, then {SAVE_ANEW}")
        return _read_zip(data) if data[:2] == b"PK" else _read_legacy(data)
    except ModelError as error:
        raise ModelError(printable(str(error))) from error
    except (ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError, AttributeError) as error:
        raise _damaged(error) from error
    # RuntimeError: recursion; Warning: odd text, where the caller made warnings errors.
    except (struct.error, RuntimeError, Warning) as error:
        raise _damaged(error) from error


def printable(text: str) -> str:
    """Return text as one line that is safe to print: parts of messages may come from a hostile file."""
    plain = "".join(character if character.isprintable() else "?" for character in text[: _MAX_MESSAGE + 1])
    return plain if len(plain) <= _MAX_MESSAGE else f"{plain[: _MAX_MESSAGE - 3]}..."


def _damaged(error: BaseException) -> ModelError:
    detail = printable(" ".join(str(error)[:400].split()))[:120] or type(error).__name__
    return ModelError(f"is no readable torch file ({detail}): damaged or incomplete, fetch it again")


def _read_zip(data: bytes) -> Any:
    entries = zip_entries(data)
    pickle_name = next((name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")), None)
    if pickle_name is None:
        raise ModelError(f"is a zip without data.pkl: expected a file of torch.save ({SAVE_ANEW})")
    folder = pickle_name.removesuffix("data.pkl")
    if f"{folder}constants.pkl" in entries:
        raise ModelError(f"is a TorchScript program, not weights: {SAVE_ANEW}")
    byteorder = entries.get(f"{folder}byteorder")
    order = ">" if byteorder is not None and bytes(byteorder.checked()[:4]) == b"big" else "<"
    followed = follow(entries[pickle_name].checked())
    arrays = {}
    for key, storage in followed.storages.items():
        entry = entries.get(f"{folder}data/{key}")
        if entry is None:
            raise ModelError(f"misses the storage {key[:80]}: damaged or incomplete, fetch it again")
        arrays[key] = _numbers(storage, entry.checked(), order)
    return _with_arrays(followed.tree, arrays)


def _read_legacy(data: bytes) -> Any:
    magic = follow(data)
    if type(magic.tree) is not int or magic.tree != _LEGACY_MAGIC:
        raise ModelError(f"is neither a zip nor a stream of torch.save: {SAVE_ANEW}")
    version = follow(data, magic.end)
    if type(version.tree) is not int or version.tree != _LEGACY_VERSION:
        got = version.tree if type(version.tree) is int else type(version.tree).__name__
        raise ModelError(f"is a torch stream of version {got}, expected {_LEGACY_VERSION}: {SAVE_ANEW}")
    system = follow(data, version.end)
    order = "<" if system.tree.get("little_endian", True) is not False else ">"
    followed = follow(data, system.end)
    keys = follow(data, followed.end)
    at = keys.end
    arrays: dict[str, NDArray[Any]] = {}
    for key in _storage_keys(keys.tree, followed.storages):
        storage = followed.storages[key]
        (numel,) = struct.unpack_from(f"{order}q", data, at)
        if numel != storage.numel:
            raise ModelError(
                f"storage {key[:80]} has {numel} numbers, expected {storage.numel}: damaged, fetch it again"
            )
        at += 8
        arrays[key] = _numbers(storage, memoryview(data)[at : at + storage.bytes], order)
        at += storage.bytes
    return _with_arrays(followed.tree, arrays)


def _storage_keys(keys: Any, storages: Mapping[str, Storage]) -> list[str]:
    """Return the list of a stream's storages, once each; raise ModelError where it is another one."""
    is_list = type(keys) is list and all(type(key) is str and key in storages for key in keys)
    if not is_list or len(set(keys)) != len(keys):
        raise ModelError("has a list of storages that is not that of its tensors: damaged, fetch it again")
    return list(keys)


def _numbers(storage: Storage, content: memoryview, order: str) -> NDArray[Any]:
    """Return a storage's numbers, a view of its bytes unless they are bfloat16."""
    if len(content) < storage.bytes:
        raise ModelError(
            f"storage {storage.key[:80]} has {len(content)} bytes, expected {storage.bytes}: truncated, fetch it again"
        )
    if storage.dtype == "bf16":
        return float32_from_bfloat16(np.frombuffer(content, f"{order}u2", storage.numel))
    return np.frombuffer(content, f"{order}{storage.dtype}", storage.numel)


def float32_from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 numbers as float32: a bfloat16 is the upper half of a float32."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _with_arrays(tree: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Replace tensors by arrays, inside dicts and lists; loops in the tree do no harm."""
    if isinstance(tree, Tensor):
        return _array(tree, arrays)
    level, seen, tensors = [tree], set(), 0
    for _ in range(_MAX_DEPTH):
        below = []
        for node in level:
            if id(node) in seen or not isinstance(node, dict | list):
                continue
            seen.add(id(node))
            for key, value in node.items() if isinstance(node, dict) else enumerate(node):
                if isinstance(value, Tensor):
                    tensors += 1
                    if tensors > _MAX_TENSORS:
                        raise refused(f"has more than {_MAX_TENSORS:,} tensors")
                    node[key] = _array(value, arrays)
                elif isinstance(value, dict | list):
                    below.append(value)
        if not below:
            return tree
        level = below
    raise refused(f"nests dicts and lists more than {_MAX_DEPTH} deep")


def _array(tensor: Tensor, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    data = arrays.get(tensor.storage.key)
    if data is None:
        raise ModelError(f"storage {tensor.storage.key[:80]} is missing: truncated, fetch it again")
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, data.dtype)
    strides = [step * data.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(data[tensor.offset :], tensor.shape, strides, writeable=False)
