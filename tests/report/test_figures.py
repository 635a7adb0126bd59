import dataclasses
import gc
import io
import itertools
from typing import NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from made_up_runs import broken, completed, make_variants, write_run
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from scipy import stats

from trialrun.analysis.importance import Importance, ParameterImportance
from trialrun.analysis.winner import winner_curves
from trialrun.report import build_report
from trialrun.report.figures import Drawing, draw_figures, run_drawings
from trialrun.report.figures.confusion import confusion_drawing, draw_confusion_matrix
from trialrun.report.figures.curves import curves_drawing, draw_learning_curves
from trialrun.report.figures.distribution import (
    distribution_drawing,
    draw_score_distribution,
    profile_of,
)
from trialrun.report.figures.effects import (
    draw_parameter_effects,
    effects_drawing,
    parameter_effects,
)
from trialrun.report.figures.images import own_settings, to_png, to_svg
from trialrun.report.figures.importance import importance_drawing
from trialrun.report.figures.reliability import draw_reliability, reliability_drawing
from trialrun.report.figures.text import fold, fold_to_width, printable, width_in
from trialrun.report.figures.variants import draw_variants, variants_drawing
from trialrun.report.overview import load_overview

pytestmark = pytest.mark.long

LONG_NAMES = (
    "a_very_long_name_with_underscores_that_goes_on_and_on_to_sixty",
    "<script>alert(1)</script> & $x_1^2$ in Unicode: äöü 薬, 60 letters",
    "W" * 60,
    r"\alpha_1$ {} --> ]]> &amp; \u0000",
)
LOSS = {"metric": "val_loss", "goal": "minimize"}
SWEEP = make_variants(
    [
        {"model.args.units": units, "training.learning_rate": rate, "model.args.activation": name}
        for units in ([16, 32], [32, 64])
        for rate in (1e-4, 3e-4, 1e-3)
        for name in ("relu", "tanh")
    ]
)


def long_name(index):
    return f"{LONG_NAMES[index % len(LONG_NAMES)]}{index}"


def random_matrix(num_classes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 60, (num_classes, num_classes)) + 900 * np.eye(num_classes, dtype=int)


def random_scores(num_variants, num_seeds, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    means = np.sort(rng.gamma(4, 0.1, num_variants))
    values = 0.2 + means[:, np.newaxis] + rng.normal(0, 0.05, (num_variants, num_seeds))
    values[rng.random(values.shape) < missing] = np.nan
    return values


def intervals_of(values):
    """Something around the means, as wide as the seeds lie."""
    with np.errstate(invalid="ignore"):
        return np.stack([values.min(axis=1), values.max(axis=1)], axis=1)


def random_bins(seed=0, num_rows=3000):
    """Bins of confidence, and the predictions that are in them."""
    rng = np.random.default_rng(seed)
    confidences = 0.5 + 0.5 * rng.beta(5, 1.5, num_rows)
    right = rng.random(num_rows) < confidences**1.5
    bins = np.zeros((10, 3))
    places = np.minimum((confidences * 10).astype(int), 9)
    np.add.at(bins, places, np.stack([np.ones(num_rows), confidences, right], axis=1))
    return bins, confidences, right


def random_curves(num_seeds, num_epochs, names=("loss", "accuracy"), *, stops=False):
    rng = np.random.default_rng(0)
    curves = {}
    for name in [*names, *(f"val_{name}" for name in names)]:
        curves[name] = np.float32(rng.uniform(size=(num_seeds, num_epochs)))
        if stops:
            for seed in range(num_seeds - 1):
                curves[name][seed, num_epochs // 2 + seed :] = np.nan
    return curves


def fine(drawing):
    assert drawing is not None
    return drawing


# Texts ------------------------------------------------------------------------------------------


def test_a_name_is_folded_after_its_words_into_lines_of_like_length():
    assert fold("a_long_name_of_some_class_in_here", 2) == "a_long_name_of_\nsome_class_in_here"
    assert fold("short", 3) == "short"
    assert fold("x" * 30, 3).splitlines() == ["x" * 14, "x" * 14, "x" * 2]


@pytest.mark.parametrize("max_lines", [1, 2, 3])
@pytest.mark.parametrize("name", LONG_NAMES)
def test_a_folded_name_has_all_its_letters_or_says_that_some_are_missing(name, max_lines):
    folded = fold(name, max_lines)
    assert len(folded.splitlines()) <= max_lines
    kept = folded.replace("\n", "").replace(" ", "")
    if "…" not in kept:
        assert kept == printable(name).replace(" ", "")
    else:
        assert max_lines == 1
        first, last = kept.split("…")
        assert printable(name).replace(" ", "").startswith(first)
        assert printable(name).replace(" ", "").endswith(last)


def test_lines_are_no_wider_than_their_room():
    for name in LONG_NAMES:
        lines = fold_to_width(f"{name} of {name}", 4.0, 10)
        assert width_in(lines, 10) <= 4.0


def test_what_cannot_be_printed_is_left_out():
    assert printable("a\x00b\nc\u202ed\ud800  e") == "a b c d e"


# Confusion matrix -------------------------------------------------------------------------------


def test_the_matrix_is_drawn_with_names_on_both_axes_and_counts_in_the_cells():
    matrix = np.array([[180, 30], [10, 200]])
    counts, parts = draw_confusion_matrix(matrix, ["no", "yes"], title="Confusion matrix").axes
    for axes, texts in ((counts, ["180", "30", "10", "200"]), (parts, ["85.7%", "14.3%"])):
        assert axes.get_xlabel() == "Predicted label"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["no", "yes"]
        assert axes.collections[0].get_cmap().name == "Blues"
        assert [text.get_text() for text in axes.texts][: len(texts)] == texts
    assert counts.get_ylabel() == "True label"
    assert [label.get_text() for label in counts.get_yticklabels()] == ["no", "yes"]
    # Rows are the true class: the second cell is to the right of the first, the third below it.
    assert [text.get_position() for text in counts.texts] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert counts.yaxis_inverted()
    np.testing.assert_array_equal(counts.collections[0].get_array(), matrix)
    np.testing.assert_allclose(parts.collections[0].get_array().sum(axis=1), 1)


def test_the_part_of_a_class_without_rows_is_not_available():
    _, parts = draw_confusion_matrix(np.array([[0, 0], [1, 3]]), ["no", "yes"], title="").axes
    assert [text.get_text() for text in parts.texts] == ["n/a", "n/a", "25.0%", "75.0%"]


def luminance(color):
    """Relative luminance of an RGB color as WCAG 2 defines it."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_numbers_can_be_read_on_dark_and_on_light_cells():
    names = [str(number) for number in range(10)]
    figure = draw_confusion_matrix(np.arange(100).reshape(10, 10), names, title="")
    for axes in figure.axes:
        mesh = axes.collections[0]
        shades = mesh.cmap(mesh.norm(mesh.get_array())).reshape(-1, 4)[:, :3]
        for text, shade in zip(axes.texts, shades, strict=True):
            dark, light = sorted([luminance(text.get_color()), luminance(shade)])
            assert (light + 0.05) / (dark + 0.05) > 4


@pytest.mark.parametrize("num_classes", [1, 21, 40])
def test_a_matrix_of_many_classes_is_drawn_numbers_left_out(num_classes):
    names = [str(number) for number in range(num_classes)]
    figure = draw_confusion_matrix(random_matrix(num_classes), names, title="")
    assert len(figure.axes[0].texts) == (1 if num_classes == 1 else 0)
    assert to_png(figure).startswith(b"\x89PNG")


def test_many_classes_are_told_by_what_is_worst():
    matrix = 100 * np.eye(8, dtype=int)
    matrix[3, 5] = 60
    names = [f"class {number}" for number in range(8)]
    drawing = confusion_drawing(matrix, names, variant_id="v03", num_seeds=5)
    assert drawing.alt == (
        "Confusion matrix of v03 on the test set, 5 seeds pooled, accuracy 93.0%. 8 classes."
        " Recognized least: class 3, 62.5% of it. Mistaken most: class 3 for class 5, 60 times."
    )


# Variants ---------------------------------------------------------------------------------------


def test_every_seed_is_a_point_beside_the_mean_and_its_interval():
    values = random_scores(5, 7, missing=0.15)
    names = [f"v{index:02d}" for index in range(5)]
    intervals = intervals_of(random_scores(5, 7))
    figure = draw_variants(names, values, intervals, **LOSS, title="")
    (axes,) = figure.axes
    seeds, means, best = axes.lines
    np.testing.assert_array_equal(seeds.get_xdata(), values.ravel())
    np.testing.assert_array_equal(np.rint(seeds.get_ydata()), np.repeat(range(5), 7))
    np.testing.assert_allclose(means.get_xdata(), np.nanmean(values, axis=1))
    np.testing.assert_array_equal(means.get_ydata(), range(5))
    assert best.get_xdata()[0] == means.get_xdata()[0]
    segments = axes.collections[0].get_segments()
    np.testing.assert_array_equal([[a[0], b[0]] for a, b in segments], intervals)
    np.testing.assert_array_equal([[a[1], b[1]] for a, b in segments], [[i, i] for i in range(5)])
    assert axes.yaxis_inverted()  # the best is at the top
    missing = {f"{(~np.isnan(row)).sum()} of 7 seeds" for row in values if np.isnan(row).any()}
    assert {text.get_text() for text in axes.texts} == missing


@pytest.mark.parametrize("unknown", [np.nan, np.inf])
def test_a_variant_without_an_interval_has_no_bar(unknown):
    intervals = np.array([[0.1, 0.3], [-unknown, unknown]])
    figure = draw_variants(["v00", "v01"], np.array([[0.2], [0.4]]), intervals, **LOSS, title="")
    assert len(figure.axes[0].collections[0].get_segments()) == 1
    intervals[0] = np.nan
    figure = draw_variants(["v00", "v01"], np.array([[0.2], [0.4]]), intervals, **LOSS, title="")
    assert not figure.axes[0].collections


def test_of_many_variants_the_best_are_drawn_and_that_is_said():
    values = random_scores(200, 3)
    names = [f"v{index:03d}" for index in range(200)]
    drawing = variants_drawing(names, values, intervals_of(values), **LOSS)
    labels = [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()]
    assert labels == names[:40]
    assert "the best 40 of 200 variants" in drawing.caption
    assert "the best 40 of 200 variants" in drawing.alt


def test_the_variants_are_told_in_numbers():
    values = np.array([[0.1, 0.2, 0.3], [0.4, 0.4, 0.4], [np.nan] * 3])
    intervals = np.array([[0.05, 0.35], [np.nan] * 2, [np.nan] * 2])
    drawing = variants_drawing(["v07", "v01", "v00"], values, intervals, **LOSS)
    assert drawing.alt == (
        "val_loss of 3 variants, 3 seeds, lower is better. v07: mean 0.2, 95% interval 0.05 to"
        " 0.35; v01: mean 0.4; v00: no seed completed."
    )


# Learning curves --------------------------------------------------------------------------------


def test_curves_are_the_median_over_seeds_in_a_band_of_the_middle_half():
    curves = random_curves(5, 7)
    del curves["val_accuracy"]
    figure = draw_learning_curves(curves, title="")
    loss, accuracy = figure.axes
    assert (loss.get_title("left"), accuracy.get_title("left")) == ("loss", "accuracy")
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    assert loss.lines[0].get_linestyle() != loss.lines[1].get_linestyle()
    np.testing.assert_allclose(loss.lines[1].get_ydata(), np.median(curves["val_loss"], axis=0))
    np.testing.assert_array_equal(loss.lines[1].get_xdata(), range(1, 8))
    band = accuracy.collections[0].get_paths()[0].vertices
    for epoch in range(1, 8):
        heights = band[band[:, 0] == epoch, 1]
        expected = np.quantile(curves["accuracy"][:, epoch - 1], [0.25, 0.75])
        np.testing.assert_allclose([heights.min(), heights.max()], expected, rtol=1e-6)


def test_seeds_that_stopped_are_left_out_of_the_median():
    curves = random_curves(4, 8, ("loss",), stops=True)
    line = draw_learning_curves(curves, title="").axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), np.nanmedian(curves["loss"], axis=0))
    drawing = curves_drawing(curves, variant_id="v00")
    assert "of those that had not stopped" in drawing.caption
    last = [row[~np.isnan(row)][-1] for row in curves["loss"]]
    assert f"medians at the end: loss {np.median(last):.4g}, " in drawing.alt


def test_two_seeds_have_no_band_and_one_epoch_is_a_point():
    figure = draw_learning_curves({"loss": np.array([[0.5], [0.6]])}, title="")
    assert not figure.axes[0].collections
    assert figure.axes[0].lines[0].get_marker() == "o"


def test_an_epoch_without_any_value_is_a_gap():
    values = np.array([[0.5, np.inf, np.nan, 0.2]] * 3)
    line = draw_learning_curves({"loss": values}, title="").axes[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), [0.5, np.nan, np.nan, 0.2])


def test_of_many_epochs_so_many_are_drawn_as_can_be_seen():
    curves = {"loss": np.arange(20_000.0)[np.newaxis]}
    line = draw_learning_curves(curves, title="").axes[0].lines[0]
    epochs = np.asarray(line.get_xdata())
    assert len(epochs) == 600
    assert (epochs[0], epochs[-1]) == (1, 20_000)
    np.testing.assert_array_equal(line.get_ydata(), epochs - 1)


def test_of_many_metrics_the_first_are_drawn_and_that_is_said():
    drawing = curves_drawing(random_curves(2, 3, [f"m{i}" for i in range(12)]), variant_id="v00")
    assert [axes.get_title("left") for axes in drawing.figure.axes] == [f"m{i}" for i in range(8)]
    assert drawing.caption.endswith("The first 8 of 12 metrics.")


# Effects of parameters --------------------------------------------------------------------------


def test_the_effect_of_a_value_is_the_median_of_the_variants_that_have_it():
    rng = np.random.default_rng(0)
    grid = list(itertools.product([1e-3, 1e-4, 3e-4], [[16], [32]], [True, False]))
    means = rng.uniform(size=len(grid))
    parameters = dict(zip(("a.rate", "b.units", "c.shuffle"), zip(*grid, strict=True), strict=True))
    rate, units, shuffle = parameter_effects(parameters, means, "minimize")
    frame = pd.DataFrame(parameters).map(str).assign(mean=means)
    for effect, path, values in (
        (rate, "a.rate", [1e-4, 3e-4, 1e-3]),
        (units, "b.units", [[16], [32]]),
        (shuffle, "c.shuffle", [True, False]),
    ):
        medians = frame.groupby(path)["mean"].median()
        assert [group.median for group in effect.groups] == [medians[str(one)] for one in values]
    assert [group.label for group in shuffle.groups] == ["true", "false"]
    figure = draw_parameter_effects([rate, units], means, **LOSS, title="")
    first, second = figure.axes
    assert (first.get_xscale(), second.get_xscale()) == ("log", "linear")
    np.testing.assert_array_equal(first.lines[0].get_xdata(), parameters["a.rate"])
    np.testing.assert_array_equal(first.lines[0].get_ydata(), means)
    np.testing.assert_array_equal(first.lines[1].get_xdata(), [1e-4, 3e-4, 1e-3])
    np.testing.assert_array_equal(
        first.lines[1].get_ydata(), [group.median for group in rate.groups]
    )
    assert [label.get_text() for label in first.get_xticklabels()] == ["0.0001", "0.0003", "0.001"]
    assert [label.get_text() for label in second.get_xticklabels()] == ["[16]", "[32]"]
    # A category's points lie around its place.
    indices = [parameters["b.units"].index(one) for one in parameters["b.units"]]
    places = np.asarray(second.lines[0].get_xdata())
    np.testing.assert_array_equal(np.rint(places), [0 if i == indices[0] else 1 for i in indices])
    assert first.get_ylim() == second.get_ylim()


def test_many_numbers_are_taken_together_with_their_neighbors():
    rng = np.random.default_rng(1)
    rates, means = 10 ** rng.uniform(-5, -1, 60), rng.uniform(size=60)
    (effect,) = parameter_effects({"rate": rates.tolist()}, means, "minimize")
    tenths = pd.qcut(pd.Series(rates), 6, labels=False)
    expected = pd.Series(means).groupby(tenths).median()
    np.testing.assert_array_equal([group.median for group in effect.groups], expected)
    assert effect.num_values == 60
    drawing = fine(effects_drawing({"rate": rates.tolist()}, means, **LOSS))
    assert "medians are of 6 groups of neighbors" in drawing.caption
    assert drawing.figure.axes[0].get_xscale() == "log"


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1e-4, 3e-4, 1e-3], "log"),
        ([16, 32, 64, 128, 256], "log"),
        ([0.1, 0.2, 0.3], "linear"),
        ([0.0, 0.001, 1.0], "linear"),
        (np.linspace(0.01, 0.6, 50).tolist(), "linear"),
        ([-1, 100], "linear"),
        ([5, 5], None),
    ],
)
def test_numbers_that_span_decades_have_a_logarithmic_axis(values, scale):
    drawing = effects_drawing(
        {"a": values, "b": [*range(len(values))]}, np.ones(len(values)), **LOSS
    )
    panel = {axes.get_title("left"): axes for axes in fine(drawing).figure.axes}.get("a")
    assert (panel and panel.get_xscale()) == scale


def test_nothing_is_drawn_where_no_parameter_has_two_values():
    assert effects_drawing({}, np.ones(3), **LOSS) is None
    assert effects_drawing({"a": [1, 1, 2]}, np.array([0.1, 0.2, np.nan]), **LOSS) is None


@pytest.mark.parametrize(("goal", "kept"), [("minimize", range(10)), ("maximize", range(20, 30))])
def test_of_many_categories_the_best_are_drawn_and_that_is_said(goal, kept):
    means = np.arange(30.0)
    drawing = effects_drawing({"name": [f"n{i}" for i in range(30)]}, means, metric="m", goal=goal)
    labels = [label.get_text() for label in fine(drawing).figure.axes[0].get_xticklabels()]
    assert labels == [f"n{i}" for i in kept]
    assert "For name the best 10 of 30 values are shown." in drawing.caption
    best, worst = (kept[0], kept[-1]) if goal == "minimize" else (kept[-1], kept[0])
    assert f"name: best median {best} at n{best}, worst {worst} at n{worst}." in drawing.alt


def test_of_many_parameters_those_with_the_largest_effects_are_drawn_and_that_is_said():
    rng = np.random.default_rng(2)
    parameters = {f"p{i}": rng.integers(0, 2, 64).tolist() for i in range(12)}
    means = sum(np.array(parameters[f"p{i}"]) * (i % 3) for i in range(12)) + rng.normal(size=64)
    drawing = fine(effects_drawing(parameters, means, **LOSS))
    frame = pd.DataFrame(parameters).assign(mean=means)
    sizes = {p: np.ptp(frame.groupby(p)["mean"].median()) for p in parameters}
    largest = sorted(sizes, key=lambda path: -sizes[path])[:8]
    shown = [axes.get_title("left") for axes in drawing.figure.axes]
    assert shown == [path for path in parameters if path in largest]
    assert "The 8 of 12 parameters whose medians differ most are shown." in drawing.alt


# Reliability ------------------------------------------------------------------------------------


def test_the_diagram_shows_how_often_predictions_of_each_confidence_were_right():
    bins, confidences, right = random_bins()
    diagram, histogram = draw_reliability(bins, title="").axes
    predictions = pd.DataFrame({"confidence": confidences, "right": right})
    of_bin = predictions.groupby(np.minimum((confidences * 10).astype(int), 9))
    _, model = diagram.lines
    np.testing.assert_allclose(model.get_xdata(), of_bin["confidence"].mean())
    np.testing.assert_allclose(model.get_ydata(), of_bin["right"].mean())
    heights = [bar.get_height() for bar in histogram.patches]
    np.testing.assert_allclose(heights, np.histogram(confidences, 10, (0, 1))[0] / len(right))
    gaps = (of_bin["confidence"].mean() - of_bin["right"].mean()).abs()
    error = (gaps * of_bin.size()).sum() / len(right)
    drawing = fine(reliability_drawing(bins, variant_id="v02", num_seeds=3))
    title = drawing.figure.texts[0].get_text().replace("\n", " ")
    for text in (drawing.alt, drawing.caption, title):
        assert f"expected calibration error {error:.3f}" in text
    assert f"3,000 predictions, mean confidence {confidences.mean():.1%}" in drawing.alt


def test_without_a_prediction_there_is_no_diagram():
    assert reliability_drawing(np.zeros((10, 3)), variant_id="v00", num_seeds=1) is None


# Score distribution -----------------------------------------------------------------------------


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_a_profile_is_the_part_of_the_seeds_that_is_as_good_with_wilsons_interval(goal, n):
    values = np.random.default_rng(n).normal(size=n).round(1)
    thresholds = np.unique([*values, -3.0, 0.05, 3.0])
    profile = profile_of(values, thresholds, goal)
    good = [(values <= t) if goal == "minimize" else (values >= t) for t in thresholds]
    np.testing.assert_allclose(profile.parts, [one.mean() for one in good])
    for index, one in enumerate(good):
        known = stats.binomtest(int(one.sum()), n).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(
            [profile.low[index], profile.high[index]], [known.low, known.high], atol=1e-12
        )


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_the_drawn_steps_are_right_between_the_values_too(goal):
    values = random_scores(3, 6, missing=0.1)
    figure = draw_score_distribution(["a", "b", "c"], values, metric="m", goal=goal, title="")
    for line, row in zip(figure.axes[0].lines, values, strict=True):
        corners = line.get_path().vertices
        if line.get_drawstyle() == "steps-post":
            x, y = np.asarray(line.get_xdata())[:-1], np.asarray(line.get_ydata())[:-1]
        else:
            x, y = np.asarray(line.get_xdata())[:-1], np.asarray(line.get_ydata())[1:]
        between = x + 1e-9
        seeds = row[~np.isnan(row), np.newaxis]
        good = seeds <= between if goal == "minimize" else seeds >= between
        np.testing.assert_allclose(y, good.mean(axis=0))
        assert len(corners)


def test_the_lines_of_eight_variants_differ_in_more_than_color():
    values = random_scores(20, 6)
    drawing = distribution_drawing([f"v{i:02d}" for i in range(20)], values, **LOSS)
    lines = fine(drawing).figure.axes[0].lines
    assert [line.get_label() for line in lines] == [f"v{i:02d}" for i in range(8)]
    assert len({line.get_marker() for line in lines}) == 8
    assert len({line.get_color() for line in lines}) == 8
    assert "the best 8 of 20 variants" in drawing.caption
    assert "The higher a line, the better" in drawing.caption


@pytest.mark.parametrize(("num_seeds", "num_bands"), [(1, 0), (3, 0), (4, 1), (20, 1)])
def test_few_seeds_have_no_band(num_seeds, num_bands):
    drawing = fine(distribution_drawing(["a", "b"], random_scores(2, num_seeds), **LOSS))
    assert len(drawing.figure.axes[0].collections) == num_bands
    assert ("band" in drawing.caption) == bool(num_bands)


def test_a_variant_without_a_completed_seed_has_no_line():
    values = np.array([[0.1, 0.2], [np.nan, np.nan]])
    assert len(fine(distribution_drawing(["a", "b"], values, **LOSS)).figure.axes[0].lines) == 1
    assert distribution_drawing(["a", "b"], np.full((2, 3), np.nan), **LOSS) is None


# Any name, any size -----------------------------------------------------------------------------

HOSTILE_METRIC = f"val_{LONG_NAMES[1]}"


def hard_cases():
    long_names = [long_name(index) for index in range(40)]
    for num_classes, names in ((2, long_names), (10, long_names), (13, ()), (40, long_names)):
        matrix = random_matrix(num_classes)
        yield (
            f"confusion_matrix-{num_classes}",
            lambda matrix=matrix, names=names[:num_classes]: confusion_drawing(
                matrix, names, variant_id="v00", num_seeds=20
            ),
        )
    for num_variants, num_seeds, metric in (
        (1, 1, "val_loss"),
        (2, 2, f"val_{LONG_NAMES[2]}"),
        (200, 3, HOSTILE_METRIC),
    ):
        names = [f"v{index:02d}" for index in range(num_variants)]
        values = random_scores(num_variants, num_seeds, missing=0.1 if num_variants > 2 else 0)
        yield (
            f"variants-{num_variants}x{num_seeds}",
            lambda names=names, values=values, metric=metric: variants_drawing(
                names, values, intervals_of(values), metric=metric, goal="maximize"
            ),
        )
        yield (
            f"score_distribution-{num_variants}x{num_seeds}",
            lambda names=names, values=values, metric=metric: distribution_drawing(
                names, values, metric=metric, goal="maximize"
            ),
        )
    for scale in (0.0, 1e-9, 1e9):
        values = 0.5 + scale * random_scores(3, 4)
        yield (
            f"variants-spread-{scale}",
            lambda values=values: variants_drawing("abc", values, intervals_of(values), **LOSS),
        )
        yield (
            f"score_distribution-spread-{scale}",
            lambda values=values: distribution_drawing("abc", values, **LOSS),
        )
    means = 10 ** np.random.default_rng(0).uniform(-3, 3, 60)
    for num_parameters in (1, 4, 12):
        parameters = {
            f"{index}.{long_name(index)}": (
                [long_name(place % (3 + index)) for place in range(60)]
                if index % 2 == 0
                else (10.0 ** (np.arange(60) % (2 + index))).tolist()
            )
            for index in range(num_parameters)
        }
        yield (
            f"parameter_effects-{num_parameters}",
            lambda parameters=parameters: effects_drawing(
                parameters, means, metric=HOSTILE_METRIC, goal="minimize"
            ),
        )
    for num_parameters in (1, 20):
        shares = [
            ParameterImportance(f"{index}.{long_name(index)}", 0.5**index, 0.01 + 0.02 * index)
            for index in range(num_parameters)
        ]
        yield (
            f"parameter_importance-{num_parameters}",
            lambda shares=shares: importance_drawing(
                Importance(tuple(shares), 7, 64, 20), metric=HOSTILE_METRIC
            ),
        )
    for num_seeds, num_epochs in ((1, 1), (3, 4), (20, 1000)):
        yield (
            f"learning_curves-{num_seeds}x{num_epochs}",
            lambda num_seeds=num_seeds, num_epochs=num_epochs: curves_drawing(
                random_curves(num_seeds, num_epochs, ("loss", *LONG_NAMES)), variant_id="v00"
            ),
        )
    one_bin = np.zeros((10, 3))
    one_bin[9] = 4, 4, 1
    for name, bins in (("many", random_bins()[0]), ("one", one_bin)):
        yield (
            f"reliability-{name}",
            lambda bins=bins: reliability_drawing(bins, variant_id="v00", num_seeds=20),
        )


HARD_CASES = dict(hard_cases())


class Rendered(NamedTuple):
    """A drawing, its images, and every text that was drawn into the PNG with its box in dots."""

    drawing: Drawing
    png: bytes
    svg: bytes
    texts: list[str]
    boxes: np.ndarray


@pytest.fixture(scope="module", params=HARD_CASES)
def rendered(request):
    drawing = fine(HARD_CASES[request.param]())
    drawn, draw = [], Text.draw

    def record(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text():
            drawn.append((self.get_text(), self.get_window_extent(renderer).extents))
        draw(self, renderer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        png = to_png(drawing.figure)
    svg = to_svg(drawing.figure, title=printable(drawing.caption))
    texts, boxes = zip(*drawn, strict=True)
    return Rendered(drawing, png, svg, list(texts), np.array(boxes))


def test_no_text_is_cut_off(rendered):
    boxes = rendered.boxes
    beyond = boxes[:, 2:] > rendered.drawing.figure.bbox.size
    outside = (boxes[:, :2] < 0).any(axis=1) | beyond.any(axis=1)
    assert [rendered.texts[index] for index in np.flatnonzero(outside)] == []
    image = imread(io.BytesIO(rendered.png))[..., :3]
    for edge in (image[:3], image[-3:], image[:, :3], image[:, -3:]):
        assert (edge > 0.99).all()  # nothing but white


def test_no_text_lies_on_another(rendered):
    boxes = rendered.boxes
    low = np.maximum(boxes[:, np.newaxis, :2], boxes[np.newaxis, :, :2])
    high = np.minimum(boxes[:, np.newaxis, 2:], boxes[np.newaxis, :, 2:])
    pairs = np.argwhere(np.triu((high > low).all(axis=2), 1))
    assert [(rendered.texts[first], rendered.texts[second]) for first, second in pairs] == []


def test_an_svg_refers_to_nothing_and_runs_nothing(rendered):
    svg, caption = rendered.svg, printable(rendered.drawing.caption)
    assert b"<!DOCTYPE" not in svg
    assert b"<script" not in svg
    root = ElementTree.fromstring(svg)
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not names & {"script", "foreignObject", "text", "a", "iframe", "animate", "set"}
    for element in root.iter():
        for attribute, value in element.attrib.items():
            assert not attribute.startswith("on")
            if attribute.endswith("href"):
                assert value.startswith(("#", "data:image/png;base64,"))
            assert value.count("url(") == value.count("url(#")
            assert "http" not in value
    for style in root.iter("{http://www.w3.org/2000/svg}style"):
        assert "url(" not in (style.text or "")
        assert "@import" not in (style.text or "")
    assert root.findtext("{http://www.w3.org/2000/svg}title") == caption


# Importance -------------------------------------------------------------------------------------


def test_what_may_be_luck_is_drawn_hollow_and_told():
    found = Importance(
        (
            ParameterImportance("training.learning_rate", 0.75, 0.01),
            ParameterImportance("model.args.units", 0.25, 0.06),
        ),
        num_best=7,
        num_variants=64,
        num_seeds=3,
    )
    drawing = fine(importance_drawing(found, metric="val_loss"))
    [axes] = drawing.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["learning_rate", "units"]
    bars = [(bar.get_width(), bar.get_facecolor()[:3] == (1, 1, 1)) for bar in axes.patches]
    assert bars == [(0.75, False), (0.25, True)]
    assert "the best 7 of 64 variants from the others, in val_loss over 3 seeds" in drawing.caption
    assert drawing.alt.endswith("learning_rate 75%, units 25% (no more than luck).")


# The figures of a run ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the figures of a sweep are drawn from."""
    folder = write_run(tmp_path_factory.mktemp("runs"), SWEEP, range(4))
    overview = load_overview(folder)
    curves = winner_curves(folder, overview.leaderboard.variants[0].variant_id)
    return overview, curves, random_bins()[0]


def test_a_run_has_the_figures_of_its_variants_and_then_of_its_winner(run):
    drawings = list(run_drawings(*run))
    assert [drawing.name for drawing in drawings] == [
        "variants",
        "score_distribution",
        "parameter_effects",
        "learning_curves",
        "confusion_matrix",
        "reliability",
    ]
    overview = run[0]
    scores = overview.scores
    winner, *_, last = overview.leaderboard.variants
    variants, distribution, effects, *of_winner = drawings
    rows = [label.get_text() for label in variants.figure.axes[0].get_yticklabels()]
    assert (rows[0], rows[-1]) == (winner.variant_id, last.variant_id)
    means = np.asarray(variants.figure.axes[0].lines[1].get_xdata())
    np.testing.assert_allclose(
        means, [v.metrics["val_loss"].mean for v in overview.leaderboard.variants]
    )
    assert distribution.figure.axes[0].lines[0].get_label() == winner.variant_id
    titles = [axes.get_title("left") for axes in effects.figure.axes]
    assert titles == ["units", "learning_rate", "activation"]
    in_order = scores.values.mean(axis=1)
    np.testing.assert_allclose(effects.figure.axes[1].lines[0].get_ydata(), in_order)
    assert all(f" of {winner.variant_id}" in drawing.caption for drawing in of_winner)


def test_bars_are_the_intervals_of_the_leaderboard(run):
    overview = run[0]
    variants = next(iter(run_drawings(*run)))
    segments = variants.figure.axes[0].collections[0].get_segments()
    winner = overview.leaderboard.variants[0].metrics["val_loss"]
    np.testing.assert_allclose(segments[0][:, 0], [winner.low, winner.high])


def test_the_images_are_the_same_whenever_and_however_they_are_made(run):
    """And the figures are given back to memory."""

    def num_figures():
        gc.collect()
        return sum(isinstance(one, Figure) for one in gc.get_objects())

    before = num_figures()
    first = draw_figures(*run)
    assert num_figures() == before
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 30, "axes.grid": True}):
        matplotlib.rcParams["svg.hashsalt"] = None
        again = draw_figures(*run)
        assert matplotlib.rcParams["font.size"] == 20
    assert [dataclasses.astuple(figure) for figure in first] == [
        dataclasses.astuple(figure) for figure in again
    ]


def test_all_images_of_a_large_sweep_are_small(tmp_path):
    variants = make_variants(
        [
            {"a.rate": 10 ** -(index / 30), "b.size": index % 4, "c.kind": f"k{index % 3}"}
            for index in range(60)
        ]
    )
    folder = write_run(tmp_path, variants, range(2))
    overview = load_overview(folder)
    curves = random_curves(20, 50)
    figures = draw_figures(overview, curves, random_bins()[0])
    assert len(figures) == 6
    assert sum(len(figure.png) for figure in figures) < 700_000


def test_a_run_without_a_completed_trial_has_no_figures(tmp_path):
    folder = write_run(tmp_path, SWEEP[:2], range(2), result_of=broken)
    overview = load_overview(folder)
    assert draw_figures(overview, {}, None) == ()


def test_a_model_that_does_not_classify_has_no_confusion_matrix(tmp_path):
    def result_of(variant, seed):
        return dataclasses.replace(
            completed(variant, seed), val_confusion_matrix=None, test_confusion_matrix=None
        )

    folder = write_run(tmp_path, SWEEP[:1], range(2), result_of=result_of, class_names=())
    build_report(folder)
    names = {path.name for path in folder.figures_dir.iterdir()}
    kinds = ("variants", "score_distribution", "learning_curves")
    assert names == {f"{kind}.{suffix}" for kind in kinds for suffix in ("png", "svg")}


def test_the_settings_of_a_notebook_stay():
    with matplotlib.rc_context({"font.size": 17}):
        with own_settings():
            assert matplotlib.rcParams["font.size"] == 10
        assert matplotlib.rcParams["font.size"] == 17
