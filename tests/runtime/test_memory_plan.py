"""An image that does not fit in the free memory is refused before its first tile, in one line that says what fits."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realesr.api import Upscaler
from realesr.engine import NearestEngine
from realesr.errors import OutOfMemory
from realesr.images.info import ImageInfo
from realesr.models.compact import Compact
from realesr.options import ImageOptions
from realesr.runtime import memory_plan
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.memory_plan import check_memory, encoder_bytes, needed_bytes
from realesr.runtime.pipeline import EnlargeJob
from realesr.runtime.tiling import Tiling
from realesr.target_size import TargetSize
from tests.engines.small_models import small_model

NETWORK = Compact(scale=4, features=8, convs=1)
MB = 1_000_000


def job_of(width_px: int, height_px: int, *, tile_px: int = 128, has_alpha: bool = False) -> EnlargeJob:
    info = ImageInfo(width_px=width_px, height_px=height_px, bits=8, is_grey=False, has_alpha=has_alpha, format="png")
    pool = EnginePool(NearestEngine(4), tiling=Tiling(tile_px=tile_px, overlap_px=0, blend=False))
    return EnlargeJob(info=info, pool=pool, options=ImageOptions())


def needed_mb(job: EnlargeJob) -> float:
    return needed_bytes(job, job.pool.tiling, NETWORK) / MB


def test_bands_grow_with_the_width_and_the_tile_and_not_with_the_height() -> None:
    assert needed_mb(job_of(4000, 1280)) == needed_mb(job_of(4000, 128_000)) > 1.5 * needed_mb(job_of(2000, 1000))
    assert needed_mb(job_of(4000, 1000, tile_px=256)) > 1.5 * needed_mb(job_of(4000, 1000))


def test_shrinking_takes_rows_and_no_network() -> None:
    job = job_of(16_000, 6400)
    small, large = (
        needed_mb(replace(job, options=ImageOptions(size=TargetSize(long_side_px=side_px), shrink=True)))
        for side_px in (100, 12_000)
    )
    assert 60 < small < large < 0.5 * needed_mb(job)


def test_alpha_goes_through_the_network_as_well() -> None:
    assert needed_mb(job_of(4000, 1000, has_alpha=True)) > 1.5 * needed_mb(job_of(4000, 1000))


@pytest.mark.parametrize(("fmt", "grows"), [("png", 1), ("tiff", 1), ("jpeg", 1), ("webp", 8), ("avif", 8)])
def test_encoders_of_webp_and_avif_hold_the_whole_image(fmt: str, grows: int) -> None:
    sizes = [encoder_bytes(job_of(1000, height).info, fmt) for height in (1000, 64_000)]  # type: ignore[arg-type]
    assert sizes[1] / sizes[0] >= grows
    assert (sizes[1] == sizes[0]) == (grows == 1)


def test_the_error_says_what_is_needed_what_is_free_and_which_tiles_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(2000, 1000, tile_px=512)
    monkeypatch.setattr(memory_plan, "free_bytes", lambda: 400 * MB)
    with pytest.raises(OutOfMemory, match=r"a\.png: 2,000 x 1,000 px take about .* and 400 MB are free") as caught:
        check_memory(job, NETWORK, 0.0, "a.png")
    tile_px = int(str(caught.value).partition("tiles of ")[2].partition(" px")[0])
    assert 32 <= tile_px < 512
    assert needed_mb(job_of(2000, 1000, tile_px=tile_px)) <= 400 < needed_mb(job_of(2000, 1000, tile_px=tile_px + 32))
    assert caught.value.option == "tile_px"


def test_where_no_tile_fits_none_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "free_bytes", lambda: 60 * MB)
    with pytest.raises(OutOfMemory, match="no tiles fit") as caught:
        check_memory(job_of(20_000, 1000), NETWORK, 0.0, "a.png")
    assert caught.value.option is None


def test_an_array_is_refused_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "free_bytes", lambda: 50 * MB)
    with Upscaler(engine="nearest") as upscaler, pytest.raises(OutOfMemory, match="are free"):
        upscaler.upscale(np.zeros((1000, 1000, 3), np.uint8))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of addresses are Linux'")
@pytest.mark.parametrize("limit_mb", [100, 200, 280, 300, 350, 400, 500, 700])
def test_under_a_limit_of_addresses_the_command_is_right_or_says_so_in_one_line(limit_mb: int, tmp_path: Path) -> None:
    from PIL import Image
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (400, 400, 3), np.uint8)).save(tmp_path / "a.png")
    save_file(dict(small_model(NETWORK).state), tmp_path / "n.safetensors")
    program = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({limit_mb << 20},) * 2)\n"
        "from realesr.cli import main\n"
        "sys.argv = ['realesr', 'upscale', 'a.png', '-o', 'o.png', '-m', 'n.safetensors', '--quiet']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    if limit_mb >= 500:
        assert (done.returncode, done.stderr) == (0, "")
    assert done.returncode in (0, 1)
    assert (tmp_path / "o.png").exists() == (done.returncode == 0)
    if done.returncode:
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and "unexpected" not in line and "MB" in line
