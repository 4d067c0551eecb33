"""The settings of a server, checked once, before anything is started."""

import re
from dataclasses import dataclass

from realesr.errors import UsageError
from realesr.options import NetworkOptions

DEFAULT_PORT = 8765
LOCAL_HOSTS = frozenset(("127.0.0.1", "::1", "localhost"))
"""Addresses that no other machine can reach."""

_HOST_NAME = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9._-]+", re.ASCII | re.IGNORECASE)
"""What a header Host has before its port."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where a server listens, whom it lets in, and how much it takes on.

    Raises:
        UsageError: a value is out of range.
    """

    host: str = "127.0.0.1"
    """Address or name that the server binds."""
    port: int = DEFAULT_PORT
    """0 lets the system choose a free one."""
    token: str | None = None
    """What a request must have; None lets everybody in who can reach the server."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that requests may have in `Host`, besides those of this machine and `host`; behind a reverse proxy, its."""
    queue_length: int = 64
    """Most jobs that wait, those included whose upload is still being read."""
    most_upload_bytes: int = 200_000_000
    most_pixels: int = 100_000_000
    """Largest width x height of an upload: a small file may hold a large image."""
    most_result_pixels: int = 1_000_000_000
    """Largest width x height of a result, for it lies on the disk."""
    keep_seconds: float = 3600.0
    """How long the files of a job that is over are kept."""
    grace_seconds: float = 30.0
    """How long running jobs may go on once the server has been asked to end."""
    devices: tuple[str, ...] = ("auto",)
    """Devices that networks run on; each has a worker, which does one job at a time."""
    engine: str = "auto"
    """As in `NetworkOptions`; likewise `precision` and `threads`."""
    precision: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise UsageError(f"got port {self.port}, expected 0 to 65535", option="port")
        for name in ("queue_length", "most_upload_bytes", "most_pixels", "most_result_pixels"):
            if getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}, expected at least 1", option=name)
        for name in ("keep_seconds", "grace_seconds"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"got {name} {getattr(self, name):g}, expected 0 s or more", option=name)
        for name in self.allowed_hosts:
            if not _HOST_NAME.fullmatch(name):
                raise UsageError(
                    f"got the host {name!r}, expected a name alone, such as photos.example.org", option="allowed_hosts"
                )
        if not self.devices:
            raise UsageError("got no device, expected one or more", option="device")
        for device in self.devices:
            self.network_options(device)

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can reach the server."""
        return self.host in LOCAL_HOSTS

    def network_options(self, device: str, model: str | None = None) -> NetworkOptions:
        """Return the options of a network on one of the devices.

        Raises:
            UsageError: the device, the precision or the number of threads makes no sense.
        """
        return NetworkOptions(
            model=model, engine=self.engine, device=device, precision=self.precision, threads=self.threads
        )
