"""What benchmarks/gpu_train.py and benchmarks/distil.py do, in small and on the CPU."""

import importlib
import json
import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from realesr.models.compact import Compact
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.rrdb import RRDB
from realesr.models.weights import read_weights
from realesr.networks import build
from tests.engines.small_models import small_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Beside other load, two threads that wait actively make tiny networks twenty times as slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`module("distil")`: a file of the benchmarks, as a script there would import it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def noise(path: Path, width_px: int = 120, height_px: int = 110) -> Path:
    """A photo that is rich in detail."""
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (height_px // 2, width_px // 2, 3), np.uint8)
    Image.fromarray(pixels).resize((width_px, height_px), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def crops(tmp_path: Path) -> list[Path]:
    return [noise(tmp_path / "crops" / f"{photo}-{turn}.jpg") for photo in ("a", "bb", "ccc") for turn in range(2)]


@pytest.mark.long
def test_training_in_small_gives_a_row_for_each_stage_and_goes_on_to_the_same_bits(
    module: Any, tmp_path: Path, crops: list[Path]
) -> None:
    rows = module("gpu_train").training("cpu", tmp_path / "runs", crops, small=True)
    first, second, resumed = (json.loads(json.dumps(row)) for row in rows)
    assert [first["what"], second["what"], resumed["what"]] == [
        "x4plus stage1",
        "x4plus stage2",
        "x4plus stage2 resumed",
    ]
    assert first["iterations_s"] > 0
    assert (first["counted"], second["counted"], resumed["iterations"]) == (2, 2, 2)
    assert second["VGG_percent"] > 0
    assert (resumed["largest_difference"], resumed["same_bits"]) == (0, True)


def test_losses_that_are_not_finite_are_infinitely_far(module: Any) -> None:
    gpu_train = module("gpu_train")
    one = {"l1": 0.5, "perceptual": 2.0, "gan": 0.7}
    assert gpu_train._difference(one, {**one, "perceptual": 2.2}) == pytest.approx(0.1)
    assert gpu_train._difference(one, {**one, "gan": math.nan}) == math.inf
    assert gpu_train._difference({**one, "l1": math.inf}, one) == math.inf


def test_a_distillation_in_small_goes_through_all_stages_in_its_time(
    module: Any, tmp_path: Path, crops: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    distil = module("distil")
    student = small_model(Compact(scale=4, features=8, convs=2))
    networks = {"large": small_model(RRDB(scale=4, features=8, blocks=1, growth=4)), "compact": student}
    monkeypatch.setattr(distil, "loaded", networks.__getitem__)
    ticks = count()  # a tenth of a second each time somebody looks: no load makes this test fail
    monkeypatch.setattr(distil, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 10))
    out = tmp_path / "out"
    rows = list(distil.distillation("cpu", out, crops, seconds=8, small=True, student="compact", teacher="large"))
    names = [row.get("who", row["what"]) for row in rows]
    arms = ["arm 1", "after arm 1", "arm 2", "after arm 2", "arm 3", "after arm 3"]
    assert names == ["teacher", "bicubic", "student before", "teacher's answers", "after stage A", *arms, "end"]
    assert rows[-1]["seconds"] <= 8
    json.dumps(rows, allow_nan=False)
    made = read_weights(out / "student.safetensors")
    assert made.architecture == student.architecture
    assert any((made.state[key] != value).any() for key, value in student.state.items())
    assert sorted(path.name for path in out.iterdir()) == [
        "patches.png",
        "student-1.safetensors",
        "student-2.safetensors",
        "student-3.safetensors",
        "student-l1.safetensors",
        "student.safetensors",
    ]
    with Image.open(out / "patches.png") as picture:
        assert picture.size == (7 * 64, 4 * 64)


def test_a_stage_ends_before_a_step_that_would_not_fit(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    distil, now = module("distil"), [0.0]
    monkeypatch.setattr(distil, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = distil.Clock(100)
    now[0] = 10.0
    clock.begin_stages(reserve=10)
    assert (clock.at(0.25), clock.at(1.0)) == (30, 90)
    shares = []
    for share in clock.until(clock.at(0.25)):
        shares.append(share)
        now[0] += 6
    assert (shares, now[0]) == ([0, 0.3, 0.6], 28)


def test_a_batch_turns_inputs_and_answers_alike(module: Any) -> None:
    patches = module("distil_patches")
    lr = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    large = lr.repeat_interleave(4, 2).repeat_interleave(4, 3)
    dice = np.random.default_rng(0)
    found = [patches.Patches(lr=lr, answers=large).batch(3, dice) for _ in range(20)]
    for small, answers in found:
        assert torch.equal(small.repeat_interleave(4, 2).repeat_interleave(4, 3), answers)
    originals = {bytes(each.numpy().tobytes()) for each in lr}
    turned = [bytes((small[0] * 255).round().byte().numpy().tobytes()) not in originals for small, _ in found]
    assert any(turned)


def test_held_out_crops_are_of_other_photos(module: Any, crops: list[Path]) -> None:
    patches = module("distil_patches")
    learning, held = patches.split(crops, 96)
    assert (len(learning), len(held)) == (4, 2)
    assert learning[0].shape == (3, 110, 120)
    assert not any(torch.equal(one, other) for one in learning for other in held)
    with pytest.raises(SystemExit, match="two or more"):
        patches.split(crops[:2], 96)


def test_small_crops_are_mirrored(module: Any, tmp_path: Path) -> None:
    (crop,) = module("distil_patches").read_crops([noise(tmp_path / "crops" / "a-0.png", 20, 30)], 32)
    assert crop.shape == (3, 32, 32)
    assert torch.equal(crop[:, :, 20:32], crop[:, :, 8:20].flip(2))


def test_the_laplacian_of_a_checkerboard_and_of_nothing(module: Any) -> None:
    steps = module("distil_steps")
    board = torch.arange(8)[:, None].add(torch.arange(8)).remainder(2).float().expand(1, 3, 8, 8)
    assert torch.equal(steps.laplacian(board).abs(), torch.full((1, 3, 6, 6), 4.0))
    assert steps.laplacian_loss(board, torch.full((1, 3, 8, 8), 0.5)) == 4
    assert steps.laplacian_loss(board, board + 0.25) == 0


def test_the_fft_loss_asks_for_texture_wherever_it_lies(module: Any) -> None:
    fft_loss = module("distil_steps").fft_loss
    dice = torch.Generator().manual_seed(0)
    texture, other, flat = (0.5 + level * torch.randn(2, 3, 128, 128, generator=dice) for level in (0.1, 0.1, 0.0))
    to_itself, to_other, to_flat = (float(fft_loss(each, texture)) for each in (texture, other, flat))
    assert to_itself == 0
    assert to_other < 0.7 * to_flat  # where L1 is larger: one noise is no nearer to another than grey is
    assert (other - texture).abs().mean() > 1.3 * (flat - texture).abs().mean()
    assert to_flat == pytest.approx(0.1 * math.sqrt(math.pi) / 2, rel=0.03)  # Rayleigh's mean: the scale is noise's own
    still = flat.clone().requires_grad_()
    fft_loss(still, texture).backward()  # type: ignore[no-untyped-call]
    assert still.grad is not None
    assert still.grad.isfinite().all()


def test_the_discriminator_sees_details_alone(module: Any) -> None:
    steps = module("distil_steps")
    texture = 0.1 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert steps.details(ramp)[inside].abs().max() < 1e-5
    assert torch.allclose(steps.details(texture + ramp)[inside], steps.details(texture)[inside], atol=1e-5)
    assert steps.details(texture).std() == pytest.approx(steps.GAIN * 0.1, rel=0.1)


def test_the_adversarial_gradient_is_a_share_of_the_others(module: Any) -> None:
    wanted, gradient = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 16, 16)
    found = module("distil_steps")._as_long_as(wanted, gradient)
    assert found.norm() == pytest.approx(float(wanted.norm()), rel=1e-5)
    assert torch.allclose(found / found.norm(), gradient / gradient.norm())
    assert module("distil_steps")._as_long_as(wanted, torch.zeros(2)).tolist() == [0, 0]


def test_each_network_learns_from_its_own_loss_alone(module: Any) -> None:
    steps = module("distil_steps")
    student = steps.Learner(build(Compact(scale=4, features=8, convs=2)), ema_decay=0.5)
    discriminator = steps.Learner(build(UNetDiscriminator(features=4)), ema_decay=0.0)
    lr, answers = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)

    def changed(student_rate: float, discriminator_rate: float) -> tuple[bool, bool, set[str]]:
        before = [[each.detach().clone() for each in one.parameters] for one in (student, discriminator)]
        rates = steps.Rates(student=student_rate, discriminator=discriminator_rate)
        weights = steps.Weights(l1=1.0, laplacian=0.5, fft=1.0, gan=0.1)
        losses = steps.learn(student, discriminator, lr, answers, weights, rates, gan_px=16, corner_px=(8, 16))
        after = [one.parameters for one in (student, discriminator)]
        differs = [any((b != a).any() for b, a in zip(*each, strict=True)) for each in zip(before, after, strict=True)]
        return differs[0], differs[1], set(losses)

    d_losses = {"d_real", "d_fake", "d_real_logit", "d_fake_logit"}
    assert changed(0.0, 1e-3) == (False, True, d_losses)
    assert changed(1e-3, 0.0) == (True, False, {"l1", "laplacian", "fft", "gan"} | d_losses)


def test_scores_are_shares_of_the_teacher(module: Any) -> None:
    patches, scores = module("distil_patches"), module("distil_scores")
    answers = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    held = patches.HeldOut(patches=patches.Patches(lr=answers[:, :, ::4, ::4], answers=answers), truth=answers[:2] // 2)
    own = scores.scores(answers / 255, held)
    assert (own["psnr_to_teacher_degraded"], own["psnr_to_teacher_native"], own["laplacian"]) == (99, 99, 1)
    grey = scores.scores(torch.full((3, 3, 32, 32), 0.5), held)
    assert (grey["laplacian"], grey["laplacian_degraded"]) == (0, 0)
    assert max(grey["psnr_to_teacher_degraded"], grey["psnr_to_truth"]) < 20


def test_a_picture_has_fewer_rows_where_it_would_be_too_large(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches = module("distil_patches")
    lr, answers = (torch.randint(0, 256, (4, 3, px, px), dtype=torch.uint8) for px in (16, 64))
    held = patches.HeldOut(patches=patches.Patches(lr=lr, answers=answers), truth=answers[:2])
    monkeypatch.setattr(patches, "LARGEST_PNG", 40_000)
    patches.picture(tmp_path / "patches.png", held, answers / 255)
    assert (tmp_path / "patches.png").stat().st_size <= 40_000
    with Image.open(tmp_path / "patches.png") as picture:
        assert picture.size == (128, 128)


def test_crops_take_turns_between_photos_and_stay_below_the_limit(module: Any, tmp_path: Path) -> None:
    made = module("distil_crops")
    photos = [noise(tmp_path / "photos" / f"photo {number}.png", 260, 200) for number in range(2)]
    Image.new("RGB", (260, 200), (9, 99, 200)).save(tmp_path / "photos" / "flat.png")
    photos.append(tmp_path / "photos" / "flat.png")
    written = made.make_crops(photos, tmp_path / "all", megabytes=10, crop_px=64)
    assert [path.name for path in written[:3]] == ["000_photo_0-0.jpg", "001_photo_1-0.jpg", "002_flat-0.jpg"]
    of_photos = [made.photo_of(path) for path in written]
    assert of_photos.count("001_photo_1") > of_photos.count("002_flat") > 0  # random places alone, and none with detail
    with Image.open(written[0]) as crop:
        assert crop.size == (64, 64)
    size = written[0].stat().st_size
    few = made.make_crops(photos, tmp_path / "few", megabytes=2.5 * size / 1e6, crop_px=64)
    assert 0 < sum(path.stat().st_size for path in few) <= 2.5 * size
