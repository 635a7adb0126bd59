"""The best model on disk: three save formats and Keras's native one, each loaded again and checked.

Runs as a process of its own, which never trained anything: it imports TensorFlow while packs are
trained, then waits for its one request. So the driver needs no TensorFlow, and what is checked is
what a stranger will load.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from trialrun.arrays import join_outputs
from trialrun.datasets import Splits, load_splits, scalers_to_json, steps_per_epoch
from trialrun.errors import ExportError
from trialrun.files import replace_atomically, write_json, write_text
from trialrun.job import Settings, load_job, settings_of
from trialrun.modeltask import task_of
from trialrun.results import TrialState
from trialrun.statistics.probabilities import ProbabilityScores
from trialrun.store import BestFiles, RunFolder

if TYPE_CHECKING:
    import keras

# Saving and loading change no bit of a weight; the order of a sum in another batch may differ. The
# tolerances are for numbers up to 1; of larger ones they are that part.
_PREDICTION_TOLERANCE = 1e-5
_METRIC_TOLERANCE = 1e-4
_ROWS_PER_CALL = 1024


class ExportProcess:
    """The process that saves and checks the best model; a context manager.

    Args:
        log_file: Where TensorFlow's own words go.
    """

    def __init__(self, log_file: Path) -> None:
        self._log_file = log_file

    def __enter__(self) -> Self:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trialrun.export"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                start_new_session=True,  # Ctrl-C is for the driver, which ends this process
            )
        return self

    def export(
        self,
        run: RunFolder,
        parameters: Mapping[str, Any],
        trial_id: str,
        metrics: Mapping[str, float],
    ) -> str:
        """Saves a trial's model into `best/`, loads it again and checks it.

        Args:
            run: The run folder, with the trial's state in `states/`.
            parameters: Searched dotted path -> value of the trial's variant.
            trial_id: The trial.
            metrics: `test_*` of the trial's row.

        Returns:
            Keras's summary of the model, as text.

        Raises:
            ExportError: A format could not be written, or what was loaded differs.
        """
        request = {
            "run": str(run.path),
            "parameters": dict(parameters),
            "trial_id": trial_id,
            "metrics": dict(metrics),
        }
        output, _ = self._process.communicate(json.dumps(request))
        try:
            answer = json.loads(output.splitlines()[-1])
        except (IndexError, ValueError) as error:
            raise ExportError(
                f"the export process ended with {self._process.returncode}; see {self._log_file}"
            ) from error
        if "error" in answer:
            raise ExportError(answer["error"])
        return str(answer["summary"])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


def _serve(requests: IO[str], answers: IO[str]) -> None:
    """Warms up, then answers the one request."""
    os.nice(19)  # packs come first (Ray runs them at 15); at the end nobody else computes
    import keras  # noqa: F401

    line = requests.read()
    if not line:
        return  # nothing to export
    request = json.loads(line)
    try:
        answer = {"summary": _export(**request)}
    except Exception as error:
        if not isinstance(error, ExportError):
            import traceback

            traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(answer) + "\n")


def _export(
    run: str, parameters: Mapping[str, Any], trial_id: str, metrics: Mapping[str, float]
) -> str:
    folder = RunFolder.open(run)
    job = load_job(folder.job_file)
    settings = settings_of(job.spec, parameters)
    state = folder.kept.read_state(trial_id)
    from trialrun.lookups import looked_up_features

    looked_up = looked_up_features(settings.model, job.folder)
    splits = load_splits(settings.data, job.folder, state.seed, looked_up)
    _forget_names()
    from trialrun.builttask import output_losses
    from trialrun.models import build_model, compile_model, forgets_loss_arguments

    model = build_model(settings.model, job.folder, splits.x_train)
    steps = steps_per_epoch(splits, settings.training.batch_size)
    compile_model(model, settings.training, steps, splits.x_train)
    _restore(model, state)
    task = task_of(output_losses(model, model.loss, splits.x_train, splits.y_train))
    files = folder.best(job.spec.name)
    files.folder.mkdir(exist_ok=True)
    _save(model, files)
    write_json(
        files.preprocessing,
        {
            "scalers": scalers_to_json(splits.scalers),
            "task": task.to_json(),
            "class_names": list(splits.class_names),
            "feature_names": list(splits.feature_names),
            **({} if splits.encoder is None else {"columns": splits.encoder.to_json()}),
            "dialect": settings.data.dialect.to_json(),
        },
    )
    if forgets_loss_arguments(settings.training):
        metrics = {name: value for name, value in metrics.items() if not name.endswith("loss")}
    metrics = {name: value for name, value in metrics.items() if not _is_ours(name, settings)}
    _check_formats(files, state, splits, metrics, settings.training.batch_size)
    write_text(files.readme, _how_to_load(files))
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line), line_length=80)
    return "\n".join(lines)


def _forget_names() -> None:
    """Lets Keras name layers from the first again: a model may have been built to look at it."""
    import keras

    keras.utils.clear_session()


def _restore(model: "keras.Model", state: TrialState) -> None:
    """Gives the model the variables of the trained trial."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    for variables, arrays in (
        (model.trainable_variables, state.trainable),
        (model.non_trainable_variables, state.non_trainable),
        (model.optimizer.variables, state.optimizer),
    ):
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)


def _save(model: "keras.Model", files: BestFiles) -> None:
    """Writes the four files, each to a temporary name with the right ending, then renames."""
    import warnings

    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls HDF5 a legacy format; it is asked for
        # HDF5 last: saving it makes Keras 3.15 forget the optimizer in the model's configuration.
        for path in (files.model_keras, files.model_h5):
            with replace_atomically(path) as temporary:
                model.save(temporary)
    config = json.loads(model.to_json())
    config.pop("compile_config", None)  # or who rebuilds it gets an optimizer that nobody chose
    architecture = json.dumps(config, indent=2)
    write_text(files.architecture, architecture)
    bare = keras.models.model_from_json(architecture)
    bare.set_weights(model.get_weights())
    with replace_atomically(files.weights) as temporary:
        bare.save_weights(temporary)  # weights alone: a compiled model would add its optimizer's


def _check_formats(
    files: BestFiles,
    state: TrialState,
    splits: Splits,
    metrics: Mapping[str, float],
    batch_size: int,
) -> None:
    """Loads every format and compares it with the trained trial."""
    import keras

    from trialrun.models import load_model, with_text_tensors

    whole = load_model(files.model_h5)
    rebuilt = keras.models.model_from_json(files.architecture.read_text())
    rebuilt.load_weights(files.weights)
    native = keras.models.load_model(files.model_keras)
    for path, model in (
        (files.model_h5, whole),
        (files.weights, rebuilt),
        (files.model_keras, native),
    ):
        _check_predictions(path, predict_in_batches(model, splits.x_test), state)
    for path, model in ((files.model_h5, whole), (files.model_keras, native)):
        _check_optimizer(path, model, state)
    _check_metrics(files.model_keras, native, splits, metrics, batch_size)
    if isinstance(splits.y_test, np.ndarray):
        # HDF5 renames a metric such as mae, and mixes up those of several outputs.
        names = {f"test_{name}" for name in ("loss", "accuracy")}
        kept = {name: value for name, value in metrics.items() if name in names}
        _check_metrics(files.model_h5, whole, splits, kept, batch_size)
    rows = slice(0, 10)
    x, y = keras.tree.map_structure(lambda array: array[rows], (splits.x_train, splits.y_train))
    logs = whole.train_on_batch(with_text_tensors(x), y, return_dict=True)
    if not np.isfinite(logs["loss"]):
        raise ExportError(f"{files.model_h5}: the loaded model cannot go on training")


def predict_in_batches(model: "keras.Model", x: Any) -> npt.NDArray[np.generic]:
    """The model's outputs for all rows, a thousand at a time."""
    import keras

    from trialrun.models import with_text_tensors

    num_rows = len(keras.tree.flatten(x)[0])
    x = with_text_tensors(x)
    parts = [
        join_outputs(
            model(
                keras.tree.map_structure(lambda array: array[start : start + _ROWS_PER_CALL], x),  # noqa: B023
                training=False,
            )
        )
        for start in range(0, num_rows, _ROWS_PER_CALL)
    ]
    return np.concatenate(parts)


def _check_predictions(path: Path, predictions: npt.NDArray[np.generic], state: TrialState) -> None:
    # Of a test part that is streamed, the first rows; it may have fitted into memory elsewhere.
    num_rows = min(len(predictions), len(state.test_predictions))
    expected = np.asarray(state.test_predictions[:num_rows], np.float64)
    difference = float(np.max(np.abs(np.asarray(predictions[:num_rows], np.float64) - expected)))
    allowed = _PREDICTION_TOLERANCE * max(1.0, float(np.max(np.abs(expected))))
    if not difference <= allowed:
        raise ExportError(
            f"{path}: the loaded model's test predictions differ from the trained trial's by up to"
            f" {difference:.3g}; allowed is {allowed:g}"
        )


def _check_optimizer(path: Path, model: "keras.Model", state: TrialState) -> None:
    loaded = [variable.numpy() for variable in model.optimizer.variables]
    same = len(loaded) == len(state.optimizer) and all(
        np.array_equal(a, b) for a, b in zip(loaded, state.optimizer, strict=True)
    )
    if not same:
        raise ExportError(f"{path}: the loaded optimizer's state is not the trained trial's")


def _is_ours(metric: str, settings: Settings) -> bool:
    """Whether a metric was computed from predictions, and not by Keras."""
    name = metric.removeprefix("test_")
    return name in ProbabilityScores._fields and name not in settings.training.logs


def _check_metrics(
    path: Path,
    model: "keras.Model",
    splits: Splits,
    metrics: Mapping[str, float],
    batch_size: int,
) -> None:
    logs = _evaluate(model, splits, batch_size)
    for name, expected in metrics.items():
        value = logs.get(name.removeprefix("test_"))
        allowed = _METRIC_TOLERANCE * max(1.0, abs(expected))
        if value is None or not abs(float(value) - expected) <= allowed:
            raise ExportError(
                f"{path}: the loaded model has {name} {value}, its trial's row says {expected}"
            )


def _evaluate(model: "keras.Model", splits: Splits, batch_size: int) -> dict[str, float]:
    """Keras's logs on the test part."""
    from trialrun.batches import batches_like, in_order
    from trialrun.models import in_order_of_outputs, with_text_tensors

    stream, part = splits.streams.get("test"), splits.part("test")
    if stream is not None:
        batches = batches_like(stream.rows, part, batch_size, num_rows=stream.num_rows)
        given = {"x": in_order(model, batches)}
    else:
        x, y, *weights = in_order_of_outputs(model, part)
        given = {"x": with_text_tensors(x), "y": y, "batch_size": batch_size}
        given["sample_weight"] = weights[0] if weights else None
    logs: dict[str, float] = model.evaluate(**given, verbose=0, return_dict=True)
    return logs


def _how_to_load(files: BestFiles) -> str:
    return f"""# The best model, in four formats

Each file was loaded again when it was written, and gave the predictions of the trained trial.
`preprocessing.json` turns raw input into the model's input: `x * scale + offset` per feature. Where
it has `columns`, these make the features of a table's columns: a number is one feature, and `fill`
where it is missing; `onehot` is a 0 or 1 for each of `categories`, `ordinal` the place in them from
1. What the training rows did not hold (`is_known`) is 0 in both. `dialect` says how the training
file was written, where that is not the default. Its `task` says what the outputs are: `logits`
become probabilities by a softmax (`multiclass`) or a sigmoid.

```python
import keras
import trialrun

# Whole model (legacy HDF5): architecture, weights, optimizer state.
model = keras.models.load_model("{files.model_h5.name}")
# The same, with the optimizer's state too (Keras 3.15 leaves it behind), to go on training:
model = trialrun.load_model("{files.model_h5.name}")

# Architecture and weights apart.
with open("{files.architecture.name}") as file:
    model = keras.models.model_from_json(file.read())
model.load_weights("{files.weights.name}")

# Keras's current native format: architecture, weights, optimizer state.
model = keras.models.load_model("{files.model_keras.name}")
```

From raw input, through the saved preprocessing: `trialrun predict RUN --input FILE.csv`.

A model file from somebody else can run code when Keras loads it. `trialrun.load_model` looks first,
and refuses what is neither Keras's own nor registered by your program.
"""


if __name__ == "__main__":
    # Whatever libraries print goes to the log: standard output carries the answer alone.
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.stdin, _answers)
    _answers.close()
