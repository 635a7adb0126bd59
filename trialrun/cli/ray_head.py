"""The options that say which Ray a command uses."""

from collections.abc import Callable
from typing import Any

import click

_KEY = "trialrun.allow_open_head"

address_option = click.option(
    "--address",
    metavar="ADDR",
    help="The address of a running Ray cluster, or 'auto' to find it [default: RAY_ADDRESS, else"
    " Ray is started inside this process].",
)


def _keep(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_KEY] = value


def ray_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a command that trains."""
    open_head_option = click.option(
        "--allow-open-head",
        is_flag=True,
        expose_value=False,
        callback=_keep,
        help="Also use a Ray cluster whose head asks for no token, so that whoever reaches it can"
        " run programs there.",
    )
    return address_option(open_head_option(command))


def may_be_open() -> bool:
    """Whether the current command was given `--allow-open-head`."""
    return bool(click.get_current_context().meta.get(_KEY))
