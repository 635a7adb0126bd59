"""Commands that use what a run found: two variants compared, and predictions."""

import json
import sys
from pathlib import Path

import click

from trialrun.cli.console import Console
from trialrun.messages import visible
from trialrun.store.foreign import reads_run


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("first", metavar="VARIANT")
@click.argument("second", metavar="VARIANT")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
@reads_run
def compare(run_folder: Path, first: str, second: str, as_json: bool) -> None:
    """Compare two variants of RUN seed by seed.

    Shows differences, their intervals and a paired test.
    """
    from trialrun.analysis.comparison import compare_variants
    from trialrun.report.comparison import comparison_json, print_comparison
    from trialrun.store import RunFolder

    compared = compare_variants(RunFolder.open(run_folder), first, second)
    if as_json:
        click.echo(json.dumps(comparison_json(compared), indent=2))
    else:
        print_comparison(Console(), compared)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "input_file",
    required=True,
    type=click.Path(path_type=Path),
    help="A CSV file with a header, or a Parquet file: raw values as in the training data, before"
    " any scaling.",
)
@click.option(
    "--output",
    "output_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the predictions to FILE (.csv or .parquet) with every digit [default: print CSV].",
)
@reads_run
def predict(run_folder: Path, input_file: Path, output_file: Path | None) -> None:
    """Predict the rows of a file with the best model of RUN."""
    from trialrun.export.predict import predict_file
    from trialrun.export.predictions import check_output, printed_csv, write_predictions
    from trialrun.store import RunFolder

    def warn(text: str) -> None:
        click.echo(visible(text), err=True)

    if output_file is not None:
        check_output(output_file, input_file)
    table, num_given = predict_file(RunFolder.open(run_folder), input_file, warn)
    if output_file is not None:
        write_predictions(table, output_file)
        return
    text = printed_csv(table, num_given)
    click.echo(visible(text) if sys.stdout.isatty() else text, nl=False)
