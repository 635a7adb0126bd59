"""The exceptions of trialrun and the exit codes of its command: what each means.

TrialrunError
├── InputError        the user's input is wrong; the command line exits with 2
│   └── ModelError    ... in something that all trials of a pack share, so that none can be trained
├── OutOfMemory       a pack does not fit into the memory of its device
├── TrainingError     user code, Keras or TensorFlow raised something else while a pack was trained
├── CannotFuse        a pack cannot be trained by the wanted engine; the next engine is tried
│   └── CannotShare   ... because its trials differ in a number; the pack is split by that number
├── DeviceError       a task sees other devices than those that Ray gave it
├── ClusterError      Ray cannot be started or reached
│   └── ClusterLost   Ray was reached, but is gone; finished trials are in the run folder
├── FileError         a file cannot be written or read: no space, no permission
├── TrackerError      MLflow or TensorBoard files could not be written; the run is complete
├── RunLost           another driver has taken over the run folder
└── ExportError       a saved model does not behave as the trained one
"""

# Every exit code of the command `trialrun`; 0 is success.
EXIT_FAILED = 1  # some trials failed, a tracker could not be written, or the doctor found a problem
EXIT_WRONG_INPUT = 2  # the user's input is wrong, and nothing was trained
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: on this code, SLURM wrappers requeue the job
EXIT_CTRL_C = 130


class TrialrunError(Exception):
    """Base class of every error that trialrun raises on purpose, with one readable message."""


class InputError(TrialrunError):
    """The user's input is wrong. The message says where, what was found and what is allowed."""


class ModelError(InputError):
    """The model, or a setting that all trials of a pack share, is wrong; none can be trained."""


class OutOfMemory(TrialrunError):  # noqa: N818 - a reason to train fewer trials together
    """A pack does not fit into the memory of its device; fewer trials at a time may fit.

    Args:
        message: What does not fit.
        max_trials: How many trials would fit; None if that is unknown.
    """

    def __init__(self, message: str, max_trials: int | None = None) -> None:
        super().__init__(message)
        self.max_trials = max_trials


class TrainingError(TrialrunError):
    """User code, Keras or TensorFlow raised an error that trialrun did not expect.

    It takes the place of that error, which other processes may not be able to load.
    """


class CannotFuse(TrialrunError):  # noqa: N818 - a reason to choose another engine, not a fault
    """A pack cannot be trained by one program, fused or mapped. The message says why."""


class CannotShare(CannotFuse):
    """Trials of a pack differ in a number that cannot be an argument of a program.

    The constructor takes only a message, because Keras and TensorFlow construct the error again
    when they add a layer's name to its message.

    Attributes:
        paths: Where the settings hold the number, e.g. `("model", "args", "slope")`. Several paths
            if it may be any of them; empty if it is unknown.
    """

    paths: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, message: str, paths: tuple[tuple[str, ...], ...]) -> "CannotShare":
        """The error about numbers at these paths."""
        error = cls(message)
        error.paths = paths
        return error


class DeviceError(TrialrunError):
    """A task sees other devices than those that Ray gave it."""


class ClusterError(TrialrunError):
    """Ray cannot be started or reached. The message says what to do."""


class ClusterLost(ClusterError):  # noqa: N818 - what happened
    """Ray's head, or Ray on the driver's machine, is gone; `resume` can continue with another."""


class FileError(TrialrunError):
    """A file cannot be written or read. The message names it and gives the system's reason."""


class TrackerError(TrialrunError):
    """MLflow or TensorBoard files could not be written. The run itself is complete."""


class RunLost(TrialrunError):  # noqa: N818 - what happened
    """Another driver has taken over the run folder, because this one sent no heartbeat."""


class ExportError(TrialrunError):
    """A saved model could not be made, or does not behave as the trained one when loaded."""
