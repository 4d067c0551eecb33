"""Follows the pickles of `torch.save` without running what they ask for.

A pickle is a program for a small stack machine. `pickle` itself would run it and so call whatever the file names. Here
it is followed by a machine that has no way to call anything: names stay words, and only the few words that a state
dict needs mean something.

A program of a few kilobytes can also make something endless: a tuple that holds the last one twice, again and again,
has a hash that takes years; nested deep enough it ends Python; a list that is copied by each of many calls takes all
memory. So nothing here costs more than the instructions in the file: they are counted, no value is copied by a call
beyond `_MAX_ARGUMENTS`, and what is hashed or shown is a plain value.
"""

import io
import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from realesr.errors import ModelError

SAVE_ANEW = "save the state dict alone, as .safetensors or by torch.save(net.state_dict(), path)"
"""What to do with a file that holds more than weights."""

_MAX_PROGRAM_BYTES = 1 << 24
_MAX_INSTRUCTIONS = 1 << 19
"""A tensor takes some 250 bytes and 35 instructions: assumption, 20 times the tensors of the largest training."""

_MAX_ARGUMENTS = 16
"""Of a call or a reference; also the dimensions of a tensor, and the parts of a tuple that is a key."""

_MAX_TUPLE_DEPTH = 16

_MAX_INTEGER_BITS = 512
"""Size of integers. Larger ones are costly to hash, and no state dict needs them."""

_MAX_ODD_KEYS = 10_000
"""Number of keys other than text, such as the numbers of an optimizer's parameters. Hashes of such values are known
beforehand, so keys can be made that all have the same: each is then compared with all before it."""

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

_ITEM_BYTES = {"f8": 8, "f4": 4, "f2": 2, "bf16": 2, "i8": 8, "i4": 4, "i2": 2, "i1": 1, "u1": 1, "?": 1}


@dataclass(slots=True)
class Storage:
    """A flat array that tensors are views of."""

    key: str
    dtype: str
    """Type of numpy without byte order, or "bf16"."""
    numel: int

    @property
    def bytes(self) -> int:
        """Return its size in the file."""
        return self.numel * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; offset, shape and stride count elements, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        counts = len(self.shape), len(self.stride)
        if max(counts) > _MAX_ARGUMENTS or counts[0] != counts[1]:
            raise ModelError(f"has a tensor of {counts[0]} dimensions and {counts[1]} strides: damaged, fetch it again")
        if any(type(n) is not int or n < 0 for n in (self.offset, *self.shape, *self.stride)):
            raise ModelError(
                "has a tensor whose offset, shape or strides are no whole numbers from 0: damaged, fetch it again"
            )
        # A stride of 0 could make terabytes of four bytes; no state dict needs one.
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        if 0 not in self.shape and (last >= self.storage.numel or prod(self.shape) > self.storage.numel):
            raise ModelError(
                f"has a tensor of shape {self.shape} at {self.offset}, which does not fit its {self.storage.numel} "
                "stored numbers: damaged, fetch it again"
            )


@dataclass(frozen=True, slots=True)
class _Word:
    """A name that the pickle brings up, "module name". It is never looked up."""

    text: str


@dataclass(frozen=True)
class Followed:
    """What a pickle makes."""

    tree: Any
    """Its object: dicts, lists, tuples, plain values, `Tensor`s."""
    storages: dict[str, Storage]
    """Storages that it refers to, by their keys."""
    end: int
    """First byte behind it."""


def follow(data: bytes | memoryview, start: int = 0) -> Followed:
    """Follow the pickle at `start`.

    Raises:
        ModelError: It asks for more than a state dict needs, in kind or in number.
        ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, AttributeError, RuntimeError, Warning:
            It is damaged.
    """
    stream = io.BytesIO(bytes(data[start : start + _MAX_PROGRAM_BYTES]))
    machine = _Machine()
    try:
        tree = machine.run(stream)
    except ValueError as error:
        if len(data) - start > _MAX_PROGRAM_BYTES and stream.tell() == _MAX_PROGRAM_BYTES:
            raise refused(f"has a pickle of more than {_MAX_PROGRAM_BYTES:,} bytes") from error
        raise
    return Followed(tree, machine.storages, start + stream.tell())


def refused(what: str) -> ModelError:
    """Return the error for a pickle that asks for something else than weights."""
    return ModelError(f"{what}, which no state dict needs; nothing of it was run: {SAVE_ANEW}")


class _Machine:
    """Interprets one pickle. The stack holds plain values, `_Word`s, `Storage`s and `Tensor`s, and nothing else."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._depths: dict[int, tuple[Any, int]] = {}  # id of a tuple of tuples -> it, and how deep they nest
        self._words: dict[str, _Word] = {}
        self._odd_keys = 0
        self._copied = 0

    def run(self, stream: io.BytesIO) -> Any:
        """Return the pickle's object, with the stream just behind the pickle."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number == _MAX_INSTRUCTIONS:
                raise refused(f"has a pickle of more than {_MAX_INSTRUCTIONS:,} instructions")
            name = opcode.name
            if name in _VALUES:
                if type(argument) is int and argument.bit_length() > _MAX_INTEGER_BITS:
                    raise refused(f"has an integer of {argument.bit_length():,} bits")
                self._stack.append(argument)
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise refused(f"uses the pickle instruction {name}")
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
        made = tuple(items)
        nested = max((self._depth(item) for item in items if type(item) is tuple), default=0)
        if nested:
            if nested >= _MAX_TUPLE_DEPTH:
                raise refused(f"nests tuples more than {_MAX_TUPLE_DEPTH} deep")
            self._depths[id(made)] = made, nested + 1
        self._stack.append(made)

    def _depth(self, made: tuple[Any, ...]) -> int:
        """Return how many levels of tuples are in a tuple, itself among them."""
        return self._depths[id(made)][1] if id(made) in self._depths else 1

    def _list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set_items(items)

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise refused(f"appends to a {type(target).__name__}")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise refused(f"sets items of a {type(target).__name__}")
        self._fill(target, zip(items[::2], items[1::2], strict=True))

    def _fill(self, target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
        """Set items of a dict whose keys are cheap to hash and to compare."""
        for key, value in pairs:
            if type(key) is not str:
                self._check_odd_key(key)
            target[key] = value

    def _check_odd_key(self, key: Any) -> None:
        parts = key if type(key) is tuple else (key,)
        if len(parts) > _MAX_ARGUMENTS or any(type(part) not in _PLAIN for part in parts):
            raise refused(f"has a {_kind(key)} as a key, unhashable or costly to hash")
        self._odd_keys += 1
        if self._odd_keys > _MAX_ODD_KEYS:
            raise refused(f"has more than {_MAX_ODD_KEYS:,} keys that are no text")

    def _put(self, slot: int | None) -> None:
        self._memo[len(self._memo) if slot is None else slot] = self._stack[-1]

    def _get(self, slot: int) -> None:
        self._stack.append(self._memo[slot])

    def _global(self, text: str | None) -> None:
        """Push a name; raise ModelError where a state dict does not need it."""
        if text is None:
            name, module = self._stack.pop(), self._stack.pop()
            if type(name) is not str or type(module) is not str:
                raise refused(f"asks for a name that is a {_kind(name if type(module) is str else module)}")
            text = f"{module} {name}"
        if text not in _CALLS and _storage_dtype(text) is None:
            raise refused(f"asks for {text[:200].replace(' ', '.')}")
        self._stack.append(self._words.setdefault(text, _Word(text)))

    def _reduce(self, _: Any) -> None:
        """Replace a call by our own function, for the few names that a state dict needs."""
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Word) or function.text not in _CALLS or type(arguments) is not tuple:
            raise refused(f"calls {function.text if isinstance(function, _Word) else type(function).__name__}")
        if len(arguments) > _MAX_ARGUMENTS:
            raise refused(f"calls {function.text} with {len(arguments):,} arguments")
        self._stack.append(_CALLS[function.text](self, *arguments))

    def _build(self, _: Any) -> None:
        """Drop the attributes of an OrderedDict (torch's _metadata), which are no weights."""
        self._stack.pop()
        if type(self._stack[-1]) is not dict:
            raise refused(f"sets attributes of a {type(self._stack[-1]).__name__}")

    def _persistent(self, _: Any) -> None:
        """Push the storage of a reference: ("storage", type, key, device, count), in the oldest streams also a view."""
        reference = self._stack.pop()
        if type(reference) is not tuple or len(reference) not in (5, 6):
            raise TypeError(f"a reference that is a {_kind(reference)}")
        kind, word, key, _, numel, *view = reference
        dtype = _storage_dtype(word.text) if isinstance(word, _Word) else None
        is_storage = type(kind) is str and kind == "storage" and dtype is not None
        if not is_storage or dtype is None or type(key) is not str or type(numel) is not int or numel < 0:
            what = word.text if isinstance(word, _Word) else _kind(word)
            raise refused(f"refers to {kind[:80]!r} of {what}" if type(kind) is str else f"refers to a {_kind(kind)}")
        if view and view[0] is not None:
            raise ModelError(f"has storages that are views, as torch before 0.4 wrote them: {SAVE_ANEW}")
        storage = self.storages.setdefault(key, Storage(key, dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise ModelError(f"describes storage {key[:80]} in two ways: damaged, fetch it again")
        self._stack.append(storage)

    # Functions in the place of those that a pickle calls.

    def _ordered_dict(self, items: Any = ()) -> dict[Any, Any]:
        """Return the dict of a list of pairs, as Python 2 wrote them; others set the items of an empty one."""
        made: dict[Any, Any] = {}
        if type(items) is list:
            self._copied += len(items)
            if self._copied > _MAX_INSTRUCTIONS:
                raise refused(f"makes OrderedDicts of more than {_MAX_INSTRUCTIONS:,} items")
            if any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in items):
                raise refused("makes an OrderedDict of a list that holds no pairs")
            self._fill(made, items)
        elif type(items) is not tuple or items:
            raise refused(f"makes an OrderedDict of a {_kind(items)}")
        return made

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
        if type(storage) is not Storage or type(shape) is not tuple or type(stride) is not tuple:
            raise ModelError("has a tensor without storage, shape or strides: damaged, fetch it again")
        return Tensor(storage, offset, shape, stride)

    def _parameter(self, tensor: Any, *_: Any) -> Any:
        return tensor

    def _size(self, shape: Any = ()) -> tuple[int, ...]:
        """Return the shape that a torch.Size is."""
        is_list = type(shape) in (tuple, list) and len(shape) <= _MAX_ARGUMENTS
        if not is_list or any(type(side) is not int for side in shape):
            raise refused(f"makes a torch.Size of a {_kind(shape)}")
        return tuple(shape)


_PLAIN = (str, bytes, int, float, bool, type(None))


def _kind(value: Any) -> str:
    """Return a word for a value, which is itself not safe to show: it may be endless."""
    if type(value) is tuple:
        return f"tuple of {len(value):,}"
    return "name" if isinstance(value, _Word) else type(value).__name__


def _storage_dtype(text: str) -> str | None:
    module, _, name = text.partition(" ")
    return _DTYPES.get(name) if module in ("torch", "torch.cuda") else None


_CALLS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _Machine._ordered_dict,
    "torch._utils _rebuild_tensor": _Machine._tensor,
    "torch._utils _rebuild_tensor_v2": _Machine._tensor,
    "torch._utils _rebuild_parameter": _Machine._parameter,
    "torch Size": _Machine._size,
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
    "TUPLE": lambda machine, _: machine._tuple(None),
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
