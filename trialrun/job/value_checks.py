"""What is wrong with the values that a search tries, each put into the job's settings."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from trialrun.errors import InputError
from trialrun.job.conditions import Conditions
from trialrun.job.data_checks import check_header, check_orders
from trialrun.job.data_spec import DataSpec
from trialrun.job.document import KeyPath, canonical_json
from trialrun.job.fields import Section
from trialrun.job.problems import Problem, dotted, to_problems
from trialrun.job.search_spec import SearchSpec, ValueList, may_hold_references
from trialrun.job.spec import JobSpec, Settings, settings_of
from trialrun.job.training_spec import TrainingSpec, monitors_of
from trialrun.job.variants_table import enumerated_rows, place_of_row, rows_by_value
from trialrun.messages import show, suggest

# With so many contexts and values together, not every value is tried in every context.
_MAX_TRIED = 1000


def check_values(
    job: JobSpec, conditions: Conditions, path: str, folder: Path, *, others_logs: bool
) -> Iterator[Problem]:
    """Problems of the values to try: one makes a wrong variant, or two make the same variant.

    Each value is tried with the values of other parameters under which it is searched; a value of
    a table that is wrong by itself is tried in its rows.

    Args:
        job: The job.
        conditions: Of its search.
        path: The searched parameter.
        folder: The folder to which paths of the user's files are relative.
        others_logs: Whether the model may log values that `training` does not name.
    """
    candidates = list(_candidates(job.search, path))
    num_contexts = max(1, _MAX_TRIED // len(candidates))
    first: dict[str, Any] = {}
    for around in conditions.contexts(path)[:num_contexts]:
        for value, problem_path, row in candidates:
            settings, messages = _try(job, conditions, path, {**around, path: value}, folder)
            if settings is None and row is not None:
                settings, messages = _try_in_row(job, path, row, folder)
            yield from (Problem(problem_path, message) for message in messages)
            if settings is None:
                continue
            for field, message in wrong_monitors(settings.training, others_logs):
                if dotted(field).startswith(path):
                    yield Problem(problem_path, message)
            if path.startswith("data."):
                wrong_columns = check_columns(settings.data)
                yield from (Problem(problem_path, problem.message) for problem in wrong_columns)
            key = _key(*settings)
            if key in first:
                both = f"{path}: {show(first[key])} and {show(value)} are the same"
                remedy = "leave one out" if job.search.rows is None else "write both alike"
                yield Problem(problem_path, f"{both}; {remedy}")
            first.setdefault(key, value)


def check_columns(data: DataSpec) -> Iterator[Problem]:
    """Columns and arrays that a data file lacks, and orders that hold a category twice."""
    for field, message in (*check_orders(data), *check_header(data)):
        yield Problem(("data", field), message)


def place_of(search: SearchSpec, path: str) -> KeyPath:
    """Where a searched parameter stands in the job."""
    return ("search", "from") if search.rows is not None else ("search", "parameters", path)


def check_rows(job: JobSpec, folder: Path) -> Iterator[Problem]:
    """Rows of a table that are wrong or the same variant, where each value by itself is right."""
    checked: dict[tuple[str, str], tuple[str, list[str]]] = {}
    first: dict[tuple[str, ...], int] = {}
    for index, row in enumerated_rows(job.search.rows or ()):
        keys = []
        for section in Settings._fields:
            part = _of_section(section, row)
            known = (section, canonical_json(part))
            if known not in checked:
                settings, messages = _settings_or_problems(job, section, part, folder)
                checked[known] = _key(*settings) if settings else "", messages
            key, messages = checked[known]
            keys.append(key)
            for message in messages:
                yield Problem(place_of_row(index), f"the values of a row do not fit: {message}")
        number = first.setdefault(tuple(keys), index) + 1
        if all(keys) and number != index + 1:
            message = f"row {index + 1} of search.from is the same variant as row {number}"
            hint = "an empty cell stands for the job's own value; leave one out"
            yield Problem(place_of_row(index), f"{message}; {hint}")


def _of_section(section: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row that belong to one section: those of the others do not change it."""
    return {path: value for path, value in row.items() if path.startswith(f"{section}.")}


def _key(*sections: Section) -> str:
    return canonical_json([section.model_dump() for section in sections])


class _Candidate(NamedTuple):
    """A value to try, where it stands in the job, and of a table the first row that has it."""

    value: Any
    place: KeyPath
    row: Mapping[str, Any] | None = None


def _candidates(search: SearchSpec, path: str) -> Iterator[_Candidate]:
    """The values to check: all that are listed, or both ends of a range."""
    parameter = search.domains[path]
    if search.rows is not None:
        for index in rows_by_value(search.rows, path):
            row = search.rows[index]
            yield _Candidate(row[path], (*place_of_row(index), path), row)
        return
    place = place_of(search, path)
    if isinstance(parameter, ValueList):
        for position, value in enumerate(parameter.values):
            yield _Candidate(value, (*place, "values", position))
    else:
        for name, value in (("min", parameter.min), ("max", parameter.max)):
            is_int = parameter.distribution == "int_uniform"
            yield _Candidate(value if is_int else float(value), (*place, name))


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


def _try_in_row(
    job: JobSpec, path: str, row: Mapping[str, Any], folder: Path
) -> tuple[Settings | None, list[str]]:
    """The settings with a value beside those of its row, or None and what is wrong with it.

    What is wrong without the value is told where the others are checked.
    """
    around = _of_section(path.split(".")[0], row)
    settings, messages = _settings_or_problems(job, path, around, folder)
    others = {other: value for other, value in around.items() if other != path}
    wrong_anyway = _settings_or_problems(job, path, others, folder)[1] if others else []
    return settings, [message for message in messages if message not in wrong_anyway]


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
