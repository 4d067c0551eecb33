"""`realesr upscale`: its options, and the request that they make."""

import typer

from realesr.errors import UsageError

from . import options as opt
from . import size_options as sizes

EXAMPLES = """\
realesr upscale photo.jpg                        # photo_x4.jpg beside it
realesr upscale photo.jpg -s 2.5 -o large.png    # another size and format
realesr upscale photo.jpg --long-side 3840       # photo_3840px.jpg
realesr upscale holiday --short-side 2160 -o uhd # large ones are skipped
realesr upscale holiday --width 1920 --height 1080 -o hd --shrink  # or shrunk
realesr upscale photo.jpg --megapixels 24
realesr upscale photo.jpg --print 30x20cm@300 -o print.tif
realesr upscale old.jpg -s 1                     # cleaned, not enlarged
realesr upscale a.jpg b.png holiday -o enlarged  # many into a folder
realesr upscale holiday --recursive -o enlarged --format webp --quality 90
realesr upscale holiday -o enlarged --name '{stem}_{model}_{scale}'
realesr upscale holiday --in-place --backup originals  # names stay
realesr upscale scan.png --in-place --no-backup  # the original is lost
realesr upscale holiday -o enlarged --overwrite --strip
realesr upscale photo.jpg --no-provenance        # no word of it in the XMP
realesr upscale holiday -o enlarged --retry-failed  # what failed before, too
realesr upscale scans -o enlarged --shard 2/8    # computer 2 of 8
realesr upscale card.jpg --allow-damaged         # what it has lost is made up
realesr upscale poster.tif --no-resume           # keep no finished rows
realesr upscale scan.tif --page 2 -o page3.tif   # pages count from 0
realesr upscale logo.png --alpha lanczos
realesr upscale poster.tif --max-pixels 500000000
realesr upscale photo.jpg -m realesr-general-x4v3  # fast, comes with realesr
realesr upscale drawing.png -m realesrgan-x4plus-anime
realesr upscale noisy.jpg -m realesr-general-x4v3 --denoise 0.3
realesr upscale photo.jpg -m my.pth --denoise 0.5 --denoise-with soft.pth
realesr upscale photo.jpg --strength 0.6         # less of its detail
realesr upscale photo.jpg --preview              # its most detailed part
realesr upscale photo.jpg --region 400,300,256,256
realesr upscale photo.jpg -m my-network.safetensors --tta
realesr upscale photo.jpg --exact                # tiles that leave no trace
realesr upscale photo.jpg --tile 192 --overlap 48 --threads 2
realesr upscale photo.jpg --engine torch --device cuda --precision fp16
realesr upscale holiday --device cuda:0,1        # two GPUs share each photo
realesr upscale holiday --engine torch --option mode=graphs
cat photo.jpg | realesr upscale - --format png > large.png  # stdin, stdout
realesr upscale photo.jpg -o - | magick - large.gif  # stdout alone
find . -name '*.tif' -print0 | realesr upscale --files-from - -0 -o enlarged
realesr upscale holiday --json --quiet           # one JSON object per file
realesr upscale photo.jpg --verbose              # tiles, seconds by stage
realesr upscale photo.jpg --debug"""


ADDRESSES_TO_START = 250e6
"""Growth of the process's size until a network is open: numpy, libvips and engine winograd; measured on 2026-11-27."""


def upscale(
    paths: opt.Paths = None,
    files_from: opt.FilesFrom = None,
    null_separated: opt.NullSeparated = False,
    output: opt.Destination = None,
    name: opt.Name = None,
    in_place: opt.InPlace = False,
    backup: opt.Backup = None,
    no_backup: opt.NoBackup = False,
    recursive: opt.Recursive = False,
    shard: opt.ShardName = None,
    format_name: opt.FormatName = None,
    quality: opt.Quality = None,
    overwrite: opt.Overwrite = False,
    retry_failed: opt.RetryFailed = False,
    strip: opt.Strip = False,
    no_provenance: opt.NoProvenance = False,
    scale: opt.Scale = None,
    long_side: sizes.LongSide = None,
    short_side: sizes.ShortSide = None,
    width: sizes.Width = None,
    height: sizes.Height = None,
    megapixels: sizes.Megapixels = None,
    print_size: sizes.PrintSize = None,
    shrink: sizes.Shrink = False,
    alpha: opt.AlphaBy = "network",
    strength: opt.Strength = 1.0,
    preview: opt.Preview = False,
    region: opt.RegionText = None,
    page: opt.Page = None,
    max_pixels: opt.MaxPixels = None,
    allow_damaged: opt.AllowDamaged = False,
    no_resume: opt.NoResume = False,
    model: opt.Model = None,
    denoise: opt.Denoise = None,
    denoise_with: opt.DenoiseWith = None,
    tta: opt.Tta = False,
    exact: opt.Exact = False,
    engine: opt.EngineName = "auto",
    device: opt.Device = "auto",
    precision: opt.PrecisionName = "auto",
    threads: opt.Threads = None,
    options: opt.EngineOptions = None,
    tile: opt.Tile = None,
    overlap: opt.Overlap = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    debug: opt.Debug = False,
) -> None:
    """Enlarge images.

    The path of each file that was written goes to stdout, everything else to stderr. Hidden images in folders are left
    out, and outputs of an earlier run (photo_x4.jpg beside photo.jpg).

    The same command goes on with a folder where it was stopped, and several at once share its images. What became of
    each is in realesr-manifest.jsonl, in the output folder or, without one, the folder that was named.

    Exit codes: 0 all done or skipped, 1 some failed or stdout took no results, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from realesr.options import FileOptions, ImageOptions, NetworkOptions

    from .console import Messages, errors_reported
    from .files import output_at
    from .upscaling.in_place import in_place_from
    from .upscaling.inputs import check_named, inputs_from
    from .upscaling.naming import template_from
    from .upscaling.pipes import pipes_for, run_piped
    from .upscaling.run import UpscaleRequest, UpscaleRun
    from .upscaling.shard import shard_from

    check_named(paths or [], files_from)
    messages = Messages(quiet=quiet, verbose=verbose, debug=debug)
    with errors_reported(messages), messages.log_shown():
        if quiet and verbose:
            raise UsageError("got -q and -v, which contradict each other: leave one of them out")
        _check_addresses()
        inputs = inputs_from(paths or [], files_from, is_null_separated=null_separated)
        pipes = pipes_for(inputs, output, json=json, excluded=(("--name", name), ("--shard", shard)))
        size = sizes.target_size(
            long_side=long_side,
            short_side=short_side,
            width=width,
            height=height,
            megapixels=megapixels,
            print_size=print_size,
        )
        place = output_at(None if pipes.stdout else output, many=inputs.are_many, wanted=format_name)
        request = UpscaleRequest(
            paths=inputs.paths,
            recursive=recursive,
            shard=shard_from(shard),
            output=place,
            network=NetworkOptions(
                model=model,
                denoise=denoise,
                denoise_with=denoise_with,
                engine=engine,
                device=device,
                precision=precision,
                threads=threads,
                options=opt.engine_options(options or []),
                tta=tta,
                tile_px=tile,
                overlap_px=overlap,
                exact=exact,
            ),
            image=ImageOptions(scale=scale, size=size, shrink=shrink, alpha=alpha, strength=strength),
            file=FileOptions(
                format=format_name,
                quality=quality,
                overwrite=overwrite,
                strip=strip,
                provenance=not no_provenance,
                page=page,
                region=opt.region_from(region),
                max_pixels=max_pixels,
                allow_damaged=allow_damaged,
                resume=not no_resume,
            ),
            retry_failed=retry_failed,
            json=json,
            is_preview=preview or region is not None,
            name=None if name is None else template_from(name, place),
            in_place=in_place_from(
                in_place,
                backup,
                no_backup=no_backup,
                excluded=(
                    ("-o", output),
                    ("--name", name),
                    ("--format", format_name),
                    ("-", inputs.is_stdin),
                    ("--preview", preview),
                    ("--region", region),
                ),
            ),
        )
        code = run_piped(request, pipes, messages) if any(pipes) else UpscaleRun(request, messages).run()
    raise typer.Exit(code)


def _check_addresses() -> None:
    """Raise OutOfMemory where a limit of this process leaves too few addresses for what every upscale loads."""
    from realesr.machine.memory import check_addresses

    check_addresses(ADDRESSES_TO_START, "realesr upscale")
