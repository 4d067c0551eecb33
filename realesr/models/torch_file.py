"""Reads the files of `torch.save` without torch, and without running what they ask for.

Such a file is a pickle, that is a program for a small stack machine, with the tensors' bytes beside it. `pickle` itself
would run the program and so call whatever the file names. Here the program is followed by a machine that has no way to
call anything: names stay words, and only the few words that a state dict needs mean something.

Two formats (torch/serialization.py): since 1.6 a zip of stored entries, <name>/data.pkl and <name>/data/<key>; before
it a stream of five pickles (magic number, version, system, object, storage keys), then each storage's length and bytes.
"""

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001

_DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}

_SAVE_ANEW = "save the state dict alone, as .safetensors or by torch.save(net.state_dict(), path)"


@dataclass
class _Storage:
    """A flat array that tensors are views of; its bytes come later in the old format."""

    key: str
    dtype: str
    numel: int
    data: NDArray[Any] | None = None

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bf16" else np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset, shape and stride count elements, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or any(type(n) is not int or n < 0 for n in numbers):
            raise ModelError(f"a tensor of shape {self.shape} and strides {self.stride} cannot be")
        # A stride of 0 could make terabytes of four bytes; no state dict needs one.
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        if 0 not in self.shape and (last >= self.storage.numel or prod(self.shape) > self.storage.numel):
            raise ModelError(
                f"a tensor of shape {self.shape} at {self.offset} does not fit its {self.storage.numel} stored numbers"
            )


@dataclass(frozen=True)
class _Word:
    """A name that the pickle brings up, "module name". It is never looked up."""

    text: str


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
            raise ModelError(f"is a tar archive, as torch before 0.2 wrote it: load it there, then {_SAVE_ANEW}")
        if zipfile.is_zipfile(io.BytesIO(data)) and data[:2] == b"PK":
            return _read_zip(data)
        return _read_legacy(io.BytesIO(data))
    except ModelError as error:
        raise ModelError(printable(str(error))) from error
    except (ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError, AttributeError) as error:
        raise _damaged(error) from error
    # RuntimeError: encrypted, or of unknown compression; Warning: odd text, where the caller made warnings errors.
    except (struct.error, zipfile.BadZipFile, RuntimeError, Warning) as error:
        raise _damaged(error) from error


def printable(text: str) -> str:
    """Return text as one line that is safe to print: parts of messages may come from a hostile file."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= 500 else f"{plain[:497]}..."


def _damaged(error: BaseException) -> ModelError:
    detail = printable(" ".join(str(error).split()))[:120] or type(error).__name__
    return ModelError(f"is no readable torch file ({detail}): damaged or incomplete, fetch it again")


def _read_zip(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickle_name = next((name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")), None)
        if pickle_name is None:
            raise ModelError(f"is a zip without data.pkl: expected a file of torch.save ({_SAVE_ANEW})")
        folder = pickle_name.removesuffix("data.pkl")
        if f"{folder}constants.pkl" in entries:
            raise ModelError(f"is a TorchScript program, not weights: {_SAVE_ANEW}")
        byteorder = entries.get(f"{folder}byteorder")
        order = ">" if byteorder and _stored(archive, byteorder, len(data)) == b"big" else "<"
        machine = _Machine(io.BytesIO(_stored(archive, entries[pickle_name], len(data))))
        tree = machine.run()
        # Entries of a crafted zip may overlap, and so hold more together than the file does.
        if sum(storage.numel * storage.itemsize for storage in machine.storages.values()) > len(data):
            raise ModelError("has larger storages than the whole file: damaged or incomplete, fetch it again")
        for storage in machine.storages.values():
            content = _stored(archive, entries[f"{folder}data/{storage.key}"], len(data))
            _fill(storage, content, order)
    return _with_arrays(tree)


def _stored(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """Return the bytes of an entry; raise ModelError where it is compressed, as torch never writes it: a zip bomb."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
        raise ModelError(f"has the compressed entry {info.filename}: expected stored ones, as torch.save writes them")
    return archive.read(info)


def _read_legacy(stream: BinaryIO) -> Any:
    magic = _Machine(stream).run()
    if magic != _LEGACY_MAGIC:
        raise ModelError(f"is neither a zip nor a stream of torch.save: {_SAVE_ANEW}")
    version = _Machine(stream).run()
    if version != _LEGACY_VERSION:
        raise ModelError(f"is a torch stream of version {version}, expected {_LEGACY_VERSION}: {_SAVE_ANEW}")
    system = _Machine(stream).run()
    order = "<" if system.get("little_endian", True) else ">"
    machine = _Machine(stream)
    tree = machine.run()
    for key in _Machine(stream).run():
        storage = machine.storages[key]
        (numel,) = struct.unpack(f"{order}q", stream.read(8))
        if numel != storage.numel:
            raise ModelError(f"storage {key} has {numel} numbers, expected {storage.numel}: damaged, fetch it again")
        _fill(storage, stream.read(numel * storage.itemsize), order)
    return _with_arrays(tree)


def _fill(storage: _Storage, content: bytes, order: str) -> None:
    """Fill a storage with its numbers."""
    size = storage.numel * storage.itemsize
    if len(content) < size:
        raise ModelError(f"storage {storage.key} has {len(content)} bytes, expected {size}: truncated, fetch it again")
    if storage.dtype == "bf16":
        storage.data = float32_from_bfloat16(np.frombuffer(content, f"{order}u2", storage.numel))
    else:
        storage.data = np.frombuffer(content, f"{order}{storage.dtype}", storage.numel)


def float32_from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 numbers as float32: a bfloat16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _with_arrays(tree: Any) -> Any:
    """Replace tensors by arrays, inside dicts and lists; loops in the tree do no harm."""
    if isinstance(tree, _Tensor):
        return _array(tree)
    pending, seen = [tree], set()
    while pending:
        node = pending.pop()
        if id(node) in seen or not isinstance(node, dict | list):
            continue
        seen.add(id(node))
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            if isinstance(value, _Tensor):
                node[key] = _array(value)
            else:
                pending.append(value)
    return tree


def _array(tensor: _Tensor) -> NDArray[Any]:
    data = tensor.storage.data
    if data is None:
        raise ModelError(f"storage {tensor.storage.key} is missing: truncated, fetch it again")
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, data.dtype)
    strides = [step * data.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(data[tensor.offset :], tensor.shape, strides, writeable=False)


class _Machine:
    """Interprets one pickle. The stack holds plain values, `_Word`s, `_Storage`s and `_Tensor`s, and nothing else."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.storages: dict[str, _Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the pickle's object, with the stream just behind the pickle."""
        for opcode, argument, _ in pickletools.genops(self.stream):
            if opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _VALUES:
                self._stack.append(argument)
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise _refused(f"uses the pickle instruction {opcode.name}")
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def _empty_list(self, _: Any) -> None:
        self._stack.append([])

    def _tuple(self, count: int | None) -> None:
        items = self._since_mark() if count is None else [self._stack.pop() for _ in range(count)][::-1]
        self._stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise _refused(f"appends to a {type(target).__name__}")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise _refused(f"sets items of a {type(target).__name__}")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _put(self, slot: int | None) -> None:
        self._memo[len(self._memo) if slot is None else slot] = self._stack[-1]

    def _get(self, slot: int) -> None:
        self._stack.append(self._memo[slot])

    def _global(self, text: str | None) -> None:
        """Push a name; raise ModelError where a state dict does not need it."""
        if text is None:
            name, module = self._stack.pop(), self._stack.pop()
            text = f"{module} {name}"
        if text not in _CALLS and _storage_dtype(text) is None:
            raise _refused(f"asks for {text.replace(' ', '.')}")
        self._stack.append(_Word(text))

    def _reduce(self, _: Any) -> None:
        """Replace a call by our own function, for the few names that a state dict needs."""
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Word) or function.text not in _CALLS or type(arguments) is not tuple:
            raise _refused(f"calls {function.text if isinstance(function, _Word) else type(function).__name__}")
        self._stack.append(_CALLS[function.text](*arguments))

    def _build(self, _: Any) -> None:
        """Drop the attributes of an OrderedDict (torch's _metadata), which are no weights."""
        self._stack.pop()
        if type(self._stack[-1]) is not dict:
            raise _refused(f"sets attributes of a {type(self._stack[-1]).__name__}")

    def _persistent(self, _: Any) -> None:
        """Push the storage of a reference: ("storage", type, key, device, count), in the oldest streams also a view."""
        kind, word, key, _, numel, *view = self._stack.pop()
        dtype = _storage_dtype(word.text)
        if kind != "storage" or dtype is None or type(key) is not str or type(numel) is not int or numel < 0:
            raise _refused(f"refers to {kind!r} of {word.text}")
        if view and view[0] is not None:
            raise ModelError(f"has storages that are views, as torch before 0.4 wrote them: {_SAVE_ANEW}")
        storage = self.storages.setdefault(key, _Storage(key, dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise ModelError(f"describes storage {key} in two ways: damaged, fetch it again")
        self._stack.append(storage)


def _refused(what: str) -> ModelError:
    return ModelError(f"{what}, which no state dict needs; nothing of it was run: {_SAVE_ANEW}")


def _storage_dtype(text: str) -> str | None:
    module, _, name = text.partition(" ")
    return _DTYPES.get(name) if module in ("torch", "torch.cuda") else None


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    if type(items) is not list and items != ():
        raise _refused(f"makes an OrderedDict of a {type(items).__name__}")
    return dict(items)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Tensor:
    if type(storage) is not _Storage or type(shape) is not tuple or type(stride) is not tuple:
        raise ModelError("has a tensor without storage, shape or strides: damaged, fetch it again")
    return _Tensor(storage, offset, shape, stride)


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _size(shape: Any = ()) -> tuple[Any, ...]:
    return tuple(shape) if type(shape) in (tuple, list) else ()


_CALLS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch Size": _size,
}
"""Names that a pickle may call -> our functions in their place."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}

_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
"""Instructions that push a value which stands in the file."""

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "EMPTY_DICT": _Machine._empty_dict,
    "EMPTY_LIST": _Machine._empty_list,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": lambda machine, _: machine._append([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._since_mark()),
    "SETITEM": lambda machine, _: machine._set_items([machine._stack.pop() for _ in "kv"][::-1]),
    "SETITEMS": lambda machine, _: machine._set_items(machine._since_mark()),
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._put,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}
