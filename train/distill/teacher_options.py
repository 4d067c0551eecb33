"""Holds the options of distillation: the teacher, and the patches that it answers."""

from collections.abc import Iterator
from dataclasses import dataclass

from realesr.errors import UsageError
from realesr.machine.tables import range_problems

NONE = "none"


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """The options of a recipe's table [teacher], which distillation alone looks at."""

    model: str = NONE
    """The large network: a name of the zoo, a file, or a run's folder; of the scale of the network that learns."""
    cache: str = NONE
    """Folder of the teacher's answers, which several runs may share; "none" is `teacher` in the run's folder."""
    patches: int = 20_000
    """Patches that it answers, rounded up to a multiple of 64. At 64 px and scale 4 each takes 209 kB."""
    patch_px: int = 64
    """Side of the patches, in LR px."""
    native: float = 0.33
    """Share of the patches that are pixels of the photos as they are: a teacher needs no truth. An assumption."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise UsageError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        yield from range_problems(self, {"patches": (1, 10_000_000), "patch_px": (8, 1024), "native": (0, 1)})


NO_TEACHER = TeacherOptions()
"""Of recipes for training on images."""
