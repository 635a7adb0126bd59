"""The option that refuses to put trials of different versions into one run."""

import click

_KEY = "trialrun.strict_versions"


def _keep(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_KEY] = value


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
    return bool(click.get_current_context().meta.get(_KEY))
