"""What is wrong with the values that a search tries, each put into the job's settings."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trialrun.errors import InputError
from trialrun.job.conditions import Conditions
from trialrun.job.data_checks import check_header
from trialrun.job.document import KeyPath, canonical_json
from trialrun.job.problems import Problem, dotted, to_problems
from trialrun.job.search_spec import Range, ValueList, may_hold_references
from trialrun.job.spec import JobSpec, Settings, settings_of
from trialrun.job.training_spec import TrainingSpec, monitors_of
from trialrun.messages import show, suggest

# With so many contexts and values together, not every value is tried in every context.
_MAX_TRIED = 1000


def check_values(
    job: JobSpec, conditions: Conditions, path: str, folder: Path, *, others_logs: bool
) -> Iterator[Problem]:
    """Problems of the values to try: one makes a wrong variant, or two make the same variant.

    Each value is tried with the values of other parameters under which it is searched.

    Args:
        job: The job.
        conditions: Of its search.
        path: The searched parameter.
        folder: The folder to which paths of the user's files are relative.
        others_logs: Whether the model may log values that `training` does not name.
    """
    candidates = list(_candidates(path, conditions.parameters[path]))
    num_contexts = max(1, _MAX_TRIED // len(candidates))
    first: dict[str, Any] = {}
    for around in conditions.contexts(path)[:num_contexts]:
        for value, problem_path in candidates:
            settings, messages = _try(job, conditions, path, {**around, path: value}, folder)
            yield from (Problem(problem_path, message) for message in messages)
            if settings is None:
                continue
            for field, message in wrong_monitors(settings.training, others_logs):
                if dotted(field).startswith(path):
                    yield Problem(problem_path, message)
            if path.startswith("data."):
                wrong_columns = check_header(settings.data)
                yield from (Problem(problem_path, message) for _, message in wrong_columns)
            key = canonical_json([section.model_dump() for section in settings])
            if key in first:
                message = f"{show(first[key])} and {show(value)} are the same; leave one out"
                yield Problem(problem_path, f"{path}: {message}")
            first.setdefault(key, value)


def _candidates(path: str, parameter: ValueList | Range) -> Iterator[tuple[Any, KeyPath]]:
    """The values to check, each with its path: all that are listed, or both ends of a range."""
    parameter_path = ("search", "parameters", path)
    if isinstance(parameter, ValueList):
        for position, value in enumerate(parameter.values):
            yield value, (*parameter_path, "values", position)
    else:
        for name, value in (("min", parameter.min), ("max", parameter.max)):
            yield (
                (value if parameter.distribution == "int_uniform" else float(value)),
                (*parameter_path, name),
            )


def _try(
    job: JobSpec, conditions: Conditions, path: str, assignment: Mapping[str, Any], folder: Path
) -> tuple[Settings | None, list[str]]:
    """The settings with a value, or None and what is wrong with it.

    A value may need others that are active with it: a schedule needs its arguments. Then these are
    tried too. What is wrong with them, or without the value, is told where they are checked.
    """
    settings, messages = _settings_or_problems(job, path, assignment, folder)
    if settings is not None or not any(conditions.wanted.values()):
        return settings, messages
    others = {other: value for other, value in assignment.items() if other != path}
    others = conditions.completed(others, without=path)
    alone = {**others, path: assignment[path]}
    settings, messages = _settings_or_problems(job, path, alone, folder)
    completed = conditions.completed(alone)
    if settings is None and completed.keys() != alone.keys():
        settings, still_wrong = _settings_or_problems(job, path, completed, folder)
        messages = [message for message in messages if message in still_wrong]
    if settings is None and others:
        wrong_anyway = _settings_or_problems(job, path, others, folder)[1]
        messages = [message for message in messages if message not in wrong_anyway]
    return settings, messages


def _settings_or_problems(
    job: JobSpec, path: str, assignment: Mapping[str, Any], folder: Path
) -> tuple[Settings | None, list[str]]:
    context = {"folder": folder} if any(map(may_hold_references, assignment)) else None
    try:
        return settings_of(job, assignment, context), []
    except ValidationError as error:
        return None, [one.message for one in to_problems(error, around=(path.split(".")[0],))]
    except InputError as error:
        return None, [f"{path}: {error}"]


def wrong_monitors(training: TrainingSpec, others_logs: bool) -> Iterator[tuple[KeyPath, str]]:
    """Fields that monitor a value which is not logged, or whose better direction is unknown.

    Args:
        training: The section `training`.
        others_logs: Whether the model may log values that the section does not name.
    """
    known = [f"{part}{name}" for part in ("val_", "") for name in training.logs]
    for path, monitor in monitors_of(training):
        if monitor not in known and not others_logs:
            hint = f"{suggest(monitor, known)}; logged are {', '.join(known)}"
            yield path, f"{dotted(path)}: {monitor!r} is not logged; {hint}"
        elif training.known_goal_of(monitor) is None:
            yield (
                path,
                f"{dotted(path)}: it is not known whether larger or smaller values of {monitor!r}"
                " are better; let its name end in the name of a Keras metric or in _loss, such as"
                " my_accuracy",
            )
