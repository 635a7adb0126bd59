"""The command that shows what a run would do: `trialrun plan`."""

from contextlib import suppress
from pathlib import Path

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from trialrun.cli.console import Console
from trialrun.cli.run_options import set_option, shard_option


def _read_memory(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """The bytes of an amount such as `40GB`."""
    if text is None:
        return None
    with suppress(ValidationError):
        num_bytes = int(TypeAdapter(ByteSize).validate_python(text))
        if num_bytes and text.strip(" 0123456789."):
            return num_bytes
    raise click.BadParameter(
        f"must be an amount with a unit, such as 40GB or 80GiB, got {text!r}", context, option
    )


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@set_option
@shard_option
@click.option(
    "--trace",
    is_flag=True,
    help="Also build and compile each program, and show its engine and why it was chosen, the time"
    " to compile and the memory per trial; with --gpus, also how long a step takes on this"
    " machine.",
)
@click.option(
    "--gpus",
    type=click.IntRange(min=1),
    metavar="N",
    help="Plan for a cluster with N GPUs instead of this machine: the packs, how many each GPU"
    " trains one after another, and their memory.",
)
@click.option(
    "--gpu-memory",
    callback=_read_memory,
    metavar="SIZE",
    help="The memory of each of these GPUs, such as 40GB or 80GiB, to show whether the packs fit.",
)
@click.option(
    "--measured",
    "measured_run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Estimate how long the training takes from RUN: an earlier run of the same job,"
    " with fewer seeds, on the same kind of device.",
)
def plan(
    job: Path,
    overrides: tuple[str, ...],
    shard: str | None,
    trace: bool,
    gpus: int | None,
    gpu_memory: int | None,
    measured_run: Path | None,
) -> None:
    """Show the variants, trials and packs of JOB.

    Nothing is trained.
    """
    from trialrun.driver.preview.devices import Gpus
    from trialrun.driver.preview.plan import print_plan
    from trialrun.job import load_job
    from trialrun.store import RunFolder

    if gpu_memory is not None and gpus is None:
        raise click.UsageError("--gpu-memory is that of the GPUs of --gpus; give both")
    print_plan(
        Console(),
        load_job(job, overrides, shard=shard),
        trace=trace,
        gpus=None if gpus is None else Gpus(gpus, gpu_memory),
        measured=None if measured_run is None else RunFolder.open(measured_run),
    )
