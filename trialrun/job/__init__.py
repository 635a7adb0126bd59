"""What the user wrote: the job file, read, checked as a whole, and written back.

`load` is the door. The fields are in `spec` and its sections; `fields.Section` refuses a key that
is not among them, and `problems` finds the words for that, such as the key that was probably meant.
What must agree between fields is in `checks`, and what Keras's names mean in `keras_api`. Refuses
to import TensorFlow, and to run the user's code before a job is known to be right.
"""

from trialrun.job.data_spec import DataSpec
from trialrun.job.duration import Duration, read_duration
from trialrun.job.fields import REFERENCE_PATHS
from trialrun.job.keras_api.terms import Goal, Statistic
from trialrun.job.load import LoadedJob, dump_job, load_job, read_output, read_search
from trialrun.job.rounds_spec import (
    FIRST_FRESH_SEED,
    FRESH_SEEDS,
    BudgetSpec,
    ConfirmSpec,
    RaceSpec,
    RoundSpec,
    is_number,
    share_of,
)
from trialrun.job.search_spec import (
    ParameterSpec,
    Range,
    SearchSpec,
    ValueList,
    domains_in,
    may_hold_references,
    searched_paths,
)
from trialrun.job.spec import (
    JobSpec,
    ModelSpec,
    OutputSpec,
    ResourcesSpec,
    SelectSpec,
    Settings,
    settings_of,
)
from trialrun.job.training_spec import (
    EarlyStoppingSpec,
    ReduceLROnPlateauSpec,
    TrainingSpec,
    monitors_of,
)

__all__ = [
    "BudgetSpec",
    "ConfirmSpec",
    "FIRST_FRESH_SEED",
    "FRESH_SEEDS",
    "RaceSpec",
    "RoundSpec",
    "is_number",
    "share_of",
    "DataSpec",
    "Duration",
    "EarlyStoppingSpec",
    "Goal",
    "JobSpec",
    "LoadedJob",
    "ModelSpec",
    "OutputSpec",
    "ParameterSpec",
    "REFERENCE_PATHS",
    "Range",
    "ReduceLROnPlateauSpec",
    "ResourcesSpec",
    "SearchSpec",
    "SelectSpec",
    "Settings",
    "Statistic",
    "TrainingSpec",
    "ValueList",
    "domains_in",
    "may_hold_references",
    "searched_paths",
    "dump_job",
    "load_job",
    "monitors_of",
    "read_duration",
    "read_output",
    "read_search",
    "settings_of",
]
