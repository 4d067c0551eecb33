"""Distils a small network from a large one in the seconds that there are: minutes on a large GPU.

    python benchmarks/distil.py --make-crops crops --from PHOTOS... --megabytes 12
    python benchmarks/distil.py --crops crops --out out --seconds 200 --device cuda

    teacher   30 %   its answers to small patches are made once and kept on the device as bytes
    A         40 %   the student learns L1 to these answers, which takes away noise and blur, and texture with them
    B         30 %   L1 and a discriminator whose real images are the teacher's answers, which brings texture back

Half of the patches are degraded as in training, half are pixels of photos as they are: a teacher needs no truth.
Patches of photos that no training patch is cut from are kept apart for the scores. OUT gets student.safetensors (which
`realesr upscale -m` takes; anew every 20 s), student-l1.safetensors (as stage A ends), log.jsonl and patches.png.
"""

import argparse
import json
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distil_crops import make_crops
from distil_patches import (
    SCALE,
    HeldOut,
    Patches,
    as_bytes,
    as_float,
    bicubic,
    images_in,
    laplacian_levels,
    picture,
    split,
    window,
)
from torch import Tensor, nn
from torch.nn import functional

from realesr.models.discriminator import UNetDiscriminator
from realesr.models.weights import Weights
from realesr.models.zoo import load_model
from realesr.networks import build, build_with
from realesr.train.checkpoint import write_network
from realesr.train.data.loader import Batch
from realesr.train.degrade.recipe import CORRECTED
from realesr.train.distributed import World
from realesr.train.metrics import psnr
from realesr.train.recipe import DISCRIMINATOR
from realesr.train.stage_options import StageOptions
from realesr.train.steps import MayStep, gan_step, psnr_step
from realesr.train.synthesis import make_pairs
from realesr.train.train_state import TrainState, make_state

Row = dict[str, Any]

TEACHER, STUDENT = "realesrgan-x4plus", "realesr-animevideov3"
TEACHER_ENDS, A_ENDS = 0.3, 0.7
"""Shares of the time that is left once the networks are there and scored."""

SAVE_SECONDS, LOG_SECONDS = 20.0, 5.0
CHECKED_EVERY = 20
"""Iterations between looks at whether everything is finite, which wait for the GPU."""

BORDER_PX = 4
"""Border left out of PSNR at each side, as in validations."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes and rates of a distillation; those of a large GPU."""

    lr_px: int = 64
    """Side of the patches."""
    read_px: int = 400
    """Side of what is degraded before a patch is cut from it, in HR px."""
    teacher_batch: int = 48
    group: int = 12
    """Samples that share sizes in the degradation: larger is faster."""
    most_patches: int = 100_000
    """64 px take 209 kB each."""
    held_out: int = 48
    """Patches for the scores; half of them degraded."""
    a_batch: int = 64
    a_rate: float = 3e-4
    b_batch: int = 32
    b_rate: float = 1e-4
    d_rate: float = 2e-4
    gan: float = 0.05
    """Weight of the adversarial loss beside 1 of L1."""
    b_warm_up: int = 50
    """Iterations in which the discriminator learns alone; then the adversarial loss rises over twice as many."""
    ema_decay: float = 0.995
    discriminator: UNetDiscriminator = DISCRIMINATOR


SMALL = Sizes(
    lr_px=16,
    read_px=96,
    teacher_batch=4,
    group=4,
    held_out=4,
    a_batch=4,
    b_batch=2,
    b_warm_up=1,
    ema_decay=0.9,
    discriminator=UNetDiscriminator(features=4),
)
"""Sizes for a rehearsal on a CPU."""


class Clock:
    """The time that there is."""

    def __init__(self, seconds: float) -> None:
        self._began, self._seconds = time.monotonic(), seconds
        self._stages = (0.0, seconds)

    @property
    def passed(self) -> float:
        """Return the seconds that have passed."""
        return time.monotonic() - self._began

    def until(self, end: float) -> Iterator[float]:
        """Yield the share of the time from now to `end` that has passed, while another step still fits.

        Args:
            end: in seconds since the beginning. A step is taken to last as long as the longest of the last ones.
        """
        began, recent = self.passed, deque[float]([0.0], maxlen=2 * CHECKED_EVERY)
        while (now := self.passed) + max(recent) < end:
            yield (now - began) / (end - began)
            recent.append(self.passed - now)

    def begin_stages(self, *, reserve: float) -> None:
        """Share the time from now on among the stages, but for what is needed at the end."""
        self._stages = (self.passed, self._seconds - reserve)

    def at(self, share: float) -> float:
        """Return when this share of the stages' time has passed, in seconds since the beginning."""
        begin, end = self._stages
        return begin + share * (end - begin)


class Distillation:
    """The networks, the crops and the time, and the stages in their order."""

    def __init__(
        self, teacher: Weights, student: Weights, crops: Sequence[Path], out: Path, clock: Clock, sizes: Sizes, on: str
    ) -> None:
        self._device, self._sizes, self._clock, self._out = torch.device(on), sizes, clock, out
        self._is_cuda = self._device.type == "cuda"
        self._dice = np.random.default_rng(0)
        torch.manual_seed(0)
        if student.architecture.scale != SCALE or student.architecture.has_enlarged_convolutions:
            raise SystemExit(f"got {student.architecture.title} as the student, expected a small network x{SCALE}")
        self._architecture = student.architecture
        precision = torch.float16 if self._is_cuda else torch.float32
        self._teacher = build_with(teacher).eval().requires_grad_(False)
        self._teacher.to(self._device, precision, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._student = build_with(student).to(self._device)
        self._learning, self._held_crops = split(crops, self._device, max(sizes.read_px, 2 * sizes.lr_px))
        self._saved = 0.0

    def rows(self) -> Iterator[Row]:
        """Go through all stages; yields what is known as soon as it is known."""
        held = self._held_out()
        answers = as_float(held.patches.answers)
        yield self._scores("teacher", held, answers)
        yield self._scores("bicubic", held, bicubic(as_float(held.patches.lr)))
        began = self._clock.passed
        before = self._enlarged(self._student, held)
        yield self._scores("student before", held, before)
        self._clock.begin_stages(reserve=1.5 + 3 * (self._clock.passed - began))
        row, patches = self._ask_teacher()
        yield row
        state = self._state(None, self._options_a())
        yield from self._learn("stage A", A_ENDS, state, patches)
        yield self._scores("after stage A", held, self._enlarged(state.ema.module, held))
        self._save(state.ema.module, "student-l1")
        self._student.load_state_dict(state.ema.module.state_dict())
        state = self._state(build(self._sizes.discriminator), self._options_b())
        yield from self._learn("stage B", 1.0, state, patches)
        after = self._enlarged(state.ema.module, held)
        yield self._scores("after stage B", held, after)
        self._save(state.ema.module, "student")
        picture(self._out / "patches.png", held, bicubic(as_float(held.patches.lr)), before, after, answers)
        yield {"what": "end", "seconds": round(self._clock.passed, 1), **self._memory()}

    def _held_out(self) -> HeldOut:
        half = self._sizes.held_out // 2
        lr, truth = self._degraded(self._held_crops, half, iteration=2**40)
        native = self._native(self._held_crops, self._sizes.held_out - half)
        lr = torch.cat([lr, native])
        return HeldOut(patches=Patches(lr=lr, answers=self._answers(lr)), truth=truth)

    def _ask_teacher(self) -> tuple[Row, Patches]:
        """Make patches and the teacher's answers until their time is over."""
        sizes, began = self._sizes, self._clock.passed
        inputs, outputs, seconds = [], [], {"degrade": 0.0, "teacher": 0.0}
        for number, _ in enumerate(self._clock.until(self._clock.at(TEACHER_ENDS))):
            if number * sizes.teacher_batch >= sizes.most_patches:
                break
            started = self._clock.passed
            if number % 2:
                inputs.append(self._native(self._learning, sizes.teacher_batch))
            else:
                inputs.append(self._degraded(self._learning, sizes.teacher_batch, iteration=number)[0])
            self._wait()
            made = self._clock.passed
            outputs.append(self._answers(inputs[-1]))
            self._wait()
            seconds["degrade"] += made - started
            seconds["teacher"] += self._clock.passed - made
        if not inputs:
            raise SystemExit("the time is too short for one batch of the teacher: expected more --seconds")
        count = len(inputs) * sizes.teacher_batch
        rate = count / seconds["teacher"]
        row = {
            "what": "teacher's answers",
            "patches": count,
            "seconds": round(self._clock.passed - began, 2),
            "teacher_patches_s": rate,
            "teacher_input_mp_s": rate * sizes.lr_px**2 / 1e6,
            **{f"{part}_seconds": round(value, 2) for part, value in seconds.items()},
        }
        return row, Patches(lr=torch.cat(inputs), answers=torch.cat(outputs))

    def _learn(self, stage: str, share: float, state: TrainState, patches: Patches) -> Iterator[Row]:
        """Train until a share of all time has passed; a row every few seconds."""
        options = self._options_a() if state.discriminator is None else self._options_b()
        losses: dict[str, Tensor] = {}
        began = logged = self._clock.passed
        for passed in self._clock.until(self._clock.at(share)):
            lr, answers = patches.batch(options.batch, self._dice)
            now = replace(options, learning_rate=options.learning_rate * cosine(passed))
            step = psnr_step if state.discriminator is None else gan_step
            losses = step(state, lr, answers, answers, now, may_step=_looks_at(state.iteration))
            if state.iteration % CHECKED_EVERY:
                continue
            if self._clock.passed - logged > LOG_SECONDS:
                logged = self._clock.passed
                yield self._progress(stage, state.iteration, logged - began, losses)
            if self._clock.passed - self._saved > SAVE_SECONDS:  # of what has just been found finite
                self._save(state.ema.module, "student")
        self._wait()
        yield self._progress(stage, state.iteration, self._clock.passed - began, losses)

    def _progress(self, stage: str, iteration: int, seconds: float, losses: dict[str, Tensor]) -> Row:
        values = {name: round(float(value), 5) for name, value in losses.items()}
        return {"what": stage, "iterations": iteration, "iterations_s": iteration / max(seconds, 1e-9), **values}

    def _scores(self, who: str, held: HeldOut, enlarged: Tensor) -> Row:
        """Return mean scores over the held-out patches; only the degraded ones have a ground truth."""
        answers, known = as_float(held.patches.answers), len(held.truth)
        to_teacher = psnr(enlarged, answers, border_px=BORDER_PX).clamp(max=99)
        to_truth = psnr(enlarged[:known], as_float(held.truth), border_px=BORDER_PX)
        return {
            "what": "held-out patches",
            "who": who,
            "patches": len(enlarged),
            "psnr_to_teacher_degraded": float(to_teacher[:known].mean()),
            "psnr_to_teacher_native": float(to_teacher[known:].mean()),
            "psnr_to_truth": float(to_truth.mean()),
            "laplacian_levels": laplacian_levels(enlarged),
        }

    @torch.no_grad()
    def _enlarged(self, module: nn.Module, held: HeldOut) -> Tensor:
        """Run a network on the held-out patches in float32, and round the results to 8 bits."""
        sr = torch.cat([module(as_float(part)) for part in self._parts(held.patches.lr)])
        return as_float(as_bytes(sr))

    @torch.no_grad()
    def _answers(self, lr: Tensor) -> Tensor:
        """Return the teacher's answers in bytes to inputs in bytes."""
        precision = next(self._teacher.parameters()).dtype
        return torch.cat(
            [
                as_bytes(self._teacher(as_float(part).to(precision).contiguous(memory_format=torch.channels_last)))
                for part in self._parts(lr)
            ]
        )

    def _parts(self, lr: Tensor) -> list[Tensor]:
        """Cut inputs into as many as the teacher takes at once."""
        size = self._sizes.teacher_batch
        return [lr[start : start + size] for start in range(0, len(lr), size)]

    def _degraded(self, crops: Sequence[Tensor], count: int, *, iteration: int) -> tuple[Tensor, Tensor]:
        """Return patches degraded as in training, and their ground truth, in bytes."""
        sizes = self._sizes
        hr = torch.stack([window(crops, sizes.read_px, self._dice) for _ in range(count)])
        pairs = make_pairs(
            Batch(hr=hr, pair_hr=None, pair_lr=None, paths=[], padded=0),
            replace(CORRECTED, group=sizes.group),
            seed=0,
            iteration=iteration,
            world=World(rank=0, size=1, device=self._device),
            scale=SCALE,
            crop_px=sizes.lr_px * SCALE,
            sharpened=False,
            sharp_truth=False,
            pool=None,
        )
        return as_bytes(pairs.lr), as_bytes(pairs.hr)

    def _native(self, crops: Sequence[Tensor], count: int) -> Tensor:
        """Return undegraded patches of photos in bytes; half of them are downscaled by two."""
        px = self._sizes.lr_px
        full = [window(crops, px, self._dice) for _ in range(count - count // 2)]
        large = [window(crops, 2 * px, self._dice) for _ in range(count // 2)]
        if not large:
            return torch.stack(full)
        return torch.cat([torch.stack(full), as_bytes(functional.avg_pool2d(as_float(torch.stack(large)), 2))])

    def _options_a(self) -> StageOptions:
        sizes = self._sizes
        return StageOptions(
            iterations=1,  # time ends the stage
            batch=sizes.a_batch,
            crop_px=sizes.lr_px * SCALE,
            learning_rate=sizes.a_rate,
            ema_decay=sizes.ema_decay,
            l1_sharp=False,
            bf16=self._is_cuda,
        )

    def _options_b(self) -> StageOptions:
        sizes = self._sizes
        return replace(
            self._options_a(),
            batch=sizes.b_batch,
            learning_rate=sizes.b_rate,
            d_learning_rate=sizes.d_rate,
            gan=sizes.gan,
            d_warm_up=sizes.b_warm_up,
            gan_ramp=2 * sizes.b_warm_up,
        )

    def _state(self, discriminator: nn.Module | None, options: StageOptions) -> TrainState:
        return make_state(self._student, discriminator, options, self._device)

    def _save(self, module: nn.Module, name: str) -> None:
        write_network(self._out / f"{name}.safetensors", module.state_dict(), self._architecture)
        self._saved = self._clock.passed

    def _wait(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize()

    def _memory(self) -> Row:
        return {"peak_gpu_gb": torch.cuda.max_memory_allocated() / 1e9} if self._is_cuda else {}


def distillation(
    device: str,
    folder: Path,
    crops: Sequence[Path],
    *,
    seconds: float,
    small: bool = False,
    student: str = STUDENT,
    teacher: str = TEACHER,
    gan: float | None = None,
) -> Iterator[Row]:
    """Distil, and yield rows that JSON takes as soon as they are known; `folder` gets the networks and a picture."""
    clock = Clock(seconds)
    sizes = SMALL if small else Sizes()
    if gan is not None:
        sizes = replace(sizes, gan=gan)
    folder.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = device.startswith("cuda")
    networks = [loaded(name) for name in (teacher, student)]
    yield from Distillation(networks[0], networks[1], crops, folder, clock, sizes, device).rows()


def loaded(name: str) -> Weights:
    """Return the weights of a network of the zoo or of a file."""
    weights = load_model(name)
    if not isinstance(weights, Weights):
        raise SystemExit(f"got {name}, expected a network with weights that torch can run")
    return weights


def cosine(passed: float) -> float:
    """Return the factor of the learning rate once this share of a stage has passed: from 1 to 0.01."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(passed, 1.0))) / 2


def _looks_at(iteration: int) -> MayStep:
    """Return a check whether a step may be taken; it waits for the GPU, so only some iterations run it."""
    return bool if (iteration + 1) % CHECKED_EVERY == 0 else lambda _: True


def main() -> None:
    """Make crops, or distil; rows are printed and appended to OUT/log.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make-crops", type=Path, metavar="FOLDER", help="cut crops into this folder, and end")
    parser.add_argument("--from", dest="photos", type=Path, nargs="+", default=[], help="photos, or folders of them")
    parser.add_argument("--megabytes", type=float, default=12)
    parser.add_argument("--crops", type=Path, metavar="FOLDER", help="what is learned from")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    parser.add_argument("--seconds", type=float, help="of all, once torch is loaded; 200, or 40 with --small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--student", default=STUDENT, help="the small network to start from")
    parser.add_argument("--gan", type=float, help="weight of the adversarial loss beside 1 of L1")
    parser.add_argument("--small", action="store_true", help="tiny patches, to see that it works")
    arguments = parser.parse_args()
    if arguments.make_crops:
        written = make_crops(images_in(arguments.photos), arguments.make_crops, megabytes=arguments.megabytes)
        print(f"{len(written)} crops, {sum(path.stat().st_size for path in written) / 1e6:.1f} MB")
        return
    if not arguments.crops or not arguments.out:
        parser.error("expected --crops and --out, or --make-crops")
    seconds = arguments.seconds or (40 if arguments.small else 200)
    chosen = {key: getattr(arguments, key) for key in ("small", "student", "gan")}
    for row in distillation(arguments.device, arguments.out, images_in([arguments.crops]), seconds=seconds, **chosen):
        line = json.dumps(row)
        print(line, flush=True)
        with (arguments.out / "log.jsonl").open("a") as log:
            log.write(line + "\n")


if __name__ == "__main__":
    main()
