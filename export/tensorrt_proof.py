"""Proves that a TensorRT engine computes what its network does: on this GPU, against ONNX Runtime on the CPU."""

import math
from pathlib import Path
from typing import Any

from realesr.engine import Engine
from realesr.engines.nvidia.cuda_memory import gpu_facts
from realesr.engines.nvidia.tensorrt_engine import check_gpu, open_tensorrt
from realesr.engines.nvidia.tensorrt_sidecar import ShapeProfile, read_sidecar
from realesr.engines.onnx_runtime.engine import open_onnxruntime
from realesr.errors import EngineError, MissingDependency
from realesr.export import proof

GPU_TOLERANCE = proof.Tolerance(max_levels=math.inf, min_psnr_db=45)
"""Loose, for sums are in half precision, in the order that the builder found fastest."""


def prove(engine: Path, reference: Path, device: int = 0) -> dict[str, Any] | str:
    """Run an engine and its network over pictures of several sizes and batches.

    Args:
        engine: with its sidecar beside it.
        reference: an ONNX file of the same network; a float32 one proves most.
        device: number of the GPU.

    Returns:
        The figures, for JSON; or, in words, why there is no GPU here that could run the engine.

    Raises:
        EngineError: a picture comes out too far from the reference, or the engine fails while running.
    """
    sidecar = read_sidecar(engine)
    try:
        check_gpu(sidecar, gpu_facts(device), engine)
    except (EngineError, MissingDependency) as error:
        return f"not proven: {error}"
    with (
        open_tensorrt(engine, device=f"cuda:{device}") as fast,
        open_onnxruntime(reference, device="cpu") as exact,
    ):
        return compared(fast, exact, sidecar.profile, engine.name)


def compared(fast: Engine, exact: Engine, profile: ShapeProfile, name: str) -> dict[str, Any]:
    """Compare two engines of one network, on what `profile` takes; raises as `prove`."""
    shape = (1, *profile.min_hw) if profile.is_fixed else None
    cases = proof.make_cases(exact.run, multiple_of=fast.spec.size.multiple_of, shape_nhw=shape)
    fitting = [case for case in cases if fast.spec.size.fits(*case.batch.shape[2:])]
    of = f"{name} on {fast.spec.device} against ONNX Runtime on the CPU"
    found = proof.prove(of, fitting, fast.run, GPU_TOLERANCE)
    if not fitting or not found.holds:
        worst = f"{found.worst.psnr_db:.1f} dB" if fitting else "no picture that it takes"
        raise EngineError(
            f"{name} is not the network that it was built from: got {worst} to float32, expected "
            f"{GPU_TOLERANCE.min_psnr_db:g} dB or more; build it in fp32, or take another engine",
            option="engine",
        )
    return found.record
