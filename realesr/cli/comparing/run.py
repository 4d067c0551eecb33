"""One run of `realesr compare`: one region of each photo through several networks, as a page and as a picture."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr.cli import stopping
from realesr.cli.estimate import duration_in_words
from realesr.cli.files import find_images
from realesr.cli.names import quoted_names, shown
from realesr.errors import EngineError, InputError, MissingDependency, ModelError, OutputError
from realesr.options import FileOptions, NetworkOptions

from .files import Target, output_folder, targets_for, without_sheets, write

if TYPE_CHECKING:
    from realesr.cli.console import Messages
    from realesr.comparing import Comparison


class CompareRun:
    """One run of the command."""

    def __init__(
        self,
        network: NetworkOptions,
        file: FileOptions,
        region: tuple[int, int, int, int] | None,
        messages: "Messages",
        *,
        json: bool,
    ) -> None:
        self._network, self._file, self._region = network, file, region
        self._messages, self._json = messages, json
        self._missing: list[str] = []
        self._failed = 0

    def run(self, photos: Sequence[Path], output: str | None, model: str | None, *, recursive: bool) -> int:
        """Compare the networks on every photo; return the exit code."""
        folder = output_folder(output, many=len(photos) > 1 or any(os.path.isdir(photo) for photo in photos))
        found, failures = find_images(photos, recursive=recursive, output=folder)
        compared = without_sheets(found)
        for image in found:
            if image not in compared:
                self._messages.say(f"{shown(image.path)} is the picture of an earlier comparison: skipped")
        targets = targets_for(compared, Path(output) if output and folder is None else None, folder)
        self._check_regions(targets)
        names = self._networks(model) if targets else []
        for path, error in failures:
            self._fail(path, error)
        for target in targets:
            self._compare_one(target, names)
        return 1 if self._failed else 0

    def _check_regions(self, targets: Sequence[Target]) -> None:
        """Raise UsageError where the region is not within one of the photos, before anything is written."""
        from realesr.comparing import region_of

        for target in targets if self._region is not None else ():
            try:
                region_of(target.source, self._region, self._file)
            except InputError:
                continue  # reported once it is its turn

    def _networks(self, model: str | None) -> list[str]:
        """Return the networks that are compared: those that were named, once fetched, or all on disk."""
        from realesr.comparing import checked_names, networks_on_disk
        from realesr.models.zoo import ZOO, fetch

        if model is None:
            names = networks_on_disk()
            self._missing = [name for name in ZOO if name not in names]
            if self._missing:
                self._messages.say(f"not on disk, left out: {', '.join(self._missing)} (-m fetches what it names)")
            return checked_names(names)
        names = checked_names([name.strip() for name in model.split(",")])
        for name in names:
            if name in ZOO and self._network.engine != "nearest":
                with self._messages.download(name) as on_download:
                    fetch(ZOO[name], on_progress=on_download)
        return names

    def _compare_one(self, target: Target, names: Sequence[str]) -> None:
        """Compare the networks on one photo, and write the page and the picture."""
        there = [path for path in (target.page, target.sheet) if os.path.lexists(path)]
        if there and not self._file.overwrite:
            self._skip(target, f"{there[0]} exists: skipped (--overwrite writes it anew)")
            return
        try:
            comparison = self._compared(target.source, names)
            write(comparison, target, self._missing)
        except (InputError, OutputError, ModelError, EngineError, MissingDependency) as error:
            self._fail(target.source, error)
        else:
            self._report(comparison, target)

    def _compared(self, source: Path, names: Sequence[str]) -> "Comparison":
        from realesr.comparing import compare as compare_networks

        options = self._network
        with self._messages.status() as show:

            def on_start(name: str) -> None:
                stopping.check()
                show(f"{shown(source.name)}: {name} ({names.index(name) + 1} of {len(names)})")

            return compare_networks(
                source,
                names,
                self._region,
                file=self._file,
                engine=options.engine,
                device=options.device,
                precision=options.precision,
                threads=options.threads,
                on_start=on_start,
            )

    def _report(self, comparison: "Comparison", target: Target) -> None:
        """Report a comparison: notices and a line per network, and its files or JSON on stdout."""
        from realesr.cli import console

        from .page import failures, measured_in_words

        name = shown(target.source.name)
        for notice in comparison.notices:
            self._messages.say(f"{name}: {quoted_names(notice, (target.source,))}")
        for failure in failures(comparison):
            self._messages.error(EngineError(failure), (target.source,))
        self._failed += bool(comparison.failed)
        for network in comparison.networks:
            score = "" if network.niqe is None else f", NIQE {network.niqe:.2f}"
            whole = duration_in_words(network.photo_seconds)
            seconds = measured_in_words(network.seconds)
            self._messages.say(f"{name}  {network.name}  {seconds}, whole photo {whole}{score}")
        if self._json:
            console.json_line(record(comparison, target, self._missing))
        else:
            console.result(target.page)
            console.result(target.sheet)

    def _skip(self, target: Target, reason: str) -> None:
        """Report a photo whose page or picture is there."""
        from realesr.cli import console

        reason = quoted_names(reason, (target.source, target.page))
        self._messages.say(reason)
        if self._json:
            console.json_line({"source": target.source, "page": target.page, "skipped": reason})

    def _fail(self, source: Path, error: Exception) -> None:
        """Report a photo that could not be compared."""
        from realesr.cli import console

        self._failed += 1
        self._messages.error(error, [source])
        if self._json:
            console.json_line({"source": source, "error": console.one_line(error, [source])})


def record(comparison: "Comparison", target: Target, missing: Sequence[str]) -> dict[str, Any]:
    """Return a comparison as one JSON object, without its pixels."""
    fields = ("name", "scale", "licence", "engine", "seconds", "photo_seconds", "niqe")
    return {
        "source": target.source,
        "page": target.page,
        "sheet": target.sheet,
        "photo_px": comparison.photo_px,
        "region": comparison.region,
        "scale": comparison.scale,
        "lanczos_niqe": comparison.lanczos_niqe,
        "networks": [{field: getattr(network, field) for field in fields} for network in comparison.networks],
        "failed": [{"name": name, "error": reason} for name, reason in comparison.failed],
        "not_on_disk": list(missing),
        "notices": comparison.notices,
    }
