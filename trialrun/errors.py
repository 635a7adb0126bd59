"""The exceptions of trialrun: what each means, and nothing else.

TrialrunError
├── InputError        what the user wrote or gave is wrong; the command line exits with 2
├── CannotFuse        a pack cannot be one vectorised program; it is trained trial by trial
├── DeviceError       a task sees other devices than the ones it was given
├── ClusterError      Ray cannot be started or reached
└── ExportError       a saved model does not give the predictions of the trained one
"""


class TrialrunError(Exception):
    """Base of every error that trialrun raises on purpose: one readable message."""


class InputError(TrialrunError):
    """The user's input is wrong. The message says where, what was found and what is allowed."""


class CannotFuse(TrialrunError):  # noqa: N818 - a reason to choose another engine, not a fault
    """The trials of a pack cannot be trained as one vectorised program. The message says why."""


class DeviceError(TrialrunError):
    """A task sees other devices than the ones Ray gave it."""


class ClusterError(TrialrunError):
    """Ray cannot be started or reached. The message says what to do."""


class ExportError(TrialrunError):
    """A saved model, loaded again, does not behave as the trial that was trained."""
