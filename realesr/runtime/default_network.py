"""Chooses the network where none was named: the best one for photos, or else the one that comes with the package."""

from dataclasses import replace

from realesr.errors import ModelError
from realesr.models.zoo import BUNDLED_MODEL, DEFAULT_MODEL, ZOO, fetch
from realesr.options import NetworkOptions
from realesr.progress import AmountCallback


def with_network(options: NetworkOptions, on_download: AmountCallback | None = None) -> tuple[NetworkOptions, str]:
    """Return the options with a network's name, and one line for the user where it stands in for the default network.

    The default is `DEFAULT_MODEL` where its weights are on disk or can be fetched, which happens here. Where they are
    neither, the network in the package takes its place. Options that name a network come back as they are.

    Args:
        options: the options; with a denoising strength nothing takes the place of the default, for another network
            would blend otherwise.
        on_download: called with the bytes of a download.
    """
    if options.model is not None:
        return options, ""
    default = replace(options, model=DEFAULT_MODEL)
    if options.engine == "nearest" or options.denoise is not None:
        return default, ""
    try:
        fetch(ZOO[DEFAULT_MODEL], on_progress=on_download, is_optional=True)
    except (ModelError, OSError) as error:
        return replace(options, model=BUNDLED_MODEL), _substitution(error)
    return default, ""


def _substitution(error: Exception) -> str:
    reason = getattr(error, "reason", "") or str(error)
    return (
        f"{DEFAULT_MODEL} is not on disk and cannot be fetched ({reason}): {BUNDLED_MODEL}, which comes with realesr, "
        "is used instead"
    )
