"""The process that saves the best model and proves each format of it.

It never trained anything: it imports TensorFlow while packs are trained, tries the save on the
untrained model, and at the end saves the trained one. So the driver needs no TensorFlow, and what
is checked is what a stranger will load. Whatever happens in it becomes an answer: no error, crash
or endless wait of it takes the run's results along.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from trialrun.datasets import Splits, load_splits, scalers_to_json, steps_per_epoch
from trialrun.errors import ExportError, InputError, TrialrunError
from trialrun.files import write_json, write_text
from trialrun.job import Settings, load_job, settings_of
from trialrun.loading_code import code_with_builder, how_to_load, run_code
from trialrun.proof import (
    SavedFormat,
    differs,
    evaluate,
    expect,
    expect_untrained,
    save_and_prove,
)
from trialrun.rebuild import rebuild, write_builder
from trialrun.results import TrialState
from trialrun.saving import FORMATS, in_short
from trialrun.statistics.probabilities import ProbabilityScores
from trialrun.store import BestFiles, RunFolder

if TYPE_CHECKING:
    import keras

# Between two formats. A whole test set is predicted and evaluated a few times, on a CPU.
_PATIENCE_S = 3600.0
_NUM_ROWS_TRIED = 10


@dataclass(frozen=True, slots=True)
class SavedModel:
    """What became of the best model: plain data.

    Attributes:
        formats: Each format, proved or not.
        problem: What ended the saving early; empty if nothing did.
        notes: What else there is to know.
        summary: Keras's summary of the model, as text.
    """

    formats: tuple[SavedFormat, ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()
    summary: str = ""

    @classmethod
    def lost(cls, problem: str, formats: Sequence[SavedFormat] = ()) -> "SavedModel":
        """The model when something ended its saving after some formats."""
        done = {one.name for one in formats}
        rest = (SavedFormat(name, "", False, problem) for name in FORMATS if name not in done)
        return cls((*formats, *rest), problem)

    @property
    def is_proved(self) -> bool:
        """Whether the model can be had again: a format was loaded and gave the trained model."""
        return any(one.is_proved and one.name != ".json" for one in self.formats)

    def to_json(self) -> dict[str, Any]:
        """What summary.json says of it."""
        return {
            "proved": self.is_proved,
            "problem": self.problem,
            "formats": [one.to_json() for one in self.formats],
            "notes": list(self.notes),
        }


class ExportProcess:
    """The process that saves and checks the best model; a context manager.

    Its methods may be called from a thread of their own, one at a time.

    Args:
        log_file: Where TensorFlow's own words go.
    """

    def __init__(self, log_file: Path, patience_s: float = _PATIENCE_S) -> None:
        self._log_file = log_file
        self._patience_s = patience_s

    def __enter__(self) -> Self:
        self._start()
        return self

    def _start(self) -> None:
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
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(
            target=_pass_on, args=(self._process.stdout, self._lines), daemon=True
        ).start()

    def try_untrained(self, run: RunFolder, parameters: Mapping[str, Any], seed: int) -> list[str]:
        """Tries the save on the untrained model of a variant.

        Args:
            run: The run folder; nothing is written there.
            parameters: Searched dotted path -> value of the variant.
            seed: Of the data that the model is built for.

        Returns:
            What will not be saved, and why; empty if all will.

        Raises:
            ExportError: It could not be tried.
        """
        answers = self._ask("try", run, parameters, seed=seed)
        formats = [SavedFormat(**answer["format"]) for answer in answers if "format" in answer]
        return what_will_be_missing(formats)

    def export(
        self,
        run: RunFolder,
        parameters: Mapping[str, Any],
        trial_id: str,
        metrics: Mapping[str, float],
    ) -> SavedModel:
        """Saves a trial's model into `best/`, loads each format again and checks it.

        Args:
            run: The run folder, with the trial's state in `states/`.
            parameters: Searched dotted path -> value of the trial's variant.
            trial_id: The trial.
            metrics: `test_*` of the trial's row.
        """
        formats: list[SavedFormat] = []
        try:
            for answer in self._ask("save", run, parameters, trial_id=trial_id, metrics=metrics):
                if "format" in answer:
                    formats.append(SavedFormat(**answer["format"]))
                else:
                    return SavedModel(tuple(formats), "", tuple(answer["notes"]), answer["summary"])
        except ExportError as error:
            return SavedModel.lost(str(error), formats)
        raise AssertionError("the export process always ends with an answer")

    def _ask(
        self, what: str, run: RunFolder, parameters: Mapping[str, Any], **details: Any
    ) -> Iterator[Mapping[str, Any]]:
        """The answers to a request, as they come; raises ExportError where they end early."""
        request = {"what": what, "run": str(run.path), "parameters": dict(parameters), **details}
        try:
            if self._process.poll() is not None:  # the attempt on the untrained model ended it
                self._end()
                self._start()
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ExportError(f"the export process cannot be reached: {error}") from error
        while True:
            answer = json.loads(self._next_line())
            if "error" in answer:
                raise ExportError(answer["error"])
            yield answer
            if "format" not in answer:
                return

    def _next_line(self) -> str:
        try:
            line = self._lines.get(timeout=self._patience_s)
        except queue.Empty:
            self._process.kill()
            raise ExportError(
                f"the export process gave no sign of life for {self._patience_s:g} s and was ended;"
                f" see {self._log_file}"
            ) from None
        if not line:
            code = self._process.wait()
            why = "killed, perhaps for its memory" if code == -9 else f"exit code {code}"
            raise ExportError(f"the export process ended early ({why}); see {self._log_file}")
        return line

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):  # a request that nobody read
                    pipe.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()


def _pass_on(lines: IO[str], to: "queue.SimpleQueue[str]") -> None:
    """Every line as it comes, then an empty one."""
    with contextlib.suppress(ValueError):  # closed, because the run was interrupted
        for line in lines:
            to.put(line)
    to.put("")


def what_will_be_missing(formats: Sequence[SavedFormat]) -> list[str]:
    """Lines about the formats that are not whole: what is saved in their place, and why."""
    by_reason: dict[str, list[str]] = {}
    for one in formats:
        if one.note and one.name != ".weights.h5":
            by_reason.setdefault(one.note, []).append(one.name)
    lost = [one for one in formats if one.name == ".weights.h5" and not one.is_proved]
    proved = {one.name for one in formats if one.is_proved}
    lines = []
    for reason, names in by_reason.items():
        listed = ", ".join(names)
        if names[0] in proved:
            lines.append(f"the model will be saved as {listed} {reason}")
        else:
            instead = "" if lost else "; its weights and builder will be saved"
            lines.append(f"the model cannot be saved as {listed}: {reason}{instead}")
    return lines + [f"the model's weights cannot be saved: {one.note}" for one in lost]


# Inside the process ------------------------------------------------------------------------------


def _serve(requests: IO[str], answers: IO[str]) -> None:
    """Warms up, then answers request by request."""
    os.nice(19)  # packs come first (Ray runs them at 15); at the end nobody else computes
    import keras

    for line in requests:
        request = json.loads(line)
        work = _try_untrained if request.pop("what") == "try" else _save_best
        try:
            for answer in work(**request):
                answers.write(json.dumps(answer) + "\n")
                answers.flush()
        except Exception as error:
            if not isinstance(error, TrialrunError):
                import traceback

                traceback.print_exc()
            text = str(error) if isinstance(error, TrialrunError) else in_short(error)
            answers.write(json.dumps({"error": text}) + "\n")
            answers.flush()
        keras.backend.clear_session()


def _try_untrained(run: str, parameters: Mapping[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    job = load_job(RunFolder.open(run).job_file)
    for one in try_formats(settings_of(job.spec, parameters), job.folder, seed):
        yield {"format": one.to_json()}
    yield {}


def try_formats(settings: Settings, job_folder: Path, seed: int) -> list[SavedFormat]:
    """Saves the untrained model of a variant to a temporary folder and loads each format.

    Args:
        settings: The variant.
        job_folder: Where the paths of its files start.
        seed: Of the data that the model is built for.

    Raises:
        InputError: The data or the model is wrong.
    """
    import keras

    splits = load_splits(settings.data, job_folder, seed)
    model = _build(settings, job_folder, splits)
    model.optimizer.build(model.trainable_variables)
    x = keras.tree.map_structure(lambda array: array[:_NUM_ROWS_TRIED], splits.x_train)
    with tempfile.TemporaryDirectory(prefix="trialrun-save-") as folder:
        files = BestFiles(Path(folder), "model")
        return list(save_and_prove(model, files, expect_untrained(model, x), None))


def _save_best(
    run: str, parameters: Mapping[str, Any], trial_id: str, metrics: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    folder = RunFolder.open(run)
    job = load_job(folder.job_file)
    settings = settings_of(job.spec, parameters)
    files = folder.best(job.spec.name)
    for path in files.all_paths:
        path.unlink(missing_ok=True)  # of another winner, before seeds were added
    state = folder.kept.read_state(trial_id)
    splits = load_splits(settings.data, job.folder, state.seed)
    model = _build(settings, job.folder, splits)
    _restore(model, state)
    batch_size = settings.training.batch_size
    steps = steps_per_epoch(splits, batch_size)
    write_json(files.preprocessing, _preprocessing(splits))
    write_builder(files, settings, trial_id=trial_id, x=splits.x_test, steps_per_epoch=steps)
    logs, notes = _logs(model, splits, settings, metrics)
    expected = expect(model, splits, state.test_predictions, logs=logs, batch_size=batch_size)
    code = code_with_builder(settings.model, splits.x_test, files.weights)

    def rebuild_from_weights() -> "keras.Model":
        """By the code of README.md, and as `Run.best` does unless it would refuse."""
        model = run_code(code, files.folder)
        try:
            return rebuild(files)
        except InputError as error:
            notes.append(str(error))
            return model

    formats = []
    for one in save_and_prove(model, files, expected, rebuild_from_weights):
        formats.append(one)
        yield {"format": one.to_json()}
    write_text(files.readme, how_to_load(files, formats, code))
    yield {"summary": _summary(model), "notes": notes}


def _build(settings: Settings, job_folder: Path, splits: Splits) -> "keras.Model":
    from trialrun.models import build_model, compile_model

    model = build_model(settings.model, job_folder, splits.x_train)
    compile_model(model, settings.training, steps_per_epoch(splits, settings.training.batch_size))
    return model


def _restore(model: "keras.Model", state: TrialState) -> None:
    """Gives the model the variables of the trained trial."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    for kind, variables, arrays in (
        ("trainable", model.trainable_variables, state.trainable),
        ("non-trainable", model.non_trainable_variables, state.non_trainable),
        ("optimizer", model.optimizer.variables, state.optimizer),
    ):
        if len(variables) != len(arrays):
            raise ExportError(
                f"the model that the job's builder makes has {len(variables)} {kind} variables, the"
                f" trained one had {len(arrays)}"
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)


def _preprocessing(splits: Splits) -> dict[str, Any]:
    return {
        "scalers": scalers_to_json(splits.scalers),
        "class_names": list(splits.class_names),
        "feature_names": list(splits.feature_names),
        **({} if splits.encoder is None else {"columns": splits.encoder.to_json()}),
    }


def _logs(
    model: "keras.Model", splits: Splits, settings: Settings, metrics: Mapping[str, float]
) -> tuple[dict[str, float], list[str]]:
    """Keras's logs on the test set that a saved model must give too, and what is odd about them."""
    from trialrun.models import forgets_loss_arguments

    try:
        logs = evaluate(model, splits, settings.training.batch_size)
    except Exception as error:  # of the user's own test_step
        return {}, [
            f"metrics were not compared: Keras cannot evaluate the model: {in_short(error)}"
        ]
    logs = {name: float(np.asarray(value)) for name, value in logs.items() if np.ndim(value) == 0}
    odd = [
        f"{name} of the model is {logs.get(name.removeprefix('test_'))}, its trial's row says"
        f" {value}: it is random, or depends on what was evaluated before"
        for name, value in metrics.items()
        if not _is_ours(name, settings) and differs(logs.get(name.removeprefix("test_")), value)
    ]
    if forgets_loss_arguments(settings.training):
        logs = {name: value for name, value in logs.items() if not name.endswith("loss")}
    return logs, odd


def _is_ours(metric: str, settings: Settings) -> bool:
    """Whether a metric was computed from predictions, and not by Keras."""
    name = metric.removeprefix("test_")
    return name in ProbabilityScores._fields and name not in settings.training.logs


def _summary(model: "keras.Model") -> str:
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line), line_length=80)
    return "\n".join(lines)


if __name__ == "__main__":
    # Whatever libraries print goes to the log: standard output carries the answers alone.
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.stdin, _answers)
    _answers.close()
