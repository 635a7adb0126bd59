"""trialrun in Jupyter: tables, figures, the summary; test_run.py runs the notebook of a job."""

import nbformat
import pandas as pd
import pytest
from commands import ROOT
from made_up_runs import learning_rates, make_variants, write_run
from matplotlib.figure import Figure

import trialrun
from trialrun.analysis.comparison import compare_variants
from trialrun.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs"), learning_rates(1e-4, 1e-3), range(8))
    return trialrun.open_run(folder.path)


def test_the_tables_are_frames(run):
    parts = map(pd.read_parquet, sorted(run.folder.path.glob("trials/*.parquet")))
    trials = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(run.trials, trials, check_dtype=False)
    assert list(run.history.columns[:4]) == ["trial_id", "variant_id", "seed", "epoch"]
    assert len(run.history) == 2 * 8 * 4


def test_a_comparison_has_a_row_per_metric(run):
    table = run.compare("v00", "v01")
    compared = compare_variants(run.folder, "v00", "v01")
    assert list(table.index) == [one.name for one in compared.metrics]
    assert table.loc["val_loss", "p_value"] == compared.metrics[0].paired.p_value
    assert table.loc["val_loss", "difference"] == pytest.approx(
        table.loc["val_loss", "first"] - table.loc["val_loss", "second"]
    )
    with pytest.raises(InputError, match="there is no variant 'v02'"):
        run.compare("v00", "v02")


def test_the_figures_are_those_of_the_report(run):
    figures = run.figures
    assert {"confusion_matrix", "variants", "learning_curves"} <= set(figures)
    assert all(isinstance(figure, Figure) for figure in figures.values())


def test_the_summary_is_html_with_names_as_text(tmp_path):
    script = "<script>alert(1)</script>"
    folder = write_run(tmp_path, make_variants([{"model.args.activation": script}]), range(3))
    html = trialrun.open_run(folder.path)._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "is the only variant; its mean val_loss" in html
    assert "This run has not ended" in html


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(ROOT / "jobs" / "medical_trial.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
