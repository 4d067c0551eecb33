import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from realesr.errors import ModelError, UsageError
from realesr.models.compact import Compact
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.rrdb import RRDB
from realesr.models.weights import DiscriminatorWeights, interpolate, read_any_weights, read_weights
from tests.models.small_networks import SMALL, small_state, small_weights

RRDB_X4 = RRDB(scale=4, features=8, blocks=2, growth=4)


def _tensors(state):
    return {key: torch.from_numpy(array) for key, array in state.items()}


def _assert_is(weights, architecture, state):
    assert weights.architecture == architecture
    assert list(weights.state) == list(architecture.shapes)
    for key, array in weights.state.items():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, state[key])


# ---- files


@pytest.mark.parametrize("container", ["params_ema", "params-ema", "params", "state_dict", "model", None])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_torch_files_of_both_formats_are_read_from_every_container(tmp_path, container, zipped, suffix):
    state = small_state(RRDB_X4)
    tree = {container: _tensors(state)} if container else _tensors(state)
    path = tmp_path / f"my net{suffix}"
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    weights = read_weights(path)
    _assert_is(weights, RRDB_X4, state)
    assert weights.name == "my net"
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("architecture", [item for item in SMALL if getattr(item, "activation", "prelu") == "prelu"])
def test_every_architecture_is_read_back_from_safetensors(tmp_path, architecture):
    state = small_state(architecture)
    safetensors.numpy.save_file(state, tmp_path / "net.safetensors")
    _assert_is(read_weights(tmp_path / "net.safetensors"), architecture, state)


@pytest.mark.parametrize("activation", ["relu", "leakyrelu"])
def test_safetensors_metadata_tells_the_activation_that_keys_do_not(tmp_path, activation):
    architecture = Compact(scale=2, features=4, convs=2, activation=activation)
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(small_state(architecture), path)
    with pytest.raises(ModelError, match=r"net\.safetensors: this SRVGGNetCompact has no PReLU slopes"):
        read_weights(path)
    safetensors.numpy.save_file(small_state(architecture), path, metadata={"activation": activation})
    assert read_weights(path).architecture == architecture


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_floating_point_types_become_float32(tmp_path, dtype, suffix):
    state = {key: tensor.to(dtype) for key, tensor in _tensors(small_state(RRDB_X4)).items()}
    path = tmp_path / f"net{suffix}"
    torch.save(state, path) if suffix == ".pth" else safetensors.torch.save_file(state, path)
    _assert_is(read_weights(path), RRDB_X4, {key: tensor.float().numpy() for key, tensor in state.items()})


def test_the_running_average_is_preferred_to_the_last_step(tmp_path):
    averaged, last = small_state(RRDB_X4, 1), small_state(RRDB_X4, 2)
    torch.save({"params": _tensors(last), "params_ema": _tensors(averaged)}, tmp_path / "net.pth")
    _assert_is(read_weights(tmp_path / "net.pth"), RRDB_X4, averaged)


def test_checkpoints_of_whole_trainings_give_the_generator(tmp_path):
    state = _tensors(small_state(RRDB_X4))
    generator = {f"generator.{key}": tensor for key, tensor in state.items()}
    discriminator = {"discriminator.conv0.weight": torch.zeros(4, 3, 3, 3)}
    tree = {"iter": 5, "state_dict": generator | discriminator | {"step_counter": torch.tensor(3)}, "meta": {"a": None}}
    torch.save(tree, tmp_path / "net.ckpt")
    _assert_is(read_weights(tmp_path / "net.ckpt"), RRDB_X4, small_state(RRDB_X4))


@pytest.mark.parametrize("prefix", ["module.", "generator.", "netG.", "module.generator.", "_orig_mod.", "model."])
def test_prefixes_are_taken_off(tmp_path, prefix):
    tree = {f"{prefix}{key}": tensor for key, tensor in _tensors(small_state(RRDB_X4)).items()}
    torch.save(tree | {"n_averaged": torch.tensor(7)}, tmp_path / "net.pth")
    _assert_is(read_weights(tmp_path / "net.pth"), RRDB_X4, small_state(RRDB_X4))


# ---- dialects of ESRGAN keys, written out here by the reference sheet's table


def _trunk_name(name):
    parts = name.split(".")
    if parts[0] == "body":
        return f"RRDB_trunk.{parts[1]}.{parts[2].upper()}.{parts[3]}"
    table = {"conv_body": "trunk_conv", "conv_hr": "HRconv", "conv_up1": "upconv1", "conv_up2": "upconv2"}
    return table.get(name, name)


def _sequential_name(name, architecture):
    parts, n = name.split("."), architecture.upsamplings
    if parts[0] == "body":
        return f"model.1.sub.{parts[1]}.{parts[2].upper()}.{parts[3]}.0"
    if name.startswith("conv_up"):
        return f"model.{3 * int(name[7:])}"
    table = {"conv_first": 0, "conv_body": f"1.sub.{architecture.blocks}", "conv_hr": 3 * n + 2, "conv_last": 3 * n + 4}
    return f"model.{table[name]}"


@pytest.mark.parametrize("architecture", [RRDB_X4, RRDB(scale=2, features=8, blocks=2, growth=4, upsamplings=1)])
def test_keys_of_realsr_and_bsrgan_are_understood(tmp_path, architecture):
    state = small_state(architecture)
    renamed = {f"{_trunk_name(key.rpartition('.')[0])}.{key.rpartition('.')[2]}": state[key] for key in state}
    torch.save(_tensors(renamed), tmp_path / "net.pth")
    _assert_is(read_weights(tmp_path / "net.pth"), architecture, state)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("architecture", [item for item in SMALL if isinstance(item, RRDB)], ids=str)
def test_keys_of_the_oldest_esrgan_are_understood(tmp_path, architecture, prefix):
    state = small_state(architecture)
    renamed = {
        f"{prefix}{_sequential_name(key.rpartition('.')[0], architecture)}.{key.rpartition('.')[2]}": array
        for key, array in sorted(state.items())
    }
    assert f"{prefix}model.1.sub.0.RDB1.conv1.0.weight" in renamed
    torch.save(_tensors(renamed), tmp_path / "net.pth")
    _assert_is(read_weights(tmp_path / "net.pth"), architecture, state)


def test_an_old_network_with_other_layers_is_refused(tmp_path):
    state = {"model.0.weight": torch.zeros(8, 3, 3, 3), "model.2.weight": torch.zeros(8, 8, 3, 3)}
    torch.save(state | {"model.9.weight": torch.zeros(3, 8, 3, 3)}, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"convolutions at \[0, 2, 9\]: expected \[0, 2, 4\]"):
        read_weights(tmp_path / "net.pth")


def test_two_dialects_in_one_file_are_refused(tmp_path):
    state = _tensors(small_state(RRDB_X4))
    torch.save(state | {"HRconv.weight": state["conv_hr.weight"]}, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"two of the weights are conv_hr\.weight"):
        read_weights(tmp_path / "net.pth")


# ---- files of the released shapes, whose real ones are not at hand


@pytest.mark.parametrize(
    ("architecture", "container", "zipped"),
    [
        (RRDB(scale=2), "params_ema", True),
        *((RRDB(scale=4, blocks=6), "params_ema", zipped) for zipped in (True, False)),
        *((Compact(scale=4), "params", zipped) for zipped in (True, False)),
        *((Compact(scale=4, convs=32), "params", zipped) for zipped in (True, False)),
        *((Compact(scale=2), "params", zipped) for zipped in (True, False)),
    ],
    ids=str,
)
def test_files_with_the_shapes_of_the_releases_are_read(tmp_path, architecture, container, zipped):
    tensors = {key: torch.full(shape, 0.5) for key, shape in architecture.shapes.items()}
    torch.save({container: tensors}, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    weights = read_weights(tmp_path / "net.pth")
    assert weights.architecture == architecture
    assert sum(array.size for array in weights.state.values()) == architecture.parameters


def test_a_discriminator_is_described_but_not_given_for_enlarging(tmp_path):
    architecture = UNetDiscriminator(features=4)
    state = {key: np.ones(shape, np.float32) for key, shape in architecture.shapes.items()}
    torch.save({"params": _tensors(state)}, tmp_path / "netD.pth")
    found = read_any_weights(tmp_path / "netD.pth")
    assert isinstance(found, DiscriminatorWeights)
    assert found.architecture == architecture
    with pytest.raises(ModelError, match=r"netD\.pth holds a discriminator, which enlarges nothing"):
        read_weights(tmp_path / "netD.pth")


# ---- what is not readable


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.bmp", b"", "is no file of weights: expected one of .safetensors, .pth"),
        ("net", b"", "is no file of weights"),
        ("net.pth", b"", "net.pth: is no readable torch file"),
        ("net.pth", b"<html>404</html>", "net.pth: is no readable torch file"),
        ("net.safetensors", b"", "net.safetensors: is no readable .safetensors file"),
        ("net.safetensors", b"\xff" * 64, "net.safetensors: is no readable .safetensors file"),
        ("net.safetensors", b"\x7f\x96\x98" + bytes(99), "net.safetensors: is no readable .safetensors file"),
        ("net.bin", b"", "net.param does not exist"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_path(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_weights(tmp_path / name)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_from_a_file_do_nothing_to_a_terminal(tmp_path):
    torch.save({"\x1b[31m\nevil" * 900: torch.zeros(3)}, tmp_path / "net.pth")
    with pytest.raises(ModelError, match="no network that realesr knows") as caught:
        read_weights(tmp_path / "net.pth")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.pth does not exist: check the path"):
        read_weights(tmp_path / "gone.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(ModelError, match=r"folder\.pth cannot be read"):
        read_weights(tmp_path / "folder.pth")


def test_files_without_weights_or_with_integers_are_refused(tmp_path):
    torch.save({"params": {"epoch": 3}}, tmp_path / "net.pth")
    with pytest.raises(ModelError, match="holds no state dict"):
        read_weights(tmp_path / "net.pth")
    integers = {key: tensor.to(torch.int8) for key, tensor in _tensors(small_state(RRDB_X4)).items()}
    torch.save(integers, tmp_path / "q.pth")
    safetensors.torch.save_file(integers, tmp_path / "q.safetensors")
    for path in (tmp_path / "q.pth", tmp_path / "q.safetensors"):
        with pytest.raises(ModelError, match=r"is of (int8|I8): expected floating-point weights"):
            read_weights(path)


# ---- blending


def test_interpolation_is_linear_in_every_number():
    a, b = small_weights(SMALL[6], 1), small_weights(SMALL[6], 2)
    blend = interpolate(a, b, 0.25)
    for key, array in blend.state.items():
        assert array.dtype == np.float32
        expected = 0.25 * a.state[key].astype(np.float64) + 0.75 * b.state[key].astype(np.float64)
        np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-7)
    for share, same in ((1, a), (0, b)):
        for key, array in interpolate(a, b, share).state.items():
            np.testing.assert_array_equal(array, same.state[key])


def test_every_blend_has_a_hash_of_its_own():
    a, b = small_weights(SMALL[6], 1), small_weights(SMALL[6], 2)
    hashes = {interpolate(*pair).sha256 for pair in ((a, b, 0.5), (b, a, 0.5), (a, b, 0.25), (a, b, 1))}
    assert len(hashes | {a.sha256, b.sha256}) == 6
    assert interpolate(a, b, 0.5).sha256 == interpolate(a, b, 0.5).sha256


def test_what_cannot_blend_is_refused():
    a = small_weights(SMALL[6])
    with pytest.raises(UsageError, match=r"share of 1.5: expected 0 to 1"):
        interpolate(a, a, 1.5)
    with pytest.raises(UsageError, match=r"other \(RRDBNet x4.*\) cannot be blended: expected two networks of"):
        interpolate(a, replace(small_weights(SMALL[0]), name="other"), 0.5)


def test_reading_weights_loads_neither_torch_nor_onnx():
    program = (
        "import sys, realesr.models.zoo, realesr.models.weights, realesr.models.torch_file, realesr.models.ncnn_file; "
        "print({'torch', 'onnx', 'onnxruntime', 'requests', 'PIL', 'pyvips'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"
