"""What is wrong with a job as a whole: in fields that must agree, in what is searched.

Each thing is a `Problem`, found without importing TensorFlow or running the user's code; where it
stands in the file, `job.load` knows.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from trialrun.job.condition_checks import check_conditions
from trialrun.job.conditions import Conditions
from trialrun.job.document import KeyPath
from trialrun.job.fields import CALLBACKS_PATH, REFERENCE_PATHS
from trialrun.job.keras_api.optimizers import ignores_learning_rate
from trialrun.job.problems import Problem, known_keys
from trialrun.job.rounds_checks import check_rounds
from trialrun.job.search_spec import Range, SearchSpec, ValueList
from trialrun.job.spec import JobSpec, Settings
from trialrun.job.user_code.builder_source import may_compile
from trialrun.job.user_code.functions import check_reference, portable_reference
from trialrun.job.value_checks import (
    check_columns,
    check_rows,
    check_values,
    place_of,
    wrong_monitors,
)
from trialrun.job.variants_table import check_table, place_of_row
from trialrun.messages import listed, show, suggest

_MAX_TRIALS = 10_000_000
_CHANGES_LOSS = re.compile(r"training\.(loss|loss_weights)(\.|$)")


def check_whole(job: JobSpec, folder: Path) -> Iterator[Problem]:
    """The problems of a job in which each field by itself is right.

    Args:
        job: The job.
        folder: The folder to which paths of the user's files are relative.
    """
    yield from _check_arguments(job, folder)
    yield from _check_callbacks(job, folder)
    yield from check_columns(job.data)
    others_logs = _may_have_other_logs(job, folder)
    yield from _check_selection(job, others_logs)
    yield from _check_schedule(job)
    yield from (Problem(*wrong) for wrong in wrong_monitors(job.training, others_logs))
    if wrong_conditions := check_conditions(job.search.parameters):
        yield from wrong_conditions  # they leave open which variants there are
        return
    conditions = Conditions.of(job.search.domains)
    num_combinations = _num_variants(job.search, conditions)
    yield from _check_search(job.search, num_combinations)
    yield from check_rounds(job)
    yield from _check_size(job, num_combinations)
    wrong_values = list(_check_domains(job, conditions, folder, others_logs))
    yield from wrong_values or check_rows(job, folder)


def _check_domains(
    job: JobSpec, conditions: Conditions, folder: Path, others_logs: bool
) -> Iterator[Problem]:
    for path in job.search.domains:
        reason = _why_not_searched(path, job)
        if reason:
            yield Problem(place_of(job.search, path), reason)
        else:
            yield from check_values(job, conditions, path, folder, others_logs=others_logs)


def _may_have_other_logs(job: JobSpec, folder: Path) -> bool:
    """Whether the model may log something else than the job's loss and metrics.

    If so, the logs are checked with the built model, before it is trained, in
    `training.model.built`.
    """
    searched = job.search.domains.get("model.builder")
    builders = searched.values if isinstance(searched, ValueList) else ()
    if searched is None or job.search.may_be_absent("model.builder"):
        builders = (*builders, job.model.builder)
    return bool(job.training.callbacks) or any(may_compile(builder, folder) for builder in builders)


def _check_arguments(job: JobSpec, folder: Path) -> Iterator[Problem]:
    """Arguments that generator and builder lack or do not take, as far as their source shows."""
    for reference_path in REFERENCE_PATHS:
        section, field = reference_path.split(".")
        if {reference_path, f"{section}.args"} & job.search.domains.keys():
            continue  # it differs between variants
        reference = getattr(getattr(job, section), field)
        if reference is None:
            continue  # the data comes from a file
        parameters = check_reference(reference, folder)
        if parameters is None:
            continue
        shown = portable_reference(reference)
        given = _given_arguments(job, section)
        for name in parameters.required:
            if name not in given:
                message = f"{shown} needs an argument {name!r}; give it in {section}.args"
                yield Problem((section, field), message)
            elif name not in getattr(job, section).args:
                for place, how in _left_out(job.search, f"{section}.args.{name}", given[name]):
                    message = f"{shown} needs an argument {name!r}, which {how}"
                    yield Problem(place, f"{message}; give it in {section}.args too")
        for name, path in given.items():
            if name not in parameters.names and not parameters.takes_any:
                hint = suggest(name, parameters.names)
                yield Problem(path, f"{shown} takes no argument {name!r}; {hint}")


def _check_callbacks(job: JobSpec, folder: Path) -> Iterator[Problem]:
    """Problems of the user's callbacks: only `model.fit` calls them, and they get no arguments."""
    training = job.training
    if training.callbacks and training.engine not in ("auto", "keras"):
        yield Problem(
            ("training", "engine"),
            "training.engine must be 'auto' or 'keras', because only model.fit calls"
            f" {CALLBACKS_PATH}, got {show(training.engine)}",
        )
    for position, reference in enumerate(training.callbacks):
        parameters = check_reference(reference, folder)
        if parameters is not None and parameters.required:
            message = (
                f"needs an argument {parameters.required[0]!r}, but callbacks are made without"
                " arguments; give it a default"
            )
            path: KeyPath = (*CALLBACKS_PATH.split("."), position)
            yield Problem(path, f"{portable_reference(reference)} {message}")


def _given_arguments(job: JobSpec, section: str) -> dict[str, KeyPath]:
    """Name of an argument that a function is called with -> the path where the job gives it."""
    prefix = f"{section}.args."
    given: dict[str, KeyPath] = {"seed": (section, "generator")} if section == "data" else {}
    for name in getattr(job, section).args:
        given[name] = (section, "args", name)
    for path in job.search.domains:
        name = path.removeprefix(prefix).split(".")[0]
        if path.startswith(prefix) and name:
            given[name] = place_of(job.search, path)
    return given


def _left_out(search: SearchSpec, argument: str, place: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Where a searched argument is absent from variants, and how that comes.

    Args:
        search: The search.
        argument: The argument's dotted path.
        place: The place in the job that gives it.
    """
    if search.rows is not None and place == place_of(search, argument):
        for index, row in enumerate(search.rows):
            if not any(f"{path}.".startswith(f"{argument}.") for path in row):
                yield place_of_row(index), "this row leaves out"
    elif place[0] == "search" and search.parameters[str(place[-1])].when:
        yield (*place, "when"), "`when` leaves out elsewhere"


def _check_selection(job: JobSpec, others_logs: bool) -> Iterator[Problem]:
    metric = job.select.metric
    goals = {f"val_{name}": goal for name, goal in job.training.logs.items()}
    known = list(goals)
    if (natural := goals.get(metric)) not in (None, job.select.goal):
        message = f"must be {natural!r} for {metric}, got {job.select.goal!r}"
        yield Problem(("select", "goal"), f"select.goal {message}")
    if metric not in known and not others_logs:
        hint = f"training.loss and training.metrics give {', '.join(known)}"
        yield Problem(("select", "metric"), f"select.metric: {metric!r} is not logged; {hint}")
    elif "goal" not in job.select.model_fields_set and metric != "val_loss":
        message = f"is missing, and whether larger or smaller values of {metric} are better is"
        yield Problem(
            ("select", "metric"), f"select.goal {message} not known; give minimize or maximize"
        )
    if job.select.statistic == "confidence_bound" and job.num_seeds < 2:
        message = "select.statistic: confidence_bound needs at least 2 seeds, got 1; give more"
        yield Problem(("select", "statistic"), f"{message} seeds or another statistic")
    searched = [path for path in job.search.domains if _CHANGES_LOSS.match(path)]
    if metric == "val_loss" and searched:
        message = f"select.metric: val_loss cannot be compared, because {searched[0]} is searched"
        yield Problem(("select", "metric"), f"{message}; select by a metric such as val_accuracy")


def _check_schedule(job: JobSpec) -> Iterator[Problem]:
    path = "training.learning_rate"
    schedule = job.training.learning_rate_schedule
    is_searched = any(other.startswith(f"{path}_schedule") for other in job.search.domains)
    if path in job.search.domains and ignores_learning_rate(schedule) and not is_searched:
        message = (
            f"{path!r} has no effect, because {path}_schedule has values of its own; leave it out"
        )
        yield Problem(place_of(job.search, path), message)


def _check_search(search: SearchSpec, num_combinations: float) -> Iterator[Problem]:
    problem_path: KeyPath = ("search", "num_variants")
    yield from check_table(search)
    if search.batch is not None and search.method != "tpe":
        message = f"search.batch is only for method: tpe, got method: {search.method}"
        yield Problem(("search", "batch"), message)
    if search.method not in ("random", "tpe"):
        if search.num_variants is not None:
            yield Problem(
                problem_path,
                "search.num_variants is only for method: random and method: tpe; a grid and a"
                " table take all variants",
            )
        for path, parameter in search.parameters.items():
            if isinstance(parameter, Range):
                message = f"{path}: a grid cannot take a range; list `values` or use method: random"
                yield Problem(("search", "parameters", path), f"{message} or tpe")
        return
    if search.num_variants is None:
        what = "draw" if search.method == "random" else "propose"
        yield Problem(
            problem_path, f"search.num_variants is missing; give the number of variants to {what}"
        )
    elif num_combinations < search.num_variants:
        message = f"must be at most {num_combinations}, the number of different variants"
        yield Problem(problem_path, f"search.num_variants {message}, got {search.num_variants}")
    elif search.method == "tpe" and search.num_variants <= search.batch_size:
        message = f"must be more than the first batch of {search.batch_size}, which is drawn at"
        yield Problem(
            problem_path,
            f"search.num_variants {message} random, got {search.num_variants}; give more, or"
            " method: random",
        )


def _check_size(job: JobSpec, num_combinations: float) -> Iterator[Problem]:
    num_variants = job.search.num_variants or num_combinations
    num_seeds = job.num_seeds
    if math.inf > num_variants * num_seeds > _MAX_TRIALS:
        yield Problem(
            ("search",) if num_variants > num_seeds else ("seeds",),
            f"the job has {num_variants:,} variants x {num_seeds:,} seeds; a run may have at most"
            f" {_MAX_TRIALS:,} trials",
        )


def _num_variants(search: SearchSpec, conditions: Conditions) -> float:
    """How many different variants there can be; infinite for a continuous range."""
    if search.rows is not None:
        return len(search.distinct_rows)
    num_combinations = conditions.num_combinations()
    assert num_combinations is not None, "conditions that cannot be counted are refused"
    return num_combinations


def _why_not_searched(path: str, job: JobSpec) -> str:
    """Why a dotted path cannot be searched; empty if it can."""
    section, _, rest = path.partition(".")
    field, *inner = rest.split(".")
    sections = Settings._fields
    if section not in sections or not rest:
        homes = [f"{name}.{path}" for name in sections if path in known_keys((name,))]
        allowed = f"allowed: {', '.join(f'{name}.*' for name in sections)}"
        hint = f"did you mean {listed(homes, 'or')}?" if homes else allowed
        return f"{path!r} cannot be searched; {hint}"
    fields = known_keys((section,))
    if field not in fields:
        hint = suggest(field, fields)
        return f"{path!r} cannot be searched: {section} has no field {field!r}; {hint}"
    if path in _SAME_IN_EVERY_VARIANT:
        return f"{path!r} cannot be searched: it must be the same in every variant"
    if inner and (known := known_keys((section, field))):
        if inner[0] not in known:
            hint = suggest(inner[0], known)
            return f"{path!r} cannot be searched: {field} has no field {inner[0]!r}; {hint}"
    elif inner and field not in _MAPPINGS:
        return f"{path!r} cannot be searched: {section}.{field} is not a mapping"
    if not all(inner):
        return f"{path!r} cannot be searched: a name is missing between its dots"
    around = [other for other in job.search.domains if path.startswith(f"{other}.")]
    return f"{path!r} lies inside {around[0]!r}, which is searched too" if around else ""


# Fields that decide the columns of the tables, and choices on which no result may depend.
_SAME_IN_EVERY_VARIANT = (
    *(
        f"training.{name}"
        for name in (
            "metrics",
            "weighted_metrics",
            "engine",
            "check_engine",
            "checkpoint_every",
            "callbacks",
        )
    ),
    # Files, and what is predicted: results on different data do not compare variants.
    *(f"data.{name}" for name in ("csv", "npz", "parquet", "test", "target", "task")),
    *(f"data.{name}" for name in ("separator", "decimal", "thousands", "encoding")),
    "data.missing_values",
)
_MAPPINGS = (
    "args",
    "optimizer",
    "learning_rate_schedule",
    "loss",
    "loss_weights",
    "class_weight",
)
