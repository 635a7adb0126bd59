"""The lowest and highest possible value of a metric, so that no interval claims the impossible.

Bounds follow from the job, by the Keras names of its losses and metrics, and from our own scores.
A metric with another name has no bounds: they are never guessed from values.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trialrun.job import domains_in
from trialrun.job.keras_api.terms import loss_per_output, metric_log_name, split_term

Bounds = tuple[float, float]

UNBOUNDED: Bounds = (-math.inf, math.inf)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Metrics from 0 to 1. All names are in small letters without underscores, because Keras has two
# spellings for each: `BinaryAccuracy` and `binary_accuracy`.
_PARTS = _words(
    """
    accuracy acc auc binaryaccuracy binaryiou categoricalaccuracy f1score fbetascore iou meaniou
    onehotiou onehotmeaniou precision precisionatrecall recall recallatprecision
    sensitivityatspecificity sparsecategoricalaccuracy sparsetopkcategoricalaccuracy
    specificityatsensitivity topkcategoricalaccuracy
    """
)
_NOT_NEGATIVE = _words(
    """
    bce binarycrossentropy binaryfocalcrossentropy categoricalcrossentropy
    categoricalfocalcrossentropy categoricalhinge ce circle crossentropy ctc dice falsenegatives
    falsepositives hinge huber logcosh logcosherror mae mape meanabsoluteerror
    meanabsolutepercentageerror meansquarederror meansquaredlogarithmicerror mse msle
    rootmeansquarederror sparsecategoricalcrossentropy squaredhinge truenegatives truepositives
    tversky
    """
)
_CORRELATIONS = ("concordancecorrelation", "cosinesimilarity", "pearsoncorrelation")
_BOUNDS: Mapping[str, Bounds] = {
    **dict.fromkeys(_PARTS, (0.0, 1.0)),
    **dict.fromkeys(_NOT_NEGATIVE, (0.0, math.inf)),
    **dict.fromkeys(_CORRELATIONS, (-1.0, 1.0)),
    "r2score": (-math.inf, 1.0),
}
# Scores of `statistics.probabilities`. Brier's sums squares over the classes and is at most 2.
_SCORES: Mapping[str, Bounds] = {
    "roc_auc": (0.0, 1.0),
    "average_precision": (0.0, 1.0),
    "calibration_error": (0.0, 1.0),
    "brier_score": (0.0, 2.0),
}


def metric_bounds(names: Iterable[str], job: Mapping[str, Any]) -> dict[str, Bounds]:
    """The bounds of recorded metrics, `val_accuracy` and the like; infinite where none are known.

    Args:
        names: Names of metrics that begin with the part of the data.
        job: The resolved job.
    """
    known = {**_SCORES, **dict(_logged(job))}
    return {name: known.get(name.partition("_")[2], UNBOUNDED) for name in names}


def _logged(job: Mapping[str, Any]) -> Iterator[tuple[str, Bounds]]:
    """The logged names of a job's losses and metrics with their bounds, without searched ones."""
    training = job.get("training", {})
    searched = tuple(domains_in(job.get("search", {})))
    if not any(path.startswith("training.loss") for path in searched):
        yield from _losses(training.get("loss", ()))
    if any(path.startswith(("training.metrics", "training.weighted_metrics")) for path in searched):
        return
    for field in ("metrics", "weighted_metrics"):
        metrics = training.get(field) or ()
        per_output = metrics if isinstance(metrics, Mapping) else {"": metrics}
        for output, terms in per_output.items():
            for term in terms:
                name, bounds = metric_log_name(term), _bounds_of(term)
                for prefix in ("", f"{output}_" if output else ""):
                    yield f"{prefix}{name}", bounds
                    yield f"{prefix}weighted_{name}", bounds


def _losses(loss: Any) -> Iterator[tuple[str, Bounds]]:
    """The whole loss and that of each output; without upper bounds, as penalties are added."""
    if not loss:
        return
    lows = {output: _bounds_of(term)[0] for output, term in loss_per_output(loss).items()}
    yield from ((f"{output}_loss", (low, math.inf)) for output, low in lows.items() if output)
    # The whole loss is a weighted sum of several, whose lowest value is only known if each has 0.
    whole = min(lows.values()) if len(lows) == 1 or not any(lows.values()) else -math.inf
    yield "loss", (whole, math.inf)


def _bounds_of(term: Any) -> Bounds:
    return _BOUNDS.get(split_term(term)[0].replace("_", "").lower(), UNBOUNDED)
