"""The benchmark's measurements and the ratios between them. Nothing here runs or prints."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that is measured.

    Attributes:
        name: Its name for `--only`, and for a peer the name of its program in
            `scripts/benchmarks/peers`, if `program` does not say another.
        title: What it is, for the table.
        setting: The cores that it may use.
        args: Arguments of its command.
        quick_args: The arguments with `--quick`.
        is_peer: Whether it is a program in `scripts/benchmarks/peers`, and not trialrun itself.
        job: The name of the job file in `jobs/` that trialrun runs.
        is_cold: Whether nothing that was compiled before is there.
        program: The name of a peer's program.
    """

    name: str
    title: str
    setting: str
    args: tuple[str, ...] = ()
    quick_args: tuple[str, ...] = ("--epochs", "2")
    is_peer: bool = True
    job: str = "medical_trial"
    is_cold: bool = False
    program: str = ""


def again(subject: Subject) -> Subject:
    """The same, right after it: what it compiled is loaded."""
    name, title = f"{subject.name}_warm", f"{subject.title}, again"
    return replace(subject, name=name, title=title, is_cold=False)


@dataclass(slots=True)
class Row:
    """A subject and its measurements.

    Attributes:
        subject: The subject.
        samples: One per run: `wall_s`, `peak_memory_bytes`, `trials`, `s_per_trial`, and whatever
            else the program reports.
        error: Why it could not be measured; empty if it could.
    """

    subject: Subject
    samples: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def median(self, key: str) -> float | None:
        """The median of a number over the samples; None if none of them has it."""
        values = [sample[key] for sample in self.samples if key in sample]
        return statistics.median(values) if values else None


# The targets of the ratio to JAX; None where there is none.
FAMILY_TARGETS: dict[str, float | None] = {
    "mlp": 0.6,
    "cnn": 0.42,
    "augmented_cnn": None,
    "gru": 1.0,
    "transformer": 0.85,
    "wide_mlp": 0.6,
}
OURS, BY_JAX, BY_FIT = ("fused", "mapped"), ("vmap", "jit"), ("fit", "fit, compiled")


def fastest(row: Row, ways: Sequence[str], key: str = "us") -> float | None:
    """The least of a family's numbers by these ways, in medians over the samples."""
    medians = [statistics.median(sample[key][way] for sample in row.samples) for way in ways]
    return min(medians, default=None) if row.samples else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratio of two measured numbers; `value` is None if one is missing."""

    title: str
    value: float | None
    target: float | None = None
    is_upper_bound: bool = True


def compare(rows: Mapping[str, Row]) -> list[Ratio]:
    """The ratios that matter, some of them with a target."""
    return [
        *_whole_commands(rows),
        *_steady_states(rows),
        *_further_trials(rows),
        *_searches_and_short_jobs(rows),
        *_families(rows),
    ]


def _whole_commands(rows: Mapping[str, Row]) -> list[Ratio]:
    return [
        Ratio(
            f"{trials_of(rows, name)} trials{how} / one {script}, command to exit",
            divide(median(rows, name, "wall_s"), median(rows, script_name, "wall_s")),
            target,
        )
        for name, how, script_name, script, target in (
            ("trialrun_60", "", "keras_fit", "model.fit script", 1.0),
            ("trialrun_60_warm", ", again", "keras_fit", "model.fit script", 0.75),
            ("trialrun_1000", "", "keras_fit", "model.fit script", 1.5),
            ("trialrun_1000_warm", ", again", "keras_fit", "model.fit script", 1.2),
            ("trialrun_60", "", "keras_fit_compiled", "compiled script", None),
        )
    ]


def _steady_states(rows: Mapping[str, Row]) -> list[Ratio]:
    fused_s = median(rows, "fused_steady", "s_per_trial")
    jax_s = median(rows, "jax_vmap", "s_per_trial")
    orders_s = median(rows, "jax_vmap", "orders_s_per_trial")
    jax_and_orders_s = jax_s + orders_s if jax_s and orders_s else None
    products_s = median(rows, "step_products", "s_per_trial")
    return [
        Ratio(
            "fused engine / JAX, core-seconds per trial, steady state",
            divide(fused_s, jax_s),
            target=0.65,
        ),
        Ratio(
            "the same, with the time for JAX's batch orders added",
            divide(fused_s, jax_and_orders_s),
        ),
        Ratio("fused engine / its step's matrix products alone", divide(fused_s, products_s)),
        Ratio(
            "fused engine / these products at peak speed (a bound)",
            divide(fused_s, median(rows, "roofline", "s_per_trial")),
        ),
        *(
            Ratio(
                f"model.fit / trialrun, {title}, core-seconds per trial, steady state",
                divide(median(rows, name, "fit_s_per_trial"), median(rows, name, "s_per_trial")),
                target,
                is_upper_bound=False,
            )
            for name, title, target in (
                ("digits_cnn", "digits CNN", 4),
                ("text_gru", "masked GRU", None),
            )
        ),
    ]


def _further_trials(rows: Mapping[str, Row]) -> list[Ratio]:
    """What others take for one more trial, in trialrun's seconds for it."""
    further_s = further_trial_s(rows)
    return [
        Ratio(
            f"{title} / trialrun, seconds per further trial",
            divide(median(rows, name, key), further_s),
            target,
            is_upper_bound=False,
        )
        for name, title, key, target in (
            ("ray_tune", "Ray Tune", "marginal_s_per_trial", 500),
            ("ray_tune", "Ray Tune, wall per trial", "s_per_trial", None),
            ("keras_tuner_search", "KerasTuner", "marginal_s_per_trial", None),
            ("optuna_study", "Optuna with model.fit", "marginal_s_per_trial", None),
            ("keras_fit", "model.fit", "s_per_trial", None),
            ("keras_fit_compiled", "model.fit, compiled", "s_per_trial", None),
        )
    ]


def _searches_and_short_jobs(rows: Mapping[str, Row]) -> list[Ratio]:
    return [
        Ratio(
            "a search in rounds / the whole grid, command to exit",
            divide(median(rows, "rounds", "wall_s"), median(rows, "whole_grid", "wall_s")),
            target=0.5,
        ),
        Ratio(
            "the same, time of training alone",
            divide(median(rows, "rounds", "training_s"), median(rows, "whole_grid", "training_s")),
            target=0.4,
        ),
        Ratio(
            "2 masked GRUs, engine auto / engine keras, command to exit",
            divide(median(rows, "two_grus", "wall_s"), median(rows, "two_grus_keras", "wall_s")),
            target=1.2,
        ),
    ]


def _families(rows: Mapping[str, Row]) -> list[Ratio]:
    families = [
        (rows[name], target)
        for name, target in FAMILY_TARGETS.items()
        if name in rows and rows[name].samples
    ]
    return [
        *(
            Ratio(
                f"{row.subject.title}, best engine / best of JAX",
                divide(fastest(row, OURS), fastest(row, BY_JAX)),
                target,
            )
            for row, target in families
        ),
        *(
            Ratio(
                f"{row.subject.title}, best engine / best of model.fit",
                divide(fastest(row, OURS), fastest(row, BY_FIT)),
            )
            for row, _ in families
        ),
        *(
            Ratio(
                f"{row.subject.title}, first call / compiling with JAX, vectorized",
                divide(fastest(row, OURS[:1], "first_s"), fastest(row, BY_JAX[:1], "first_s")),
                2.5,
            )
            for row, _ in families
        ),
    ]


def median(rows: Mapping[str, Row], name: str, key: str) -> float | None:
    return rows[name].median(key) if name in rows else None


def further_trial_s(rows: Mapping[str, Row]) -> float | None:
    """Seconds that one more trial costs trialrun; the difference of two jobs has no start-up."""
    small, large = rows.get("trialrun_60"), rows.get("trialrun_1000")
    if not (small and large and small.samples and large.samples):
        return None
    small_s, large_s = small.median("wall_s"), large.median("wall_s")
    if small_s is None or large_s is None:
        return None
    num_further: int = large.samples[0]["trials"] - small.samples[0]["trials"]
    return (large_s - small_s) / num_further


def trials_of(rows: Mapping[str, Row], name: str) -> str:
    """The number of trials that were measured, for a title."""
    row = rows.get(name)
    return f"{row.samples[0]['trials']:,}" if row and row.samples else name.split("_")[1]


def divide(numerator: float | None, denominator: float | None) -> float | None:
    if numerator is None or not denominator:
        return None
    return numerator / denominator


def verdict(ratio: Ratio) -> str:
    if ratio.value is None or ratio.target is None:
        return ""
    is_met = ratio.value <= ratio.target
    return "met" if is_met == ratio.is_upper_bound else "missed"
