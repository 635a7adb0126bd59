"""The texts of the page: what was asked, the winner's numbers, lost trials, environment."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trialrun.analysis.importance import Importance, NoImportance
from trialrun.analysis.run_summary import TrialProblem
from trialrun.analysis.variants import Leaderboard, ordered_metrics
from trialrun.job import domains_in, searched_paths
from trialrun.messages import counted, listed
from trialrun.report.format import (
    condition_text,
    cost_text,
    counts_text,
    duration_text,
    mean_sd_text,
    parameter_text,
    reason_of,
    short_names,
)
from trialrun.report.overview import Overview

_MAX_VALUES = 20
_MAX_HIGHLIGHTS = 5
_MAX_REASON = 240
_MAX_ERROR = 20_000
_SEED_OF_DATA = re.compile(r" \(seed \d+\)")
_SOURCES = ("generator", "csv", "parquet", "npz")


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and a text about it; `is_name` if the name is written like this in the job file."""

    name: str
    text: str
    is_name: bool = False


@dataclass(frozen=True, slots=True)
class ProblemGroup:
    """Trials that were lost for the same reason.

    Attributes:
        status: `diverged` or `failed`.
        num_trials: Number of trials.
        trials: Which trials: `v00: seeds 0, 1; v03: seed 4`.
        reason: The reason in one line.
        text: The whole error; empty if it is only that line.
    """

    status: str
    num_trials: int
    trials: str
    reason: str
    text: str


# The run ----------------------------------------------------------------------------------------


def run_facts(overview: Overview) -> list[str]:
    """The short facts under the title."""
    facts = [f"run {overview.folder.name}", counts_text(overview.counts)]
    summary = overview.summary or {}
    total_s = summary.get("timings_s", {}).get("total")
    if total_s:
        rate = summary["throughput"]["trials_per_s"]
        facts += [
            f"{duration_text(total_s)} in all",
            f"{rate:,.0f} trials/s" if round(rate) >= 1000 else f"{rate:.3g} trials/s",
        ]
    cost = summary.get("cost") or {}
    names = ("device_s", "lost_s", "compile_s")
    return [*facts, *filter(None, [cost_text(*(cost.get(name) for name in names))])]


# What was asked ---------------------------------------------------------------------------------


def question(job: Mapping[str, Any], board: Leaderboard) -> str:
    """The job as a question, made from its search, its seeds and its selection."""
    statistic = str(job.get("select", {}).get("statistic", "mean")).replace("_", " ")
    searched = list(domains_in(job.get("search", {})))
    searched = searched or searched_paths(variant.parameters for variant in board.variants)
    seeds = f"over {counted(len(_seeds(job)), 'seed')}" if _seeds(job) else "over its seeds"
    if not searched:
        return f"What {statistic} {board.metric} does the model reach {seeds}?"
    extreme = "lowest" if board.goal == "minimize" else "highest"
    names = list(short_names(searched).values())
    named = listed(names, max_names=_MAX_VALUES)
    what = named if len(names) == 1 else f"combination of {named}"
    return f"Which {what} gives the {extreme} {statistic} {board.metric} {seeds}?"


def asked(
    job: Mapping[str, Any], compiled_by_builder: Literal["all", "some", "none"] = "none"
) -> list[Fact]:
    """What was searched, with which seeds, model and data, as far as the job says it.

    Args:
        job: The resolved job.
        compiled_by_builder: Which models ignore the job's loss and optimizer.
    """
    search = job.get("search", {})
    facts = [
        Fact(path, _domain_text(domain), is_name=True)
        for path, domain in domains_in(search).items()
    ]
    if facts:
        facts.append(Fact("Search", _search_text(search)))
    if seeds := _seeds(job):
        facts.append(Fact("Seeds", _seeds_text(seeds)))
    return facts + [
        Fact(name, text)
        for name, text in (
            ("Data", _source_text(_fixed(job, "data"))),
            ("Model", _call_text(_fixed(job, "model"), "builder")),
            ("Training", _training_text(_fixed(job, "training"), compiled_by_builder)),
        )
        if text
    ]


def _domain_text(domain: Mapping[str, Any]) -> str:
    """A domain as text, with its condition: `16, 32; if model.args.depth is 2 or 3`."""
    return "; ".join(filter(None, [_values_text(domain), condition_text(domain.get("when", {}))]))


def _values_text(domain: Mapping[str, Any]) -> str:
    """Values as text: `0.0001, 0.0003, 0.001`, or `0.0001 to 0.1, log_uniform`."""
    if "values" in domain:
        texts = [parameter_text(value) for value in domain["values"]]
        num_more = len(texts) - _MAX_VALUES
        return ", ".join(texts[:_MAX_VALUES]) + (f" and {num_more} more" if num_more > 0 else "")
    if {"min", "max", "distribution"} <= domain.keys():
        ends = f"{parameter_text(domain['min'])} to {parameter_text(domain['max'])}"
        return f"{ends}, {domain['distribution']}"
    return parameter_text(domain)


def _search_text(search: Mapping[str, Any]) -> str:
    method = search.get("method", "grid")
    if method == "grid":
        return "grid: every combination"
    if method == "from":
        return f"a table of {counted(len(search.get('from', ())), 'row')}"
    count = search.get("num_variants")
    return f"{method}, {count} variants" if count else str(method)


def _seeds(job: Mapping[str, Any]) -> Sequence[int]:
    seeds = job.get("seeds", ())
    return range(seeds) if isinstance(seeds, int) else seeds


def _seeds_text(seeds: Sequence[int]) -> str:
    """Seeds as text: `20: 0 to 19`, or a list if they are not consecutive."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{len(seeds)}: {seeds[0]} to {seeds[-1]}"
    num_more = len(seeds) - _MAX_VALUES
    shown = ", ".join(map(str, seeds[:_MAX_VALUES]))
    return f"{len(seeds)}: {shown}" + (f" and {num_more} more" if num_more > 0 else "")


def _fixed(job: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A section without the fields that every variant searches: they only hold a default."""
    search = job.get("search", {})
    rows = search.get("from") or ()
    searched = {
        path
        for path, domain in domains_in(search).items()
        if not domain.get("when") and all(path in row for row in rows)
    }
    fields = {
        name: value
        for name, value in (job.get(section) or {}).items()
        if f"{section}.{name}" not in searched
    }
    if isinstance(args := fields.get("args"), Mapping):
        prefix = f"{section}.args"
        fields["args"] = {k: v for k, v in args.items() if f"{prefix}.{k}" not in searched}
    return fields


def _source_text(data: Mapping[str, Any]) -> str:
    """The data as text: `trialrun.datasets:medical_trial; scaling minmax, seed per_trial`."""
    source = next((name for name in _SOURCES if data.get(name) is not None), None)
    if source is None:
        return ""
    settings = _settings_text(data, ("scaling", "seed", "validation_split"))
    return f"{_call_text(data, source)}; {settings}" if settings else _call_text(data, source)


def _call_text(section: Mapping[str, Any], field: str) -> str:
    """A function and its arguments: `trialrun.models:mlp(units=[16, 32])`; empty if not given."""
    if section.get(field) is None:
        return ""
    args = section.get("args") or {}
    settings = ", ".join(f"{name}={parameter_text(value)}" for name, value in args.items())
    return f"{section[field]}({settings})" if settings else str(section[field])


def _training_text(training: Mapping[str, Any], compiled_by_builder: str) -> str:
    """The training as text: `optimizer adam, learning_rate 0.0001, ...`."""
    compiling = _settings_text(training, ("optimizer", "learning_rate", "loss"))
    if compiled_by_builder == "all":
        compiling = "optimizer and loss set by the model's builder"
    elif compiled_by_builder == "some":
        compiling += " (some models: set by their builder)"
    rest = _settings_text(training, ("batch_size", "epochs", "early_stopping"))
    return ", ".join(filter(None, [compiling, rest]))


def _settings_text(section: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(
        f"{name} {parameter_text(section[name])}" for name in names if section.get(name) is not None
    )


# The winner -------------------------------------------------------------------------------------


def highlights(board: Leaderboard) -> list[Fact]:
    """The winner's selection metric and its metrics on the test set."""
    if board.selection is None:
        return []
    names = [board.metric, *(name for name in ordered_metrics(board) if name.startswith("test_"))]
    measured = board.variants[0].metrics
    return [Fact(name, mean_sd_text(measured[name])) for name in names[:_MAX_HIGHLIGHTS]]


# Importance -------------------------------------------------------------------------------------


def importance_note(found: Importance | NoImportance, metric: str) -> str:
    """Why no figure shows the importance of parameters; empty if one does, or nobody expects it."""
    if isinstance(found, NoImportance):
        return f"Importance of the parameters: {found.reason}." if found.is_told else ""
    if found.is_clear:
        return ""
    return (
        f"Importance of the parameters: none separates the best {found.num_best} of"
        f" {found.num_variants:,} variants in {metric} from the others more clearly than luck does"
        " (PED-ANOVA, compared with shuffled results)."
    )


# Lost trials ------------------------------------------------------------------------------------


def group_problems(problems: Sequence[TrialProblem]) -> list[ProblemGroup]:
    """Lost trials grouped by reason, in the order in which the reasons first occur.

    The seed of a trial's data, which a generator's message names, makes no other reason.
    """
    by_reason: dict[tuple[str, str], list[TrialProblem]] = {}
    for problem in problems:
        key = problem.status, _SEED_OF_DATA.sub("", problem.error)
        by_reason.setdefault(key, []).append(problem)
    return [
        ProblemGroup(
            status=status,
            num_trials=len(trials),
            trials=_trials_text(trials),
            reason=_reason(status, error),
            text=_full_text(error),
        )
        for (status, error), trials in by_reason.items()
    ]


def _trials_text(trials: Sequence[TrialProblem]) -> str:
    seeds: dict[str, list[int]] = {}
    for trial in trials:
        seeds.setdefault(trial.variant_id, []).append(trial.seed)
    return "; ".join(
        f"{variant_id}: seed{'s'[: len(own) != 1]} {', '.join(map(str, own))}"
        for variant_id, own in seeds.items()
    )


def _reason(status: str, error: str) -> str:
    if not error.strip():
        return "a loss is not finite" if status == "diverged" else "no reason was recorded"
    reason = reason_of(error)
    return reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]} ..."


def _full_text(error: str) -> str:
    text = error.strip()
    if len(text.splitlines()) <= 1 and len(text) <= _MAX_REASON:
        return ""
    if len(text) <= _MAX_ERROR:
        return text
    return (
        f"{text[: _MAX_ERROR // 2]}\n[... all of it is in trials/ ...]\n{text[-_MAX_ERROR // 2 :]}"
    )


# The environment --------------------------------------------------------------------------------


def environment_facts(environment: Mapping[str, Any]) -> list[Fact]:
    """What the run ran on, without facts that were not recorded."""
    packages = environment.get("packages", {})
    facts = [
        Fact("Command", shlex.join(map(str, environment.get("command", ())))),
        Fact("Job file", str(environment.get("job_file") or "")),
        Fact("Git revision", str(environment.get("git_revision") or "")),
        Fact("Versions", ", ".join(f"{name} {version}" for name, version in packages.items())),
        Fact("Python", str(environment.get("python") or "")),
        Fact("Machine", ", ".join(_texts(environment, "node", "platform"))),
        Fact("Devices", _devices_text(environment.get("ray", {}))),
        Fact("Interrupted", _earlier_text(environment.get("earlier", ()))),
    ]
    return [fact for fact in facts if fact.text]


def _texts(values: Mapping[str, Any], *names: str) -> list[str]:
    return [str(values[name]) for name in names if values.get(name)]


def _devices_text(ray: Mapping[str, Any]) -> str:
    """The devices as text: `num_devices 1, gpus_per_pack 0, cpus_per_pack 2, address local`."""
    order = ("num_devices", "accelerator_type", "gpus_per_pack", "cpus_per_pack", "num_threads")
    names = [*(name for name in order if name in ray), *(name for name in ray if name not in order)]
    return ", ".join(
        f"{name} {parameter_text(ray[name])}" for name in names if ray[name] is not None
    )


def _earlier_text(earlier: Sequence[Any]) -> str:
    if not earlier:
        return ""
    times = f"{len(earlier)} time{'s'[: len(earlier) != 1]}"
    return f"{times}; this describes where the run was last continued"
