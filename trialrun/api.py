"""trialrun from Python: run a job, open a run, use its tables and its best model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.errors import InputError
from trialrun.store import RunFolder
from trialrun.store.foreign import reads_own_run
from trialrun.store.runs_dir import default_runs_dir

if TYPE_CHECKING:
    import keras
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Best:
    """The best model of a run: of the winning variant, the seed that is best on validation.

    Attributes:
        trial_id: The trial that trained it.
        parameters: Searched dotted path -> value.
        seed: The seed of that trial.
        folder: `best/` of the run folder.
    """

    trial_id: str
    parameters: Mapping[str, Any]
    seed: int
    _run: RunFolder

    @reads_own_run
    def load_model(self) -> "keras.Model":
        """The trained model, compiled, so that its training can be continued.

        If no saved file holds the whole model, the job's own Python files are imported and its
        builder is called. They must lie where the job found them, unchanged.

        Raises:
            InputError: The model was not saved, or its builder is missing or has changed.
        """
        from trialrun.export.rebuild import load_best_model

        return load_best_model(self._run.best(self._run.read_job()["name"]))

    def predict(self, raw: Any) -> "npt.NDArray[np.floating[Any]]":
        """Predictions (rows, outputs) for raw inputs (rows, features), before any scaling.

        A model with several inputs takes a dict or tuple of such arrays; a model that was trained
        on a table takes a DataFrame or a dict of the table's columns.
        """
        from trialrun.export.predict import predict_raw

        return predict_raw(self._run, raw)


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder with its tables and figures; in a notebook it shows its summary.

    Attributes:
        folder: The run folder.
    """

    folder: RunFolder

    @property
    def _run(self) -> RunFolder:
        return self.folder

    @property
    @reads_own_run
    def trials(self) -> "pd.DataFrame":
        """One row per trial, as in `trials/*.parquet`."""
        return self.folder.read_trials()

    @property
    @reads_own_run
    def variants(self) -> "pd.DataFrame":
        """One row per variant with its statistics over seeds, the best first."""
        import pandas as pd

        return pd.read_csv(self.folder.variants_file)

    @property
    @reads_own_run
    def history(self) -> "pd.DataFrame":
        """One row per trial and epoch, as in `history/*.parquet`."""
        return self.folder.read_history()

    @reads_own_run
    def compare(self, first: str, second: str) -> "pd.DataFrame":
        """Two variants seed by seed: a row per metric, the selection metric first.

        Returns:
            Indexed by metric: the means `first` and `second`, then the fields of
            `trialrun.statistics.paired.Comparison` for first minus second.

        Raises:
            InputError: The run has no such variant.
        """
        import pandas as pd

        from trialrun.analysis.comparison import compare_variants

        compared = compare_variants(self.folder, first, second)
        rows = [
            {
                "metric": metric.name,
                "first": metric.first,
                "second": metric.second,
                **metric.paired._asdict(),
            }
            for metric in compared.metrics
        ]
        return pd.DataFrame(rows).set_index("metric")

    @property
    @reads_own_run
    def figures(self) -> "dict[str, Figure]":
        """The figures of the report by name, newly drawn, to be shown or changed.

        Empty until a trial has completed.
        """
        from trialrun.report import draw_run

        return draw_run(self.folder)

    @reads_own_run
    def _repr_html_(self) -> str:
        """The winner and how certain it is, for Jupyter."""
        from trialrun.report.notebook import summary_html
        from trialrun.report.overview import load_overview

        return summary_html(load_overview(self.folder))

    @property
    @reads_own_run
    def best(self) -> Best:
        """The best model.

        Raises:
            InputError: The run did not end with a winner.
        """
        summary = self.folder.read_summary()
        if summary is None or summary["selection"] is None:
            raise InputError(
                f"{self.folder.path}: has no best model, because the run did not end with a winner"
            )
        selection = summary["selection"]
        parameters = self.folder.read_parameters()[selection["variant_id"]]
        return Best(selection["trial_id"], parameters, selection["seed"], self.folder)


def run(
    job: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    runs_dir: str | Path | None = None,
    resume: str | Path | None = None,
    run_folder: str | Path | None = None,
    address: str | None = None,
    allow_open_head: bool = False,
    max_time: str | None = None,
    strict_versions: bool = False,
) -> Run:
    """Runs a job to its end.

    Args:
        job: A YAML job file.
        overrides: Dotted path -> value, e.g. `{"seeds": 50}`.
        runs_dir: Where run folders are made; absent: where `trialrun run` makes them.
        resume: A run folder of this job; only the trials that are missing from it are trained.
        run_folder: Like `resume`, but the folder is made if it does not exist.
        address: Address of a Ray cluster; absent: RAY_ADDRESS, else Ray inside this process.
        allow_open_head: Whether that cluster may answer clients without a token.
        max_time: After this time, such as `2h`, the run is interrupted in good order.
        strict_versions: Whether to refuse a run whose trials were trained with other versions of
            TensorFlow, Keras, NumPy or trialrun; otherwise that is a warning.

    Raises:
        InputError: The job, its data, its model or an argument is wrong.
        KeyboardInterrupt: The run was interrupted; finished trials are in its folder.
    """
    from rich.console import Console

    from trialrun.driver.progress import ProgressLine
    from trialrun.driver.run import run_job
    from trialrun.job import load_job, read_duration

    if resume is not None:
        if run_folder is not None:
            raise InputError("resume and run_folder both name the run folder; give only one")
        run_folder = RunFolder.open(resume).path
    try:
        duration = None if max_time is None else read_duration(max_time)
    except ValueError as error:
        raise InputError(f"max_time: {error}") from None
    outcome = run_job(
        load_job(job, overrides or {}),
        runs_dir=default_runs_dir() if runs_dir is None else Path(runs_dir),
        run_folder=None if run_folder is None else Path(run_folder),
        address=address,
        allow_open_head=allow_open_head,
        max_time=duration,
        strict_versions=strict_versions,
        progress=ProgressLine(Console(stderr=True)),
    )
    if outcome.interrupted:
        raise outcome.interrupted
    return Run(outcome.run)


def open_run(path: str | Path) -> Run:
    """The run in a run folder.

    Raises:
        InputError: The path is no run folder.
    """
    return Run(RunFolder.open(path))
