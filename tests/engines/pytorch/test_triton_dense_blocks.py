"""Dense blocks in Triton against torch's modules: on a CPU by Triton's interpreter, on an NVIDIA GPU as it is meant.

The interpreter is chosen by TRITON_INTERPRET=1 before Triton is imported, for the whole process: the tests that need it
run in a process of their own, started by `test_under_the_interpreter`, so that no other test meets it.
"""

import builtins
import dataclasses
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="Triton is not installed")

from torch.nn import functional  # noqa: E402

from realesr.engines.pytorch import triton_convolution, triton_dense_blocks  # noqa: E402
from realesr.engines.pytorch.layers import LayerNetwork  # noqa: E402
from realesr.errors import EngineError, UsageError  # noqa: E402
from realesr.models.compact import Compact  # noqa: E402
from realesr.models.rrdb import RRDB  # noqa: E402
from realesr.networks import build_with  # noqa: E402
from tests.models.small_networks import small_weights  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="is run by test_under_the_interpreter")

TOLERANCE = 3e-3
"""Relative error of a network in float16; one convolution stays under 5e-4."""
SMALL = triton_convolution.Configuration(block_width=16, block_height=8, block_k=64, warps=4, stages=2)
HALVES = dataclasses.replace(SMALL, block_n=16)
WIDE = dataclasses.replace(SMALL, block_width=64)
EACH = pytest.mark.parametrize("configuration", [SMALL, HALVES], ids=["whole", "halves"])
SIZES = [(1, 1, False), (5, 17, False), (3, 9, True)]
"""Height, width, doubled: less than a block, and no multiple of one."""


@pytest.fixture(autouse=True)
def _counts_of_one_element(monkeypatch):
    """Triton 3.6's interpreter takes int() of arrays of one element, which NumPy refuses since 2.4."""
    if INTERPRETED:
        from triton.runtime import interpreter

        def counted(*bounds):
            return builtins.range(
                *(bound.handle.data.item() if hasattr(bound, "handle") else bound for bound in bounds)
            )

        monkeypatch.setattr(interpreter, "range", counted, raising=False)


def random_half(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).half()


def relative_error(got, expected):
    assert torch.isfinite(got).all()
    return float((got.float() - expected.float()).norm() / expected.float().norm())


def half_network(architecture):
    return LayerNetwork(small_weights(architecture)).half().eval()


def in_float32(architecture, lr):
    """Return what the written-out module of the same weights, rounded to float16, gives in float32."""
    return build_with(small_weights(architecture)).half().to(lr.device).float()(lr.float())


@pytest.mark.long
@pytest.mark.skipif(INTERPRETED, reason="is this process")
def test_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider", "-m", "not cuda"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@interpreted
@EACH
@pytest.mark.parametrize(("height", "width", "doubled"), SIZES)
def test_a_convolution_reads_and_writes_slices(configuration, height, width, doubled):
    conv = torch.nn.Conv2d(48, 32, 3, padding=1).half().requires_grad_(False)
    source = triton_convolution.bordered(2, height, width, 64, random_half(1))
    source.copy_(random_half(2, height, width, 64))
    scale = 2 if doubled else 1
    target = torch.full((2, height * scale, width * scale, 64), torch.nan, dtype=torch.float16)
    triton_convolution.convolve(
        source[..., :48],
        triton_convolution.pack(conv),
        target[..., 16:48],
        leaky=True,
        doubled=doubled,
        configuration=configuration,
    )
    x = functional.interpolate(source[..., :48].permute(0, 3, 1, 2).float(), scale_factor=scale)
    expected = functional.leaky_relu(conv.float()(x), 0.2)
    assert relative_error(target[..., 16:48].permute(0, 3, 1, 2), expected) < 5e-4
    assert target[..., :16].isnan().all()
    assert target[..., 48:].isnan().all()


@interpreted
@EACH
def test_residuals_are_added_in_place_and_the_border_stays_zero(configuration):
    conv = torch.nn.Conv2d(48, 32, 3, padding=1).half().requires_grad_(False)
    source = triton_convolution.bordered(2, 5, 19, 48, random_half(1))
    source.copy_(random_half(2, 5, 19, 48))
    target = triton_convolution.bordered(2, 5, 19, 32, source)
    target.copy_(random_half(2, 5, 19, 32, seed=1))
    skip = target.clone()
    triton_convolution.convolve(
        source,
        triton_convolution.pack(conv),
        target,
        residual=True,
        skip=target,
        skip_scale=0.2,
        configuration=configuration,
    )
    y = conv.float()(source.permute(0, 3, 1, 2).float()).permute(0, 2, 3, 1)
    expected = (y * 0.2 + source[..., :32].float()) * 0.2 + skip.float()
    assert relative_error(target, expected) < 5e-4
    with_border = target.as_strided((2, 7, 21, 32), target.stride(), 0)
    assert with_border.count_nonzero() == target.count_nonzero()


@interpreted
@pytest.mark.parametrize(
    ("architecture", "images", "height", "width", "tail"),
    [
        (RRDB(scale=4, features=32, growth=16, blocks=1), 1, 5, 11, True),
        (RRDB(scale=4, features=32, growth=16, blocks=2), 1, 5, 11, False),
        (RRDB(scale=2, features=16, growth=16, blocks=1), 2, 6, 10, True),
        (RRDB(scale=1, features=16, growth=16, blocks=1), 1, 4, 8, False),
        (RRDB(scale=1, features=16, growth=16, blocks=1, upsamplings=0), 1, 1, 1, True),
        (RRDB(scale=2, features=16, growth=32, blocks=1, upsamplings=1), 1, 3, 2, True),
    ],
)
def test_the_network_is_torchs(architecture, images, height, width, tail, monkeypatch):
    monkeypatch.setattr(triton_convolution, "DEFAULT", WIDE)
    lr = torch.rand((images, 3, height, width), generator=torch.Generator().manual_seed(3)).half()
    with torch.inference_mode():
        got = triton_dense_blocks.triton_network(half_network(architecture), tail=tail)(lr)
        expected = in_float32(architecture, lr)
    assert got.shape == expected.shape
    assert got.dtype == torch.float16
    assert relative_error(got, expected) < TOLERANCE


@interpreted
def test_a_second_call_finds_nothing_of_the_first(monkeypatch):
    monkeypatch.setattr(triton_convolution, "DEFAULT", SMALL)
    network = half_network(RRDB(scale=1, features=16, growth=16, blocks=1, upsamplings=0))
    module = triton_dense_blocks.triton_network(network)
    small, large = (random_half(1, 3, side, side) for side in (2, 3))
    with torch.inference_mode():
        before = module(small)
        module(large)
        assert torch.equal(module(small), before)


@pytest.mark.parametrize(
    ("architecture", "dtype", "message"),
    [
        (
            Compact(scale=2, features=16, convs=1),
            torch.float16,
            "SRVGGNetCompact x2.*, expected a network of dense blocks",
        ),
        (
            RRDB(scale=4, features=24, growth=16, blocks=1),
            torch.float16,
            "24 features and growth 16, expected multiples",
        ),
        (RRDB(scale=4, features=16, growth=8, blocks=1), torch.float16, "16 features and growth 8, expected multiples"),
        (RRDB(scale=4, features=16, growth=16, blocks=1), torch.float32, "float32, expected float16"),
    ],
)
def test_what_does_not_fit_is_refused(architecture, dtype, message):
    with pytest.raises(UsageError, match=message):
        triton_dense_blocks.triton_network(half_network(architecture).to(dtype))


def test_without_triton_the_message_says_so(monkeypatch):
    import realesr.engines.pytorch

    monkeypatch.delattr(realesr.engines.pytorch, "triton_convolution")
    monkeypatch.setitem(sys.modules, "realesr.engines.pytorch.triton_convolution", None)
    with pytest.raises(EngineError, match="needs Triton"):
        triton_dense_blocks.triton_network(half_network(RRDB(scale=4, features=16, growth=16, blocks=1)))


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize(("images", "height", "width"), [(1, 33, 130), (2, 64, 48), (1, 1, 1)])
def test_the_network_is_torchs_on_a_gpu(images, height, width):
    architecture = RRDB(scale=4, blocks=2)
    lr = torch.rand((images, 3, height, width), device="cuda").half()
    with torch.inference_mode():
        got = triton_dense_blocks.triton_network(half_network(architecture).cuda())(lr)
        expected = in_float32(architecture, lr)
    assert relative_error(got, expected) < TOLERANCE


@pytest.mark.cuda
@needs_cuda
def test_a_graph_records_it():
    module = triton_dense_blocks.triton_network(half_network(RRDB(scale=4, blocks=1)).cuda())
    lr = torch.rand((1, 3, 40, 56), device="cuda").half()
    with torch.inference_mode():
        expected = module(lr)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = module(lr)
        graph.replay()
        torch.cuda.synchronize()
    assert torch.equal(got, expected)
