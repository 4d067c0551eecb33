"""Distils a small network from a large one in the seconds that there are: minutes on a large GPU.

Where time is no matter, use `realesr train distill`. The runs on a GPU in benchmarks/results were made with this.

    python benchmarks/distil.py --make-crops crops --from PHOTOS... --megabytes 12
    python benchmarks/distil.py --crops crops --held-out others --out out --seconds 400 --device cuda
    python benchmarks/bench_distill.py --photos judge out/*.safetensors

    teacher   17 %   its answers to small patches are made once and kept on the device as bytes
    A         31 %   the student learns L1 to these answers, which takes away noise and blur, and texture with them
    B         52 %   L1, spectra and a discriminator whose real images are the teacher's answers bring texture back:
                     several arms, each from where the one before it ended, and with its own weights of the losses

Two thirds of the patches are degraded as in training, the others are pixels of photos as they are: a teacher needs no
truth. Patches of photos that no training patch is cut from are kept apart for the scores.

OUT gets log.jsonl, patches.png, student-l1.safetensors (as stage A ends), student.safetensors (the newest of B), which
are written anew every 20 s, and student-1-0.29.safetensors and so on, as arm 1 was after 29 % of its time. `realesr
upscale -m` takes each of them.
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
    degraded,
    images_in,
    native,
    picture,
    read_crops,
    split,
    window,
)
from distil_scores import Scores, scores
from distil_steps import Learner, Rates, learn
from distil_steps import Weights as LossWeights
from torch import Tensor, nn

from realesr.models.discriminator import UNetDiscriminator
from realesr.models.weights import Weights
from realesr.models.zoo import load_model
from realesr.networks import build, build_with
from realesr.train.checkpoint import write_network

Row = dict[str, Any]

TEACHER, STUDENT = "realesrgan-x4plus", "realesr-animevideov3"
TEACHER_ENDS, A_ENDS = 0.17, 0.48
"""Shares of the time that is left once the networks are there and scored; the arms of stage B share the rest."""

SAVE_SECONDS, LOG_SECONDS = 20.0, 10.0
CHECKED_EVERY = 20
"""Iterations between looks at whether everything is finite, which wait for the GPU."""

SMALL_DISCRIMINATOR = UNetDiscriminator(features=32)
"""A quarter of the work of Real-ESRGAN's, which is half of all work where the student is small."""

ARMS = (
    LossWeights(l1=1.0, fft=2.0),
    LossWeights(l1=1.0, fft=1.0, gan=0.3),
    LossWeights(l1=1.0, fft=1.0, gan=0.6),
)
"""Spectra bring texture of the right strength back; a discriminator then sees what is wrong with its shape."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes and rates of a distillation; those of a large GPU."""

    lr_px: int = 64
    """Side of the patches."""
    read_px: int = 400
    """Side of what is degraded before a patch is cut from it, in HR px."""
    teacher_batch: int = 96
    group: int = 24
    """Samples that share sizes in the degradation: larger is faster."""
    most_patches: int = 100_000
    """64 px take 209 kB each."""
    held_out: int = 96
    """Patches for the scores; half of them degraded."""
    a_batch: int = 64
    a_rate: float = 5e-4
    a_warm_up: int = 200
    """Iterations over which the learning rate rises: the student begins with weights of its own."""
    b_batch: int = 32
    b_rate: float = 2e-4
    d_rate: float = 4e-4
    gan_px: int = 128
    """Side of the square of each answer that the discriminator sees, in HR px; a multiple of 8."""
    arms: tuple[LossWeights, ...] = ARMS
    d_warm_up: int = 100
    """Iterations in which the discriminator learns alone; then the adversarial loss rises over as many."""
    ema_decay: float = 0.999
    discriminator: UNetDiscriminator = SMALL_DISCRIMINATOR


SMALL = Sizes(
    lr_px=16,
    read_px=96,
    teacher_batch=4,
    group=4,
    held_out=4,
    a_batch=4,
    a_warm_up=2,
    b_batch=2,
    gan_px=32,
    d_warm_up=1,
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
        self,
        teacher: Weights,
        student: Weights,
        learning: Sequence[Tensor],
        held_crops: Sequence[Tensor],
        out: Path,
        clock: Clock,
        sizes: Sizes,
        on: str,
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
        self._student = self._placed(build_with(student))
        self._discriminator: Learner | None = None
        self._learning, self._held_crops = ([crop.to(self._device) for crop in each] for each in (learning, held_crops))
        self._held = self._held_out()
        self._pictured = [bicubic(as_float(self._held.patches.lr))]
        self._saved = 0.0

    def rows(self) -> Iterator[Row]:
        """Go through all stages; yields what is known as soon as it is known."""
        yield self._row("teacher", as_float(self._held.patches.answers))
        yield self._row("bicubic", self._pictured[0])
        began = self._clock.passed
        yield self._row("student before", self._enlarged(self._student))
        self._clock.begin_stages(reserve=2.5 + 3 * (self._clock.passed - began))
        row, patches = self._ask_teacher()
        yield row
        yield from self._stage_a(patches)
        for number, weights in enumerate(self._sizes.arms, start=1):
            yield from self._arm(number, weights, patches)
        yield {"what": "end", "seconds": round(self._clock.passed, 1), **self._memory()}

    def _stage_a(self, patches: Patches) -> Iterator[Row]:
        """Learn L1 to the answers; the student is its mean afterwards."""
        sizes = self._sizes
        student = Learner(self._student, ema_decay=sizes.ema_decay)
        losses: dict[str, Tensor] = {}
        for iteration, passed in self._steps("student-l1", student, self._clock.at(A_ENDS)):
            rate = sizes.a_rate * cosine(passed) * min(1.0, (iteration + 1) / sizes.a_warm_up)
            lr, answers = patches.batch(sizes.a_batch, self._dice)
            losses = learn(student, None, lr, answers, LossWeights(), Rates(student=rate), gan_px=sizes.gan_px)
            yield from self._progress("stage A", iteration + 1, losses)
        yield self._row("after stage A", self._see(student.ema.module))
        self._save(student.ema.module, "student-l1")
        self._student.load_state_dict(student.ema.module.state_dict())

    def _arm(self, number: int, weights: LossWeights, patches: Patches) -> Iterator[Row]:
        """Go on with other losses; the student is its mean afterwards, which is kept now and then."""
        sizes, arms, losses = self._sizes, len(self._sizes.arms), dict[str, Tensor]()
        name, warm_up = f"arm {number}", 0
        if weights.gan and self._discriminator is None:
            warm_up = sizes.d_warm_up
            self._discriminator = Learner(self._placed(build(sizes.discriminator)), ema_decay=0.0)
        discriminator = self._discriminator if weights.gan else None
        student = Learner(self._student, ema_decay=sizes.ema_decay)
        yield {"what": name, "weights": str(weights)}
        taken = self._clock.passed
        for iteration, passed in self._steps("student", student, self._clock.at(A_ENDS + (1 - A_ENDS) * number / arms)):
            rates, now = self._rates(iteration - warm_up, passed), ramped(weights, iteration - warm_up, sizes.d_warm_up)
            lr, answers = patches.batch(sizes.b_batch, self._dice)
            places = self._dice.integers(sizes.lr_px * SCALE - sizes.gan_px + 1, size=2)
            corner_px = int(places[0]), int(places[1])
            losses = learn(student, discriminator, lr, answers, now, rates, gan_px=sizes.gan_px, corner_px=corner_px)
            yield from self._progress(name, iteration + 1, losses)
            if self._clock.passed - taken > SAVE_SECONDS and not (iteration + 1) % CHECKED_EVERY:
                taken = self._clock.passed
                yield self._taken(f"{name} at {passed:.2f}", f"student-{number}-{passed:.2f}", student)
        yield self._taken(f"after {name}", f"student-{number}", student)
        self._save(student.ema.module, "student")
        self._student.load_state_dict(student.ema.module.state_dict())
        self._see(self._student)
        picture(self._out / "patches.png", self._held, *self._pictured, as_float(self._held.patches.answers))

    def _rates(self, iteration: int, passed: float) -> Rates:
        """Return the learning rates of stage B; the student rests before iteration 0."""
        sizes = self._sizes
        return Rates(student=sizes.b_rate * cosine(passed) if iteration >= 0 else 0.0, discriminator=sizes.d_rate)

    def _steps(self, name: str, student: Learner, end: float) -> Iterator[tuple[int, float]]:
        """Yield the number of each iteration and the share of the stage's time that has passed; save the mean."""
        self._logged = self._began = self._clock.passed
        for iteration, passed in enumerate(self._clock.until(end)):
            yield iteration, passed
            if self._clock.passed - self._saved > SAVE_SECONDS and not (iteration + 1) % CHECKED_EVERY:
                self._save(student.ema.module, name)
        self._wait()

    def _progress(self, stage: str, iterations: int, losses: dict[str, Tensor]) -> Iterator[Row]:
        """Look at the losses now and then; yields them every few seconds.

        Raises:
            SystemExit: one is not finite; what was saved before is there.
        """
        if iterations % CHECKED_EVERY:
            return
        values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        if not all(map(math.isfinite, values.values())):
            raise SystemExit(f"got {values} in {stage} after {iterations} iterations, expected finite losses")
        if self._clock.passed - self._logged > LOG_SECONDS:
            self._logged = self._clock.passed
            rate = iterations / (self._logged - self._began)
            values = {key: round(value, 5) for key, value in values.items()}
            yield {"what": stage, "iterations": iterations, "iterations_s": rate, **values}

    def _taken(self, who: str, name: str, student: Learner) -> Row:
        """Write the mean of a student as a file of this name, and score it."""
        write_network(self._out / f"{name}.safetensors", student.ema.module.state_dict(), self._architecture)
        return self._row(who, self._enlarged(student.ema.module))

    def _held_out(self) -> HeldOut:
        half = self._sizes.held_out // 2
        lr, truth = self._degraded(self._held_crops, half, iteration=2**40)
        lr = torch.cat([lr, native(self._held_crops, self._sizes.held_out - half, self._sizes.lr_px, self._dice)])
        return HeldOut(patches=Patches(lr=lr, answers=self._answers(lr)), truth=truth)

    def _ask_teacher(self) -> tuple[Row, Patches]:
        """Make patches and the teacher's answers until their time is over."""
        sizes, began, earlier = self._sizes, self._clock.passed, None
        inputs, outputs = [], []
        for number, _ in enumerate(self._clock.until(self._clock.at(TEACHER_ENDS))):
            if number * sizes.teacher_batch >= sizes.most_patches:
                break
            if number % 3 == 2:
                inputs.append(native(self._learning, sizes.teacher_batch, sizes.lr_px, self._dice))
            else:
                inputs.append(self._degraded(self._learning, sizes.teacher_batch, iteration=number)[0])
            outputs.append(self._answers(inputs[-1]))
            if earlier is not None:  # the next batch is degraded while the teacher answers this one, and no further
                earlier.synchronize()
            earlier = self._mark()
        if not inputs:
            raise SystemExit("the time is too short for one batch of the teacher: expected more --seconds")
        self._wait()
        count, seconds = len(inputs) * sizes.teacher_batch, self._clock.passed - began
        row = {"what": "teacher's answers", "patches": count, "seconds": round(seconds, 2)}
        return {**row, "patches_s": count / seconds}, Patches(lr=torch.cat(inputs), answers=torch.cat(outputs))

    def _degraded(self, crops: Sequence[Tensor], count: int, *, iteration: int) -> tuple[Tensor, Tensor]:
        hr = torch.stack([window(crops, self._sizes.read_px, self._dice) for _ in range(count)])
        return degraded(hr, self._sizes.lr_px * SCALE, group=self._sizes.group, seed=iteration)

    @torch.no_grad()
    def _answers(self, lr: Tensor) -> Tensor:
        """Return the teacher's answers in bytes to inputs in bytes."""
        precision = next(self._teacher.parameters()).dtype
        parts = (as_float(part).to(precision) for part in lr.split(self._sizes.teacher_batch))  # type: ignore[no-untyped-call]
        return torch.cat(
            [as_bytes(self._teacher(part.contiguous(memory_format=torch.channels_last))) for part in parts]
        )

    def _row(self, who: str, enlarged: Tensor) -> Row:
        found: Scores = scores(enlarged, self._held)
        return {"what": "held-out patches", "who": who, **found}

    def _see(self, module: nn.Module) -> Tensor:
        """Return what a network makes of the held-out patches, and show it in the picture."""
        self._pictured.append(self._enlarged(module))
        return self._pictured[-1]

    @torch.no_grad()
    def _enlarged(self, module: nn.Module) -> Tensor:
        """Run a network on the held-out patches in float32, and round the results to 8 bits."""
        parts = self._held.patches.lr.split(self._sizes.b_batch)  # type: ignore[no-untyped-call]
        return as_float(as_bytes(torch.cat([module(as_float(part)) for part in parts])))

    def _placed(self, module: nn.Module) -> nn.Module:
        placed: nn.Module = module.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return placed

    def _save(self, module: nn.Module, name: str) -> None:
        write_network(self._out / f"{name}.safetensors", module.state_dict(), self._architecture)
        self._saved = self._clock.passed

    def _mark(self) -> torch.cuda.Event | None:
        """Return an event that happens once the GPU has done all that was asked of it."""
        if not self._is_cuda:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event

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
    held_out: Sequence[Path] = (),
    small: bool = False,
    student: str = STUDENT,
    teacher: str = TEACHER,
) -> Iterator[Row]:
    """Distil, and yield rows that JSON takes as soon as they are known; `folder` gets the networks and a picture.

    Args:
        device: "cuda" or "cpu".
        folder: is made.
        crops: what is learned from.
        seconds: of all.
        held_out: crops of other photos, for the scores; where there are none, some of `crops` are.
        small: tiny patches, to see that it works.
        student: name or file of the small network.
        teacher: name or file of the large one.
    """
    clock = Clock(seconds)
    sizes = SMALL if small else Sizes()
    folder.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = device.startswith("cuda")
    least_px = max(sizes.read_px, 2 * sizes.lr_px)
    networks = [loaded(name) for name in (teacher, student)]
    read = (read_crops(crops, least_px), read_crops(held_out, least_px)) if held_out else split(crops, least_px)
    yield from Distillation(networks[0], networks[1], *read, folder, clock, sizes, device).rows()


def loaded(name: str) -> Weights:
    """Return the weights of a network of the zoo or of a file."""
    weights = load_model(name)
    if not isinstance(weights, Weights):
        raise SystemExit(f"got {name}, expected a network with weights that torch can run")
    return weights


def cosine(passed: float) -> float:
    """Return the factor of the learning rate once this share of a stage has passed: from 1 to 0.01."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(passed, 1.0))) / 2


def ramped(weights: LossWeights, iteration: int, iterations: int) -> LossWeights:
    """Return the weights of an iteration: that of the adversarial loss rises over the first ones."""
    return replace(weights, gan=weights.gan * min(1.0, max(0, iteration + 1) / iterations))


def main() -> None:
    """Make crops, or distil; rows are printed and appended to OUT/log.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make-crops", type=Path, metavar="FOLDER", help="cut crops into this folder, and end")
    parser.add_argument("--from", dest="photos", type=Path, nargs="+", default=[], help="photos, or folders of them")
    parser.add_argument("--megabytes", type=float, default=12)
    parser.add_argument("--crops", type=Path, metavar="FOLDER", help="what is learned from")
    parser.add_argument("--held-out", type=Path, metavar="FOLDER", help="crops of other photos, for the scores")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    parser.add_argument("--seconds", type=float, help="of all, once torch is loaded; 400, or 40 with --small")
    parser.add_argument("--until", type=float, help="instead: when all has to end, in seconds since the epoch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--student", default=STUDENT, help="the small network to start from")
    parser.add_argument("--teacher", default=TEACHER, help="the large network")
    parser.add_argument("--small", action="store_true", help="tiny patches, to see that it works")
    arguments = parser.parse_args()
    if arguments.make_crops:
        written = make_crops(images_in(arguments.photos), arguments.make_crops, megabytes=arguments.megabytes)
        print(f"{len(written)} crops, {sum(path.stat().st_size for path in written) / 1e6:.1f} MB")
    elif arguments.crops and arguments.out:
        distil(arguments)
    else:
        parser.error("expected --crops and --out, or --make-crops")


def distil(arguments: argparse.Namespace) -> None:
    """Distil, and print and log each row at once."""
    seconds = arguments.seconds or (40 if arguments.small else 400)
    if arguments.until:
        seconds = arguments.until - time.time()
    chosen = {key: getattr(arguments, key) for key in ("small", "student", "teacher")}
    chosen["held_out"] = images_in([arguments.held_out]) if arguments.held_out else ()
    if arguments.held_out and not chosen["held_out"]:
        raise SystemExit(f"got --held-out {arguments.held_out}, expected a folder with .jpg or .png files")
    for row in distillation(arguments.device, arguments.out, images_in([arguments.crops]), seconds=seconds, **chosen):
        line = json.dumps(row)
        print(line, flush=True)
        with (arguments.out / "log.jsonl").open("a") as log:
            log.write(line + "\n")


if __name__ == "__main__":
    main()
