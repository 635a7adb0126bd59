"""Predictions as text for a terminal, or as a CSV or Parquet file that is whole or absent."""

from pathlib import Path
from typing import TYPE_CHECKING

from trialrun.errors import InputError
from trialrun.store.files import replace_atomically

if TYPE_CHECKING:
    import pandas as pd

_ENDINGS = (".csv", ".parquet")


def check_output(output_file: Path, input_file: Path) -> None:
    """Raises InputError if predictions cannot be written to a file; called before they are made."""
    if output_file.suffix not in _ENDINGS:
        raise InputError(f"--output {output_file}: must end in {' or '.join(_ENDINGS)}")
    if output_file.is_dir() or not output_file.parent.is_dir():
        what = "is a folder" if output_file.is_dir() else "its folder does not exist"
        raise InputError(f"--output {output_file}: {what}")
    if output_file.exists() and input_file.exists() and output_file.samefile(input_file):
        raise InputError(f"--output {output_file}: is the input file; give another file")


def printed_csv(table: "pd.DataFrame", num_given: int) -> str:
    """A table as CSV for a terminal: the input unchanged, predictions with six digits.

    Args:
        table: See `trialrun.export.predict.Predicted`.
        num_given: How many columns belong to the input.
    """
    import pandas as pd

    predictions = table.iloc[:, num_given:]
    shown = {
        str(name): column.map("{:.6g}".format)
        for name, column in predictions.items()
        if pd.api.types.is_float_dtype(column)
    }
    text: str = table.assign(**shown).to_csv(index=False)
    return text


def write_predictions(table: "pd.DataFrame", output_file: Path) -> None:
    """Writes a table, with every digit of its numbers.

    Args:
        table: See `trialrun.export.predict.Predicted`.
        output_file: A path that `check_output` accepts; an existing file is replaced.
    """
    with replace_atomically(output_file) as temporary:
        if output_file.suffix == ".parquet":
            table.rename(columns=str).to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)
