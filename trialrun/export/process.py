"""The process that saves the best model and checks each of its formats.

It imports TensorFlow while packs are trained, tries saving with the untrained model, and saves the
trained one at the end. So the driver needs no TensorFlow, and a model is checked in a process that
has not trained it, as its users will load it. Every failure of the process becomes an answer: no
error, crash or endless wait in it harms the run's results.
"""

import base64
import contextlib
import json
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from trialrun.errors import ExportError, TrialrunError
from trialrun.export.check import SavedFormat, what_will_be_missing
from trialrun.export.formats import FORMATS
from trialrun.job.user_code.files import UserFiles, install_files
from trialrun.job.user_code.frames import told
from trialrun.messages import said_by
from trialrun.store import RunFolder
from trialrun.training.internals.lean_import import importing_tensorflow

# How long to wait for each format: a whole test set is predicted and evaluated a few times on a
# CPU.
_PATIENCE_S = 3600.0
_COMMAND = (sys.executable, "-m", "trialrun.export.process")


@dataclass(frozen=True, slots=True)
class SavedModel:
    """How the best model was saved, as plain data.

    Attributes:
        formats: Every format, whether it was proved or not.
        problem: What ended the saving early, or why there is no best model yet; empty if nothing
            did.
        notes: Remarks for the user.
        summary: Keras's summary of the model, as text.
    """

    formats: tuple[SavedFormat, ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()
    summary: str = ""

    @classmethod
    def lost(cls, problem: str, formats: Sequence[SavedFormat] = ()) -> "SavedModel":
        """The result if a problem ended the saving after some formats."""
        done = {saved_format.name for saved_format in formats}
        rest = (SavedFormat(name, "", False, problem) for name in FORMATS if name not in done)
        return cls((*formats, *rest), problem)

    @classmethod
    def not_yet(cls, reason: str) -> "SavedModel":
        """The result if there is no best model to save yet: nothing was tried."""
        return cls((), reason)

    @property
    def is_to_come(self) -> bool:
        """Whether there is no best model yet, so that nothing was lost."""
        return not self.formats and bool(self.problem)

    @property
    def is_proved(self) -> bool:
        """Whether some format, loaded again, gave the trained model (not only its architecture)."""
        return any(
            saved_format.is_proved and saved_format.name != ".json" for saved_format in self.formats
        )

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json about it."""
        return {
            "proved": self.is_proved,
            "problem": self.problem,
            "formats": [saved_format.to_json() for saved_format in self.formats],
            "notes": list(self.notes),
        }


class ExportProcess:
    """The process that saves and checks the best model; a context manager.

    Its methods may be called from any thread, one at a time.

    Args:
        log_file: The file to which TensorFlow's output goes.
        files: The user's files as they were when the run began, which it then works with.
        patience_s: How long to wait for an answer before the process is killed.
    """

    def __init__(self, log_file: Path, files: UserFiles, patience_s: float = _PATIENCE_S) -> None:
        self._log_file = log_file
        self._files = files
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
                start_new_session=True,  # Ctrl-C reaches only the driver, which ends this process
            )
        self._has_files = False
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(
            target=_pass_on, args=(self._process.stdout, self._lines), daemon=True
        ).start()

    def try_untrained(self, run: RunFolder, parameters: Mapping[str, Any], seed: int) -> list[str]:
        """Tries to save the untrained model of a variant.

        Args:
            run: The run folder; nothing is written there.
            parameters: Searched dotted path -> value of the variant.
            seed: The seed of the data for which the model is built.

        Returns:
            What cannot be saved, and why; empty if everything can.

        Raises:
            ExportError: The attempt itself failed.
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
            metrics: The `test_*` values of the trial's row.
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
        """The answers to a request as they come; raises ExportError if they end early."""
        request = {"what": what, "run": str(run.path), "parameters": dict(parameters), **details}
        try:
            if self._process.poll() is not None:  # it died in the attempt with the untrained model
                self._end()
                self._start()
            assert self._process.stdin is not None
            if not self._has_files:
                request["files"] = base64.b64encode(pickle.dumps(self._files)).decode()
                self._has_files = True
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ExportError(f"the export process cannot be reached: {said_by(error)}") from error
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
                f"the export process did not answer for {self._patience_s:g} s and was ended;"
                f" see {self._log_file}"
            ) from None
        if not line:
            code = self._process.wait()
            why = "killed, perhaps out of memory" if code == -9 else f"exit code {code}"
            raise ExportError(f"the export process ended early ({why}); see {self._log_file}")
        return line

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):  # there is a request that was never read
                    pipe.close()

    def __exit__(self, *_: object) -> None:
        self._end()


def _pass_on(lines: IO[str], to: "queue.SimpleQueue[str]") -> None:
    """Puts every line into the queue as it comes, and at the end an empty one."""
    with contextlib.suppress(ValueError):  # the pipe was closed, because the run was interrupted
        for line in lines:
            to.put(line)
    to.put("")


# Inside the process ------------------------------------------------------------------------------


def _serve(requests: IO[str], answers: IO[str]) -> None:
    """Imports TensorFlow, then answers one request after another."""
    # Lets packs, which Ray runs at 15, go first; at the end nothing else computes.
    os.nice(int(os.environ.get("RAY_worker_niceness", "15")) + 4)  # noqa: SIM112 - Ray's name
    with importing_tensorflow():
        import keras

        from trialrun.export.save import save_best, try_untrained

    for line in requests:
        request = json.loads(line)
        files = request.pop("files", None)
        work = try_untrained if request.pop("what") == "try" else save_best
        try:
            if files is not None:  # our own driver pickled them
                install_files(pickle.loads(base64.b64decode(files)))
            for answer in work(**request):
                answers.write(json.dumps(answer) + "\n")
                answers.flush()
        except Exception as error:
            if not isinstance(error, TrialrunError):
                import traceback

                traceback.print_exc()
            answers.write(json.dumps({"error": told(error)}) + "\n")
            answers.flush()
        keras.backend.clear_session()


if __name__ == "__main__":
    # What libraries print goes to the log, because standard output carries only the answers.
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.stdin, _answers)
    _answers.close()
