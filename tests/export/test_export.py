"""The best model's files: each kind of model, saved, loaded by plain Keras, and going on training.

Oracle: Keras itself. A trial is trained here, its files are written by the functions of the export
process, and what they give is compared with the trial.
"""

import functools
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np
import pytest
from training_jobs import load_trials, make_task, train

import trialrun
import trialrun.api
import trialrun.export.check
import trialrun.export.process
import trialrun.job.user_code.files
from trialrun.data.load import load_splits
from trialrun.errors import InputError
from trialrun.export.check import SavedFormat, predict_in_batches, what_will_be_missing
from trialrun.export.process import SavedModel
from trialrun.export.rebuild import load_best_model
from trialrun.export.save import save_best, try_formats
from trialrun.job import load_job, settings_of
from trialrun.job.user_code.files import UserFiles
from trialrun.messages import in_short
from trialrun.store import RunFolder
from trialrun.store.best_files import BestFiles
from trialrun.store.columns import parameter_kinds

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore"),  # Keras's own, about HDF5 and custom compile()
]

MODELS = """
import keras
import numpy as np
from keras import layers, ops


def data(seed, num_outputs=1):
    rng = np.random.default_rng(seed)

    def part(num_rows):
        x = rng.normal(size=(num_rows, 6)).astype("float32")
        labels = (x[:, :3].argmax(1)).astype("int32")
        if num_outputs == 1:
            return x, labels
        return x, {"a": labels, "b": x[:, 1:2] * 2}

    return {"train": part(40), "validation": part(16), "test": part(24)}


LOSS = "sparse_categorical_crossentropy"
register = keras.saving.register_keras_serializable("export_tests")


@register
class Two(layers.Layer):
    def __init__(self, units=6, **rest):
        super().__init__(**rest)
        self.units = units
        self.first, self.second = layers.Dense(units, "relu"), layers.Dense(units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    def call(self, x):
        return x + self.second(self.first(x))


@register
class Subclass(keras.Model):
    def __init__(self, units=5, **rest):
        super().__init__(**rest)
        self.units = units
        self.first, self.second = layers.Dense(units, "relu"), layers.Dense(3, "softmax")

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    def call(self, x):
        return self.second(self.first(x))

    def train_step(self, data):
        x, y = data  # as `fit` gives them where rows have no weights
        return super().train_step((x, y))


@register
def focal(y, p):
    of_class = ops.take_along_axis(p, ops.cast(ops.reshape(y, (-1, 1)), "int32"), axis=1)
    return -ops.mean((1 - of_class) ** 2 * ops.log(of_class + 1e-7), axis=-1)


@register
class Focal(keras.losses.Loss):
    def __init__(self, gamma=2.0, name="focal", reduction="sum_over_batch_size"):
        super().__init__(name=name, reduction=reduction)
        self.gamma = gamma

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma}

    def call(self, y, p):
        return focal(y, p) * self.gamma


@register
class Sharpness(keras.metrics.Mean):
    def __init__(self, name="sharpness", **rest):
        super().__init__(name=name, **rest)

    def update_state(self, y, p, sample_weight=None):
        return super().update_state(ops.max(p, -1))


class NotRegistered(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.scale


class NoConfig(keras.Model):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first, self.second = layers.Dense(4), layers.Dense(3, "softmax")

    def call(self, x):
        return self.second(self.function(self.first(x)))


class Noise(layers.Layer):
    def __init__(self, **rest):
        super().__init__(**rest)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.seeds)


register(Noise)


def _chain(*middle):
    return keras.Sequential([keras.Input((6,)), *middle, layers.Dense(3, "softmax")])


def _compiled(loss, *metrics, model=None):
    model = model or _chain(layers.Dense(4))
    # Nothing is traced for a few batches.
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=list(metrics), run_eagerly=True)
    return model


def plain():
    return _chain(layers.Dense(4), layers.BatchNormalization())


def two_outputs():
    # Losses and metrics stand in dicts, as names and as objects; a model is within another.
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5), Two(5)])
    x = keras.Input((6,))
    hidden = layers.concatenate([inner(x), inner(ops.tanh(x) - ops.square(x) * 2)])
    outputs = [layers.Dense(3, "softmax", name="a")(hidden), layers.Dense(1, name="b")(hidden)]
    model = keras.Model(x, outputs)
    far = keras.metrics.MeanAbsoluteError(name="far")
    model.compile(
        "adam",
        {"a": focal, "b": "mse"},
        loss_weights={"a": 1.0, "b": 0.5},
        metrics={"a": ["accuracy"], "b": [far, "cosine_similarity", "R2Score"]},
        weighted_metrics={"a": ["accuracy"], "b": []},
        run_eagerly=True,
    )
    return model


def subclass():
    return _compiled(Focal(3.0), "accuracy", Sharpness(), focal, model=Subclass(7))


def closure(gamma=2.0):
    def loss(y, p):
        return focal(y, p) * gamma

    return _compiled(loss, "accuracy")


def lambda_layer():
    return _chain(layers.Lambda(lambda x: ops.concatenate([x, ops.square(x)], -1)))


def not_registered():
    return _compiled(LOSS, model=_chain(NotRegistered()))


def no_config():
    return _compiled(LOSS, model=NoConfig(lambda x: x * 2))


def random_predictions():
    return _compiled(LOSS, model=_chain(Noise()))
"""


class Saved(NamedTuple):
    """A trained trial, and what became of its files."""

    files: BestFiles
    formats: dict[str, SavedFormat]
    notes: list[str]
    run: RunFolder
    trial_id: str
    splits: Any
    predictions: np.ndarray
    logs: dict[str, float]


def save(folder: Path, builder: str, **sections: Any) -> Saved:
    """Trains one trial of a model of `MODELS` and saves it as the export process does."""
    folder.joinpath("models.py").write_text(MODELS)
    data = {"generator": "models.py:data", "args": sections.pop("data_args", {}), "scaling": "none"}
    training = {"epochs": 1, "batch_size": 8, "engine": "keras", **sections.pop("training", {})}
    sections = {"search": {"parameters": {}}, **sections}  # some builders compile for themselves
    (trial,) = load_trials(
        folder, builder=f"models.py:{builder}", seeds=1, data=data, training=training, **sections
    )
    task = make_task(folder, [trial])
    result = train(task)
    assert result.trials[0].error == ""
    run = RunFolder.create(folder / "runs", "oracle")
    run.write_job((folder / "job.yaml").read_text().replace("models.py", f"{folder}/models.py"))
    run.kept.write_states(result)
    run.write_pack(result, parameter_kinds([trial.variant]))
    state = result.best_states["v00"]
    metrics = {k: v for k, v in result.trials[0].metrics.items() if k.startswith("test_")}
    answers = list(save_best(str(run.path), trial.variant.parameters, trial.trial_id, metrics))
    formats = [SavedFormat(**one["format"]) for one in answers if "format" in one]
    splits = load_splits(trial.variant.data, folder, trial.seed)
    return Saved(
        run.best("oracle"),
        {one.name: one for one in formats},
        answers[-1]["notes"],
        run,
        trial.trial_id,
        splits,
        state.test_predictions,
        {name.removeprefix("test_"): value for name, value in metrics.items()},
    )


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """A trained and saved trial of a builder; who changes its files puts them back."""

    @functools.cache
    def saved_of(builder: str) -> Saved:
        data_args = {"num_outputs": 2} if builder == "two_outputs" else {}
        return save(tmp_path_factory.mktemp(builder), builder, data_args=data_args)

    return saved_of


def predictions_of(model: keras.Model, saved: Saved) -> np.ndarray:
    outputs = model(saved.splits.x_test, training=False)
    return np.hstack([keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)])


def goes_on(model: keras.Model, saved: Saved) -> None:
    """Trains a loaded model on, and asserts that it learns."""
    model.run_eagerly = True  # nothing is traced for a few batches
    before = model.get_weights()
    model.fit(saved.splits.x_train, saved.splits.y_train, verbose=0)
    assert any(map(np.any, (a != b for a, b in zip(before, model.get_weights(), strict=True))))


@pytest.mark.parametrize("builder", ["subclass", "two_outputs"])
def test_what_keras_can_save_is_saved_in_every_format_and_loaded_by_plain_keras(
    saved_once, builder
):
    saved = saved_once(builder)
    assert {
        name: (one.is_proved, one.note) for name, one in saved.formats.items()
    } == dict.fromkeys((".weights.h5", ".json", ".keras", ".h5"), (True, ""))
    assert saved.notes == []
    files, splits = saved.files, saved.splits
    rebuilt = keras.models.model_from_json(files.architecture.read_text())
    rebuilt.load_weights(files.weights)
    np.testing.assert_allclose(predictions_of(rebuilt, saved), saved.predictions, atol=1e-6)
    for path in (files.model_keras, files.model_h5):
        model = keras.models.load_model(path)
        np.testing.assert_allclose(predictions_of(model, saved), saved.predictions, atol=1e-6)
        model.run_eagerly = True
        logs = model.evaluate(splits.x_test, splits.y_test, verbose=0, return_dict=True)
        for name, value in logs.items():
            assert value == pytest.approx(saved.logs[name], rel=1e-4, abs=1e-6), (path.name, name)
        goes_on(model, saved)
    native, whole = map(trialrun.load_model, (files.model_keras, files.model_h5))
    assert int(whole.optimizer.iterations) == 5
    for a, b in zip(whole.optimizer.variables, native.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


FOREIGN = {
    "lambda_layer": "'lambda' is keras.layers.Lambda, and Keras loads no code from a model file",
    "not_registered": "NotRegistered, which is not registered; give it @keras.saving.register_",
    "no_config": "of the class NoConfig gives no configuration",
}


@pytest.mark.parametrize("builder", FOREIGN)
def test_where_keras_cannot_serialize_the_weights_are_proved_with_the_jobs_builder(
    saved_once, builder
):
    saved = saved_once(builder)
    weights = saved.formats[".weights.h5"]
    assert weights.is_proved
    assert "builder" in weights.note
    for one in [one for one in saved.formats.values() if one is not weights]:
        assert not one.is_proved
        assert FOREIGN[builder] in one.note
    made = [path.name for path in saved.files.folder.iterdir()]
    assert sorted(made) == ["README.md", "builder.json", "oracle.weights.h5", "preprocessing.json"]
    best = trialrun.api.Best(saved.trial_id, {}, 0, saved.run)
    model = best.load_model()
    np.testing.assert_allclose(predictions_of(model, saved), saved.predictions, atol=1e-6)
    assert int(model.optimizer.iterations) == 5
    goes_on(model, saved)
    np.testing.assert_allclose(best.predict(saved.splits.x_test), saved.predictions, atol=1e-6)


def test_the_code_of_the_readme_makes_the_model_without_trialrun(saved_once, monkeypatch):
    saved = saved_once("lambda_layer")
    monkeypatch.chdir(saved.files.folder)
    code = Path("README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    np.testing.assert_allclose(predictions_of(names["model"], saved), saved.predictions, atol=1e-6)


def test_a_loss_that_keras_cannot_name_costs_the_loss_alone(tmp_path):
    saved = save(tmp_path, "closure", model={"args": {"gamma": 0.5}})
    assert all(one.is_proved for one in saved.formats.values())
    assert not saved.formats[".json"].note
    for name, path in ((".keras", saved.files.model_keras), (".h5", saved.files.model_h5)):
        note = saved.formats[name].note
        assert note.startswith("without loss, metrics and optimizer: its loss")
        assert "function 'loss', which is not registered" in note
        model = keras.models.load_model(path)
        assert not model.compiled
        np.testing.assert_allclose(predictions_of(model, saved), saved.predictions, atol=1e-6)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        best = load_best_model(saved.files)  # by its builder, with its loss
    assert not [one for one in said if "Skipping variable" in str(one.message)]
    logs = best.evaluate(saved.splits.x_test, saved.splits.y_test, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(saved.logs["loss"], rel=1e-4)
    assert int(best.optimizer.iterations) == 5


def test_a_model_whose_predictions_are_random_is_held_to_its_weights(tmp_path):
    saved = save(tmp_path, "random_predictions")
    assert all(one.is_proved for one in saved.formats.values())


@pytest.mark.parametrize("change", ["edited", "gone", "in the run folder", "os:system"])
def test_a_builder_that_may_be_anothers_is_not_called(saved_once, change):
    saved = saved_once("lambda_layer")
    models, inside = saved.run.path.parents[2] / "models.py", saved.run.path / "models.py"
    before = {path: path.read_bytes() for path in (models, saved.files.builder)}
    try:
        if change == "edited":
            models.write_text(models.read_text() + "\nprint(1 / 0)\n")
        elif change == "gone":
            models.unlink()
        else:
            content = json.loads(saved.files.builder.read_text())
            inside.write_text("def build():\n    raise AssertionError('foreign code was run')\n")
            text = f"{inside}:build" if "folder" in change else change
            content["model"] = {"builder": text, "args": {}}
            content["sources"] = {text: trialrun.job.user_code.files.source_digest(text)}
            saved.files.builder.write_text(json.dumps(content))
        expected = {
            "edited": "has changed since the model was saved",
            "gone": "cannot be found: there is no file",
        }.get(change, "is not in a file of yours")
        with pytest.raises(InputError, match=expected) as refused:
            load_best_model(saved.files)
        assert 'model.load_weights("oracle.weights.h5")' in str(refused.value)
    finally:
        inside.unlink(missing_ok=True)
        for path, content in before.items():
            path.write_bytes(content)


def test_a_bare_file_that_names_a_jobs_class_is_refused_and_the_run_loads_it(saved_once):
    saved = saved_once("subclass")
    registered = keras.saving.get_custom_objects()
    kept = {name: registered.pop(name) for name in list(registered) if "export_tests" in name}
    for name in [name for name in sys.modules if name.startswith(("trialrun_models", "models"))]:
        del sys.modules[name]
    try:
        with pytest.raises(InputError, match=r"refused: .*\.Subclass, which is neither"):
            trialrun.load_model(saved.files.model_keras)
        model = load_best_model(saved.files)
    finally:
        registered.update(kept)
    np.testing.assert_allclose(predictions_of(model, saved), saved.predictions, atol=1e-6)


def test_files_of_keras_itself_keep_their_optimizer(tmp_path):
    """HDF5 files that were written before, or by plain Keras."""
    x, y = np.ones((8, 6), np.float32), np.zeros(8)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5") as file:
        assert "optimizer_weights" in file
    loaded = trialrun.load_model(tmp_path / "old.h5")
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    loaded.fit(x, y, verbose=0)


# Nothing is lost with a format -------------------------------------------------------------------


def test_a_format_that_fails_or_gives_another_model_costs_no_other(tmp_path, monkeypatch):
    write = trialrun.export.check.write_h5

    def full(*_):
        raise OSError(28, "No space left on device")

    def write_another(model, *rest):
        before = model.get_weights()
        model.set_weights([weight + 1 for weight in before])
        write(model, *rest)
        model.set_weights(before)

    monkeypatch.setattr(trialrun.export.check, "write_keras", full)
    monkeypatch.setattr(trialrun.export.check, "write_h5", write_another)
    saved = save(tmp_path, "plain")
    assert not saved.files.model_keras.exists()
    failed, other = saved.formats.pop(".keras"), saved.formats.pop(".h5")
    assert not other.is_proved
    assert "predictions differ from the trained model's by up to" in other.note
    assert not failed.is_proved
    reason, place = failed.note.splitlines()
    assert reason == "OSError: [Errno 28] No space left on device"
    assert re.fullmatch(rf"  at {re.escape(__file__)}:\d+ in full: raise OSError\(28, .*", place)
    assert all(one.is_proved for one in saved.formats.values())
    assert f"`oracle_model.keras`: not saved: {reason}\n" in saved.files.readme.read_text()
    model = load_best_model(saved.files)
    np.testing.assert_allclose(predictions_of(model, saved), saved.predictions, atol=1e-6)


@pytest.mark.parametrize(
    ("builder", "expected"),
    [
        ("plain", []),
        ("closure", ["will be saved as .keras, .h5 without loss, metrics and optimizer"]),
        (
            "lambda_layer",
            ["cannot be saved as .json, .keras, .h5: 'lambda"],
        ),
    ],
)
def test_the_untrained_model_tells_what_will_not_be_saved(tmp_path, builder, expected):
    (tmp_path / "models.py").write_text(MODELS)
    load_trials(
        tmp_path, builder=f"models.py:{builder}", seeds=1, data={"generator": "models.py:data"}
    )
    job = load_job(tmp_path / "job.yaml")
    splits = load_splits(job.spec.data, job.folder, 0)
    lines = what_will_be_missing(try_formats(settings_of(job.spec, {}), job.folder, splits))
    assert len(lines) == len(expected)
    for line, part in zip(lines, expected, strict=True):
        assert part in line


def test_a_model_counts_as_saved_if_it_can_be_had_again():
    weights, architecture = SavedFormat(".weights.h5", "", True), SavedFormat(".json", "", True)
    assert SavedModel((weights,)).is_proved
    assert not SavedModel((architecture,)).is_proved
    lost = SavedModel.lost("the disk is full", [architecture])
    assert not lost.is_proved
    assert [one.note for one in lost.formats] == ["", *["the disk is full"] * 3]


# The process -------------------------------------------------------------------------------------


def test_an_error_of_user_code_that_ends_the_saving_tells_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "nice", lambda _: None)  # it is this process
    models = tmp_path / "models.py"
    models.write_text(MODELS + "\n\ndef broken():\n    raise LookupError('no such backbone')\n")
    run = RunFolder.create(tmp_path / "runs", "oracle")
    text = f"data: {{generator: '{models}:data'}}\nmodel: {{builder: '{models}:broken'}}\n"
    run.write_job(f"name: oracle\n{text}")
    asked = json.dumps({"what": "try", "run": str(run.path), "parameters": {}, "seed": 0})
    answers = io.StringIO()
    trialrun.export.process._serve(io.StringIO(f"{asked}\n"), answers)
    reason, place, *_ = json.loads(answers.getvalue())["error"].splitlines()
    assert "LookupError: no such backbone" in reason
    assert re.fullmatch(rf"  at {re.escape(str(models))}:\d+ in broken: raise Look.*", place)


FORMAT = json.dumps({"format": SavedFormat(".keras", "m.keras", True).to_json()})
END = json.dumps({"summary": "a model", "notes": []})


def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, patience_s: float = 60):
    """What a process that runs `code` in the place of the real one makes of a save."""
    header = "import os, sys, time\nrequests = iter(sys.stdin)\n"
    program = header + f"FORMAT, END = {FORMAT!r}, {END!r}\n" + code
    monkeypatch.setattr(trialrun.export.process, "_COMMAND", (sys.executable, "-c", program))
    with trialrun.export.process.ExportProcess(
        tmp_path / "log", UserFiles(), patience_s
    ) as exporter:
        return exporter.export(RunFolder(tmp_path), {}, "t", {})


def test_the_answers_of_the_export_process_become_a_saved_model(tmp_path, monkeypatch):
    saved = ask(tmp_path, monkeypatch, "next(requests); print(FORMAT); print(END, flush=True)")
    assert (saved.is_proved, saved.problem, saved.summary) == (True, "", "a model")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("os.kill(os.getpid(), 9)", "ended early (killed, perhaps out of memory)"),
        ("os._exit(3)", "ended early (exit code 3)"),
        ("print('nonsense', flush=True); next(requests)", "answered 'nonsense"),
        ('print(\'{"error": "no such file"}\', flush=True); next(requests)', "no such file"),
        ("next(requests)", "did not answer for 1 s and was ended"),
    ],
)
def test_whatever_ends_the_export_process_what_was_proved_before_counts(
    tmp_path, monkeypatch, code, problem
):
    patience_s = 1 if "did not answer" in problem else 60
    saved = ask(
        tmp_path, monkeypatch, f"next(requests); print(FORMAT, flush=True)\n{code}", patience_s
    )
    assert problem in saved.problem
    assert saved.is_proved
    lost = [one for one in saved.formats if not one.is_proved]
    assert [one.name for one in lost] == [".weights.h5", ".json", ".h5"]
    assert all(problem in one.note for one in lost)


def test_predictions_are_compared_where_they_are_finite_and_where_they_are_not():
    expected = np.array([[1.0, np.nan], [np.inf, 1e3]])
    difference = trialrun.export.check._difference
    for more, said in ((1e-3, ""), (0.1, "by up to 0.1, allowed is 0.01")):
        values = expected.copy()
        values[1, 1] += more
        assert difference(values, expected) == said
    assert "values that are not finite differ" in difference(np.ones((2, 2)), expected)
    assert "in shape" in difference(np.ones((2, 1)), expected)


def test_an_error_of_keras_is_told_in_one_line_without_colors():
    error = ValueError("Exception encountered.\n\n\x1b[1mInvalid dtype\x1b[0m")
    assert in_short(error) == "ValueError: Exception encountered. Invalid dtype"


def test_a_model_of_texts_beside_numbers_is_given_both_as_tensors():
    words = np.array(["a", "b", "b"], object)[:, np.newaxis]
    numbers = np.array([[1.0], [2.0], [3.0]], np.float32)
    looked_up = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    inputs = {"w": keras.Input((1,), dtype="string"), "n": keras.Input((1,))}
    joined = keras.layers.Concatenate()([looked_up(inputs["w"]), inputs["n"]])
    predictions = predict_in_batches(keras.Model(inputs, joined), {"w": words, "n": numbers})
    np.testing.assert_array_equal(predictions, [[0, 1, 0, 1], [0, 0, 1, 2], [0, 0, 1, 3]])
