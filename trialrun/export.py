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
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from trialrun.errors import ExportError, TrialrunError
from trialrun.proof import SavedFormat, what_will_be_missing
from trialrun.saving import FORMATS, in_short
from trialrun.store import RunFolder

# Between two formats. A whole test set is predicted and evaluated a few times, on a CPU.
_PATIENCE_S = 3600.0
_COMMAND = (sys.executable, "-m", "trialrun.export")


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
                _COMMAND,
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
            line = self._next_line()
            try:
                answer = json.loads(line)
            except ValueError as error:
                raise ExportError(f"the export process answered {line!r}") from error
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


# Inside the process ------------------------------------------------------------------------------


def _serve(requests: IO[str], answers: IO[str]) -> None:
    """Warms up, then answers request by request."""
    os.nice(19)  # packs come first (Ray runs them at 15); at the end nobody else computes
    import keras

    from trialrun.save_trial import save_best, try_untrained

    for line in requests:
        request = json.loads(line)
        work = try_untrained if request.pop("what") == "try" else save_best
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


if __name__ == "__main__":
    # Whatever libraries print goes to the log: standard output carries the answers alone.
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.stdin, _answers)
    _answers.close()
