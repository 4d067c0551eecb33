"""The facts about an engine that are known before it is opened, and which engines take weights alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from realesr.engine import Precision
from realesr.errors import UsageError
from realesr.models.weights import Weights


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """One engine on this machine."""

    name: str
    """As `realesr.engines.open_engine` takes it. Likewise `devices` and `precisions`."""
    version: str | None
    """Version of the package that it needs; None where that is not installed."""
    devices: tuple[str, ...]
    """Devices that it has here, the default first; none where the engine does not work here."""
    precisions: tuple[Precision, ...]
    install: str
    """The line that installs the package; empty where none is needed."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Name of an option -> its values, the default first."""
    problem: str = ""
    """Reason why the engine does not work here, in one line; empty where it works."""
    notes: tuple[str, ...] = ()
    """Packages that are installed for it but do not work here, one line each."""

    @property
    def works(self) -> bool:
        """Return whether `open_engine` can open it."""
        return not self.problem


def weights_alone(model: Weights | Path, engine: str) -> Weights:
    """Return the model, for engines that take weights alone; raise UsageError where it is a file."""
    if isinstance(model, Path):
        raise UsageError(
            f"engine {engine} got {model.name}, expected weights (.safetensors, .pth, ncnn): take engine onnxruntime",
            option="engine",
        )
    return model
