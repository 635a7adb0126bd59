"""The exceptions of trialrun: what each means, and nothing else.

TrialrunError
├── InputError        what the user wrote or gave is wrong; the command line exits with 2
│   └── ModelError    ... in what all trials of a pack share, so that none of them can be trained
├── OutOfMemory       a pack does not fit into the memory of its device
├── CannotFuse        a pack cannot be one program of the wanted kind; the next engine is tried
│   └── CannotShare   ... because of a number that differs between its trials; it is split by it
├── DeviceError       a task sees other devices than the ones it was given
├── ClusterError      Ray cannot be started or reached
│   └── ClusterLost   ... any more; what was finished is in the run folder
├── FileError         the file system refuses: no space, no permission
├── TrackerError      MLflow or TensorBoard's files could not be written; the run is whole
├── RunLost           another driver has taken over the run folder
└── ExportError       a saved model does not give the predictions of the trained one
"""


class TrialrunError(Exception):
    """Base of every error that trialrun raises on purpose: one readable message."""


class InputError(TrialrunError):
    """The user's input is wrong. The message says where, what was found and what is allowed."""


class ModelError(InputError):
    """The model, or a setting that all trials of a pack share, is wrong: no trial of it will do."""


class OutOfMemory(TrialrunError):  # noqa: N818 - a reason to train fewer trials together
    """A pack does not fit into the memory of its device. Fewer trials at a time may.

    Args:
        message: What does not fit.
        max_trials: As many as would; None where that is not known.
    """

    def __init__(self, message: str, max_trials: int | None = None) -> None:
        super().__init__(message)
        self.max_trials = max_trials


class CannotFuse(TrialrunError):  # noqa: N818 - a reason to choose another engine, not a fault
    """A pack cannot be trained by one program, fused or mapped. The message says why."""


class CannotShare(CannotFuse):
    """Trials of a pack differ in a number that no program can be given. It says which.

    Made with a message alone, as Keras and TensorFlow make it again when they add a layer's name.

    Attributes:
        paths: Where the number stands in the settings, `("model", "args", "slope")`; several if it
            is one of them; empty if that is not known.
    """

    paths: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, message: str, paths: tuple[tuple[str, ...], ...]) -> "CannotShare":
        """The error about numbers at these paths."""
        error = cls(message)
        error.paths = paths
        return error


class DeviceError(TrialrunError):
    """A task sees other devices than the ones Ray gave it."""


class ClusterError(TrialrunError):
    """Ray cannot be started or reached. The message says what to do."""


class ClusterLost(ClusterError):  # noqa: N818 - what happened
    """Ray's head, or its part on the driver's machine, is gone. `resume` goes on with another."""


class FileError(TrialrunError):
    """A file cannot be written or read. The message names it, and what the system says."""


class TrackerError(TrialrunError):
    """MLflow, or the files of TensorBoard, could not be written. The run itself is whole."""


class RunLost(TrialrunError):  # noqa: N818 - what happened
    """Another driver has taken over the run folder, because this one gave no sign of life."""


class ExportError(TrialrunError):
    """A saved model, loaded again, does not behave as the trial that was trained."""
