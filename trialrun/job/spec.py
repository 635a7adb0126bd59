"""The fields of a job: their types, limits and defaults, each section a frozen model.

What two fields must say about each other (a searched path, a selected metric) is checked in
`job.checks`, where the lines of the file are known.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from trialrun.job.data_spec import DataSpec
from trialrun.job.document import put
from trialrun.job.fields import (
    SEED_LIMIT,
    ReferenceText,
    Section,
    folder_of,
    is_int,
    word_or_int,
)
from trialrun.job.keras_api.logs import natural_goal
from trialrun.job.keras_api.terms import Goal, Statistic
from trialrun.job.search_spec import SearchSpec
from trialrun.job.tracking_uri import check_tracking_uri
from trialrun.job.training_spec import TrainingSpec
from trialrun.job.user_code.depends_on import DependsOn
from trialrun.messages import show


def _check_name(value: str) -> str:
    rest = value.replace("_", "").replace("-", "").replace(".", "")
    is_word = value.isascii() and (rest.isalnum() or not rest)
    if not (is_word and value[:1].isalnum() and len(value) <= 100):
        raise ValueError(
            "must be 1 to 100 letters, digits, '_', '-' and '.', beginning with a letter or digit,"
            f" got {show(value)}"
        )
    return value


def _check_seeds(value: object) -> object:
    if is_int(value):
        if not 1 <= value <= SEED_LIMIT:  # type: ignore[operator]
            raise ValueError(f"must be at least 1 and at most 2**32, got {value}")
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a count or a list of integers, got {show(value)}")
    if not value:
        raise ValueError("must not be empty: each variant needs at least one seed")
    seen = set()
    for seed in value:
        if not is_int(seed) or not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"must be integers from 0 to 2**32 - 1, got {show(seed)}")
        if seed in seen:
            raise ValueError(f"must be distinct, got {seed} twice")
        seen.add(seed)
    return tuple(value)


_LEAST_SHARE = 0.0001


def _check_gpus(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 < value < _LEAST_SHARE:  # type: ignore[operator]
        raise ValueError(
            f"must be 0 or at least {_LEAST_SHARE}, the smallest share of a GPU that Ray gives, got"
            f" {show(value)}"
        )
    if value == "auto" or (is_number and 0 <= value <= 1):  # type: ignore[operator]
        return value
    raise ValueError(
        f"must be 'auto' or a number from 0 to 1, the share of a GPU that each pack gets,"
        f" got {show(value)}"
    )


_OF_EACH_MACHINE = frozenset(("PATH", "PYTHONPATH", "PYTHONHOME", "CUDA_VISIBLE_DEVICES", "TMPDIR"))
_PREFIXES_OF_EACH_MACHINE = ("RAY_", "LD_")


def _check_variable(value: str) -> str:
    name = value.removeprefix("_")
    if not (name.isascii() and name.isidentifier()):
        raise ValueError(f"must be names of environment variables, got {show(value)}")
    if value in _OF_EACH_MACHINE or value.startswith(_PREFIXES_OF_EACH_MACHINE):
        raise ValueError(
            f"must not hold {value}: each worker needs its own, which Ray and the system set"
        )
    return value


VariableName = Annotated[str, AfterValidator(_check_variable)]


def _check_shard(value: object) -> object:
    number, slash, count = value.partition("/") if isinstance(value, str) else ("", "", "")
    are_numbers = slash and all(
        n.isascii() and n.isdecimal() and len(n) < 9 for n in (number, count)
    )
    if not (are_numbers and 1 <= int(number) <= int(count)):
        raise ValueError(f"must be I/N, such as 2/8 for the second of eight, got {show(value)}")
    return value


def _check_selection_metric(value: str) -> str:
    if value.startswith("val_"):
        return value
    reason = "variants are selected only by validation numbers"
    bare = value.removeprefix("test_").removeprefix("train_")
    raise ValueError(f"must be a validation metric, got {value!r}: {reason}; try 'val_{bare}'")


def _beside_job(path: str, info: ValidationInfo) -> str:
    """The path, which becomes absolute if the job's folder is known."""
    folder = folder_of(info)
    return path if folder is None else str(folder / path)


class ModelSpec(Section):
    """The model that is trained: the function that builds it and its arguments."""

    builder: ReferenceText = "trialrun.models:mlp"
    """The function that returns the `keras.Model`; it is called with `args`.

    Allowed: `module:function`, or `file.py:function` with the path starting at the job's folder.
    Example: `mine.py:my_model`.
    """
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the builder.

    Allowed: a mapping. Example: `{units: [32, 64], activation: tanh}`.
    """
    depends_on: DependsOn = ()
    """Files that the builder, or a function that `training` names, needs in ways that its source
    code does not show, as in `data.depends_on`.

    Allowed: a list of paths and patterns that start at the job's folder; a folder stands for all of
    its files. Example: `[other.csv]`.
    """


class SelectSpec(Section):
    """How the winner is selected: by a statistic, over seeds, of a validation metric."""

    metric: Annotated[str, AfterValidator(_check_selection_metric)] = "val_loss"
    """The validation metric that variants are ranked by.

    Allowed: `val_loss`, or `val_` and a metric that is logged; never a test metric. Example:
    `val_accuracy`.
    """
    goal: Goal = Field(default_factory=lambda fields: natural_goal(fields["metric"]) or "minimize")
    """Whether a smaller or a larger value is better. If it is not given, it follows from the
    metric's name; it must be given where no name tells.

    Example: `maximize`.
    """
    statistic: Statistic = "mean"
    """How the values of a variant's seeds become one number: `iqm` is the interquartile mean,
    `confidence_bound` the worse end of the mean's 95% interval: a variant whose seeds scatter
    must be better on average to win.

    Example: `median`.
    """

    @field_validator("goal")
    @classmethod
    def _check_goal(cls, goal: Goal, info: ValidationInfo) -> Goal:
        metric = info.data.get("metric")
        natural = natural_goal(metric or "")
        if natural is not None and goal != natural:
            raise ValueError(f"must be {natural!r} for {metric}, got {goal!r}")
        return goal


class ResourcesSpec(Section):
    """What a run may use. `auto` uses what the machine or the cluster has."""

    gpus: Annotated[Literal["auto"] | float, BeforeValidator(_check_gpus)] = "auto"
    """What each pack is given: 1 GPU, a share of one if packs are to share it, or 0 for the
    CPU. `auto` is 1 where there are any.

    Allowed: `auto`, or a number from 0 to 1. Example: `0.5`.
    """
    accelerator_type: Annotated[str, Field(min_length=1)] | None = None
    """The kind of GPU that packs are sent to, in Ray's words. Example: `A100`."""
    cpus: Annotated[Literal["auto"] | int, word_or_int("auto", 1)] = "auto"
    """CPU cores of each pack. `auto` is 1 where a GPU computes, else what the smallest machine has,
    at most 4.

    Allowed: `auto`, or an integer of at least 1. Example: `1`.
    """
    max_trials_per_pack: Annotated[Literal["auto"] | int, word_or_int("auto", 1)] = "auto"
    """The most trials that one task trains together. `auto` is 512 where one thread trains a pack,
    as with a GPU, else 128 for each thread, and less where memory is short.

    Allowed: `auto`, or an integer of at least 1. Example: `64`.
    """
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a pack is tried again whose machine or process was lost. Example: `5`."""
    stall_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1800.0
    """A pack whose worker sends no heartbeat for so many seconds is stopped and tried again.

    Example: `600.0`.
    """
    grace_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0
    """Seconds that an interrupted run waits for checkpoints. Example: `60`."""
    env: Annotated[tuple[VariableName, ...], Field(strict=False)] = ()
    """Environment variables that the job's code reads. They are given to all workers with the
    values that they have where the job is started, and recorded in `environment.json`: the value
    itself, or its hash if the name looks like that of a secret.

    Allowed: a list of names. Example: `[DATA_ROOT]`.
    """
    shard: Annotated[str, BeforeValidator(_check_shard)] | None = None
    """Which of the job's trials this run trains.

    Allowed: `I/N`, the I-th of N shards. Example: `2/8`.
    """


class OutputSpec(Section):
    """What a run writes besides its results: logs of packs, trackers and metrics."""

    keep_logs: bool = False
    """Whether what each pack's process prints is kept in `logs/`.

    Of packs that fail it always is. Example: `true`.
    """

    tensorboard: bool = False
    """Whether `tensorboard/` is written into the run folder. Example: `true`."""
    mlflow: Annotated[str, AfterValidator(check_tracking_uri)] | None = None
    """Where MLflow keeps the run. A SQLite file lies beside the job file.

    Allowed: the address of an MLflow server (`http://host:5000`) or database
    (`sqlite:///mlflow.db`), without a password. Example: `sqlite:///mlflow.db`.
    """
    prometheus: Annotated[str, Field(min_length=1), AfterValidator(_beside_job)] | None = None
    """A text file of metrics of the running run, which Prometheus's node exporter collects.

    Allowed: a path, from the job's folder on; its folder must exist. Example: `medical_trial.prom`.
    """


class JobSpec(Section):
    """A whole job. Every field except the name has a default."""

    name: Annotated[str, AfterValidator(_check_name)]
    """The name of the job, and of the folder of its runs: `runs/<name>/`.

    Allowed: 1 to 100 letters, digits, `_`, `-` and `.`, the first a letter or digit. Example:
    `medical_trial`.
    """
    data: DataSpec = Field(default_factory=DataSpec)
    """Where the data comes from and how it is prepared. Example: `{scaling: standard}`."""
    model: ModelSpec = Field(default_factory=ModelSpec)
    """What is trained. Example: `{builder: "mine.py:my_model"}`."""
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    """How it is trained. Example: `{epochs: 50, batch_size: 32}`."""
    seeds: Annotated[int | tuple[int, ...], BeforeValidator(_check_seeds)] = 5
    """The seeds of every variant: a count n means 0, 1, ... n - 1.

    Allowed: an integer of at least 1, or a list of distinct integers of at least 0. Example:
    `[3, 14, 15]`.
    """
    search: SearchSpec = Field(default_factory=SearchSpec)
    """Which variants there are. Without it there is one.

    Example: `{parameters: {training.batch_size: {values: [16, 32]}}}`.
    """
    select: SelectSpec = Field(default_factory=SelectSpec)
    """Which variant wins. Example: `{metric: val_accuracy}`."""
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)
    """What the run may use. Example: `{gpus: 0}`."""
    output: OutputSpec = Field(default_factory=OutputSpec)
    """What a run writes besides its results: logs of packs, and trackers.

    Example: `{tensorboard: true}`.
    """

    @field_validator("select", mode="before")
    @classmethod
    def _fill_goal(cls, select: object, info: ValidationInfo) -> object:
        """Fills in the goal that follows from `training`, even if the metric's name is not enough.

        Otherwise the goal follows from the name, or is missing.
        """
        training = info.data.get("training")
        if training is None or not isinstance(select, Mapping) or "goal" in select:
            return select
        goal = training.known_goal_of(str(select.get("metric", "val_loss")))
        return select if goal is None else {**select, "goal": goal}

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of every variant: a count n means 0, 1, ... n - 1."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def num_seeds(self) -> int:
        """How many trials a variant has."""
        return self.seeds if isinstance(self.seeds, int) else len(self.seeds)


class Settings(NamedTuple):
    """The sections that make a trial what it is."""

    data: DataSpec
    model: ModelSpec
    training: TrainingSpec

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Patterns of the files that the functions need beside their code."""
        return (*self.data.depends_on, *self.model.depends_on)

    @property
    def references(self) -> tuple[str, ...]:
        """References to all functions of the user: generator, builder, callbacks and own terms."""
        generator = () if self.data.generator is None else (self.data.generator,)
        training = self.training
        return (*generator, self.model.builder, *training.callbacks, *training.own_references)


def settings_of(
    job: JobSpec, parameters: Mapping[str, Any], context: Mapping[str, Any] | None = None
) -> Settings:
    """The job's settings, with values replaced at dotted paths.

    Args:
        job: The job; it is not changed.
        parameters: Dotted path -> value, e.g. `{"training.learning_rate": 1e-3}`.
        context: `{"folder": ...}`, if references are to be checked too.

    Raises:
        pydantic.ValidationError: A value is outside its limits.
        InputError: A value along a path is no mapping.
    """
    changed: dict[str, Any] = {}
    for path, value in parameters.items():
        section, *keys = path.split(".")
        raw = changed[section] if section in changed else getattr(job, section).model_dump()
        if section == "training" and len(keys) > 1 and keys[0] in _TERMS:
            raw = raw | {keys[0]: _as_mapping(raw[keys[0]])}
        changed[section] = put(raw, tuple(keys), value)
    sections: dict[str, Any] = {
        name: type(getattr(job, name)).model_validate(changed[name], context=context)
        if name in changed
        else getattr(job, name)
        for name in Settings._fields
    }
    return Settings(**sections)


# Fields that may be a name alone, which stands for a mapping with this `name`.
_TERMS = ("optimizer", "loss", "learning_rate_schedule")


def _as_mapping(term: Any) -> Any:
    if term is None:
        return {}
    return {"name": term} if isinstance(term, str) else term
