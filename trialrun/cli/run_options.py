"""Options of several commands: fields of the job, its shard, which Ray is used, and versions."""

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
    help="Connect even if the head of the Ray cluster asks for no token. Whoever can reach such a"
    " head can run programs on the cluster.",
)
strict_option = click.option(
    "--strict-versions",
    is_flag=True,
    help="Refuse a run whose trials were trained with other versions of TensorFlow, Keras, NumPy or"
    " trialrun, instead of warning.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a field of the job, e.g. --set training.epochs=50. May be given several times.",
)
shard_option = click.option(
    "--shard",
    metavar="I/N",
    help="Take only this shard of the trials, e.g. 2/8 for the second of eight; `trialrun merge`"
    " makes one run of all shards.",
)
