"""Options that `driver.run` takes by the same names: which Ray is used, and which versions."""

import click

address_option = click.option(
    "--address",
    metavar="ADDR",
    help="The address of a running Ray cluster, or 'auto' to find it [default: RAY_ADDRESS, else"
    " Ray is started inside this process].",
)
open_head_option = click.option(
    "--allow-open-head",
    is_flag=True,
    help="Also use a Ray cluster whose head asks for no token, so that whoever reaches it can run"
    " programs there.",
)
strict_option = click.option(
    "--strict-versions",
    is_flag=True,
    help="Refuse a run whose trials were trained with other versions of TensorFlow, Keras, NumPy or"
    " trialrun, instead of warning.",
)
