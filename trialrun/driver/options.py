"""What commands that start a run take beside its job, in words of the command line."""

import click

address_option = click.option(
    "--address",
    metavar="ADDR",
    help="The address of a running Ray cluster, or 'auto' to find it [default: RAY_ADDRESS, else"
    " Ray is started inside this process].",
)

_STRICT = "trialrun.strict_versions"


def _keep(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_STRICT] = value


strict_option = click.option(
    "--strict-versions",
    is_flag=True,
    expose_value=False,
    callback=_keep,
    help="Refuse a run whose trials were trained with other versions of TensorFlow, Keras, NumPy or"
    " trialrun, instead of warning.",
)


def strict_versions() -> bool:
    """Whether the current command was given `--strict-versions`."""
    return bool(click.get_current_context().meta.get(_STRICT))
