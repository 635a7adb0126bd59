"""trialrun: train every variant x seed of a Keras model, and learn which settings are better.

>>> import trialrun
>>> run = trialrun.run("jobs/medical_trial.yaml", overrides={"seeds": 50})  # doctest: +SKIP
>>> run.variants, run.best.load_model()  # doctest: +SKIP
"""

from trialrun.api import Best, Run, open_run, run
from trialrun.errors import (
    CannotFuse,
    ClusterError,
    DeviceError,
    ExportError,
    InputError,
    TrialrunError,
)
from trialrun.export.load import load_model

__all__ = [
    "Best",
    "CannotFuse",
    "ClusterError",
    "DeviceError",
    "ExportError",
    "InputError",
    "Run",
    "TrialrunError",
    "load_model",
    "open_run",
    "run",
]
