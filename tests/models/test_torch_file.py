import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realesr.errors import ModelError
from realesr.models.torch_file import read_torch

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])


def _saved(thing, zipped=True, protocol=2):
    stream = io.BytesIO()
    torch.save(thing, stream, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return stream.getvalue()


def _as_torch_reads(data):
    return torch.load(io.BytesIO(data), weights_only=True)


def _assert_same(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        if theirs.dtype == torch.bfloat16:
            theirs = theirs.float()
        assert isinstance(ours, np.ndarray)
        theirs = theirs.detach().numpy()
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            _assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            _assert_same(mine, other)
    else:
        assert ours == theirs


@FORMATS
@pytest.mark.parametrize(
    "dtype",
    ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"],
)
def test_every_dtype_is_read_as_torch_reads_it(dtype, zipped):
    values = torch.tensor([[0, 1, 2.5, -3], [-100.25, 7, 1e-3, 90]]).to(getattr(torch, dtype))
    data = _saved(OrderedDict(a=values, b=values[0, 0]), zipped)
    _assert_same(read_torch(data), _as_torch_reads(data))


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_shared_storages_and_odd_containers_are_read_as_torch_reads_them(zipped, protocol):
    base = torch.arange(60.0).reshape(3, 4, 5)
    thing = {
        "params_ema": OrderedDict(whole=base, part=base[1:, ::2, 1], turned=base.permute(2, 0, 1), again=base),
        "parameter": torch.nn.Parameter(torch.ones(2, 3)),
        "buffer": torch.nn.Parameter(torch.ones(2, 3), requires_grad=False).data,
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.0),
        "list": [base[0], 1, 2.5, None, True, "text", -1, 10**12],
        "size": tuple(base.shape),
        "torch size": base.shape,
        "nested": {1: {2: {}}},
    }
    data = _saved(thing, zipped, protocol)
    # torch's own restricted reader knows protocol 2 only.
    expected = _as_torch_reads(data) if protocol == 2 else torch.load(io.BytesIO(data), weights_only=False)
    _assert_same(read_torch(data), expected)


@FORMATS
def test_the_state_dict_of_a_module_is_read_with_its_attributes_left_out(zipped):
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    data = _saved({"params": state}, zipped)
    _assert_same(read_torch(data), _as_torch_reads(data))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_any_view_is_read_as_torch_reads_it(shape, random, zipped):
    axes = random.sample(range(len(shape)), len(shape))
    steps = tuple(slice(random.randrange(size), None, random.choice([1, 2])) for size in shape)
    tensor = torch.arange(np.prod(shape, dtype=int) * 1.0).reshape(shape).permute(axes)
    view = tensor[tuple(steps[axis] for axis in axes)] if shape else tensor
    data = _saved([view], zipped)
    _assert_same(read_torch(data), _as_torch_reads(data))


def test_arrays_are_views_where_torch_had_views():
    base = torch.arange(6.0)
    arrays = read_torch(_saved({"a": base, "b": base[2:]}))
    assert np.shares_memory(arrays["a"], arrays["b"])
    assert not arrays["a"].flags.writeable


# ---- hostile files


class _Calls:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _zip_of(program, **storages):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('s')}", content)
    return stream.getvalue()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("zipped", ["zip", "stream", "bare"])
def test_a_pickle_that_calls_something_is_refused_by_name_and_not_run(protocol, zipped, tmp_path):
    witness = tmp_path / "witness"
    program = pickle.dumps({"params": _Calls(os.system, f"touch {witness}")}, protocol)
    legacy_head = b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    data = {"zip": _zip_of(program), "stream": legacy_head + program, "bare": program}[zipped]
    with pytest.raises(
        ModelError, match=r"asks for (posix|nt).system, which no state dict needs; nothing of it was run"
    ):
        read_torch(data)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (eval, ("1",), "eval"),
        (getattr, (1, "real"), "getattr"),
        (torch.load, ("x",), "torch.serialization.load"),
        (torch.hub.load, ("x",), "torch.hub.load"),
        (np.dtype, ("f4",), "numpy.dtype"),
        (bytearray, (3,), "bytearray"),
    ],
)
def test_other_names_are_refused_too(function, arguments, name):
    with pytest.raises(ModelError, match=f"asks for .*{name}"):
        read_torch(_zip_of(pickle.dumps(_Calls(function, *arguments))))


def test_names_from_a_file_do_nothing_to_a_terminal():
    with pytest.raises(ModelError) as caught:
        read_torch(_zip_of(b"\x8c\x06\x1b[31m\n\x8c\x04evil\x93."))
    assert str(caught.value).startswith("asks for ?[31m?.evil, which no state dict needs")


def test_a_whole_module_is_refused_with_advice():
    with pytest.raises(ModelError, match=r"asks for torch\.nn\..*save the state dict alone"):
        read_torch(_saved(torch.nn.Conv2d(3, 3, 3)))


@pytest.mark.parametrize(
    ("program", "what"),
    [
        (b"(iposix\nsystem\n.", "INST"),
        (b"(cposix\nsystem\no.", "posix.system"),
        (b"(ccollections\nOrderedDict\no.", "OBJ"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"ccollections\nOrderedDict\n}b.", "sets attributes of a _Word"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "."),
        (b"ctorch\nFloatStorage\n)R.", "calls torch FloatStorage"),
        (b"(lI1\n)R.", "calls int"),
        (b"ccollections\nOrderedDict\n(I1\ntR.", "makes an OrderedDict of a int"),
        (b"X\x02\x00\x00\x00os\x94\x8c\x06system\x93.", "os.system"),
        (b"I1\nI2\na.", "appends to a int"),
        (b"NNNs.", "sets items of a NoneType"),
        (b"}}}s.", "unhashable"),
        (b"]Q.", "no readable torch file"),
        (b"0.", "POP"),
        (b"P1\n.", "PERSID"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.", "no readable torch file"),
        (b"\x8b\xff\xff\xff\x7fa.", "no readable torch file"),
        (b"", "no readable torch file"),
        (b".", "no readable torch file"),
        (b"t.", "no readable torch file"),
        (b"h\x05.", "no readable torch file"),
    ],
)
def test_hand_made_pickles_are_refused(program, what):
    with pytest.raises(ModelError, match=what):
        read_torch(_zip_of(program))


def _tensor_file(numel=4, offset=0, shape=(4,), stride=(1,), storage_bytes=16):
    """A zip with one tensor, described as given."""

    class Machine(pickle.Pickler):
        def persistent_id(self, thing):
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if thing is place else None

    stream, place = io.BytesIO(), object()
    rebuild = _Calls(torch._utils._rebuild_tensor_v2, place, offset, shape, stride, False, OrderedDict())
    Machine(stream, 2).dump({"a": rebuild})
    return _zip_of(stream.getvalue(), s0=bytes(storage_bytes))


def test_the_tensor_file_of_these_tests_is_one():
    np.testing.assert_array_equal(read_torch(_tensor_file())["a"], np.zeros(4, np.float32))


@pytest.mark.parametrize(
    "lie",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**62},
        {"offset": 1.5},
        {"shape": (5,)},
        {"shape": (-4,)},
        {"shape": (2**40, 2**40), "stride": (0, 0)},
        {"shape": (8,), "stride": (0,)},
        {"shape": (2, 2)},
        {"stride": (2,)},
        {"stride": (-1,)},
        {"stride": ("1",)},
        {"shape": [4]},
        {"numel": 5},
        {"numel": 2**60, "shape": (2**59,)},
        {"numel": -4},
        {"storage_bytes": 15},
        {"storage_bytes": 0},
    ],
    ids=str,
)
def test_a_tensor_that_reaches_outside_its_bytes_is_refused(lie):
    with pytest.raises(ModelError):
        read_torch(_tensor_file(**lie))


def test_compressed_entries_are_refused_before_they_are_unpacked():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + bytes(100_000_000))
    with pytest.raises(ModelError, match=r"compressed entry archive/data\.pkl"):
        read_torch(stream.getvalue())


def test_a_dict_that_holds_itself_does_no_harm():
    loop: dict[str, object] = {"a": torch.ones(2)}
    loop["self"] = loop
    arrays = read_torch(_saved(loop))
    assert arrays["self"] is arrays
    np.testing.assert_array_equal(arrays["a"], [1, 1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no readable torch file"),
        (b"<!DOCTYPE html><html>", "no readable torch file"),
        (bytes(257) + b"ustar" + bytes(250), "is a tar archive, as torch before 0.2 wrote it"),
        (pickle.dumps(123), "neither a zip nor a stream of torch.save"),
        (_zip_of(b"N.").replace(b"data.pkl", b"date.pkl"), "zip without data.pkl"),
        (pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1002), "version 1002, expected 1001"),
    ],
)
def test_other_files_are_refused(data, message):
    with pytest.raises(ModelError, match=message):
        read_torch(data)


def test_torchscript_is_refused():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("net/data.pkl", b"N.")
        archive.writestr("net/constants.pkl", b"N.")
    with pytest.raises(ModelError, match="TorchScript program, not weights"):
        read_torch(stream.getvalue())


def test_storages_of_other_lengths_than_announced_are_refused():
    data = _saved({"a": torch.arange(4.0)}, zipped=False)
    assert data[-24:-16] == struct.pack("<q", 4)
    with pytest.raises(ModelError, match="has 5 numbers, expected 4"):
        read_torch(data[:-24] + struct.pack("<q", 5) + data[-16:])


@FORMATS
def test_a_truncated_file_is_refused_wherever_it_ends(zipped):
    data = _saved({"params": OrderedDict(a=torch.arange(5.0), b=torch.ones(2, 2))}, zipped)
    for length in range(len(data)):
        with pytest.raises(ModelError):
            read_torch(data[:length])


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans())
def test_damaged_bytes_give_an_answer_or_our_error_and_nothing_else(data, zipped):
    content = bytearray(_saved({"params": OrderedDict(a=torch.arange(5.0), b=torch.ones(2, 2).half())}, zipped))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_torch(bytes(content))
    except ModelError as error:
        assert "\n" not in str(error)
