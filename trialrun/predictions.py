"""Predictions as a terminal shows them, or as a file: CSV or Parquet, whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

from trialrun.errors import InputError
from trialrun.files import replace_atomically

if TYPE_CHECKING:
    import pandas as pd

_ENDINGS = (".csv", ".parquet")


def check_output(output_file: Path, input_file: Path) -> None:
    """Raises InputError where predictions cannot be written, before they are made."""
    if output_file.suffix not in _ENDINGS:
        raise InputError(f"--output {output_file}: must end in {' or '.join(_ENDINGS)}")
    if output_file.is_dir() or not output_file.parent.is_dir():
        what = "is a folder" if output_file.is_dir() else "is in no folder that exists"
        raise InputError(f"--output {output_file}: {what}")
    if output_file.exists() and input_file.exists() and output_file.samefile(input_file):
        raise InputError(f"--output {output_file}: is the input file; give another")


def printed_csv(table: "pd.DataFrame", num_given: int) -> str:
    """A table as CSV for a terminal: the input as it is, predictions with six digits.

    Args:
        table: As of `trialrun.predict.Predicted`.
        num_given: Columns of the input.
    """
    import pandas as pd

    predictions = table.iloc[:, num_given:]
    shown = {
        str(name): of.map("{:.6g}".format)
        for name, of in predictions.items()
        if pd.api.types.is_float_dtype(of)
    }
    text: str = table.assign(**shown).to_csv(index=False)
    return text


def write_predictions(table: "pd.DataFrame", output_file: Path) -> None:
    """Writes a table, with every digit of its numbers.

    Args:
        table: As of `trialrun.predict.Predicted`.
        output_file: Checked by `check_output`; a file that is there is replaced.
    """
    with replace_atomically(output_file) as temporary:
        if output_file.suffix == ".parquet":
            table.rename(columns=str).to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)
