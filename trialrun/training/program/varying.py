"""Numbers of a model that may differ between the trials of a program: rates, penalties, momenta.

Keras keeps such a number as a Python float in a layer, a regularizer, the optimizer or the loss.
Where it is kept is found by building the model again with another number. While a program is
traced, a `TracedNumber` replaces it: a float to Python, one trial's tensor to TensorFlow. What
Python decides by it (`if rate > 0`) is recorded, and must hold for every trial.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from trialrun.errors import CannotShare
from trialrun.training.internals import keras_model
from trialrun.training.model.first_steps import optimizers_of
from trialrun.training.model.held_values import differing, held_values
from trialrun.training.model.seeded_build import SeededBuild
from trialrun.training.program.traced_number import Location
from trialrun.trials.signature import (
    NumberPath,
    is_given_to_user,
    numbers_inside,
    numbers_key,
    with_number,
)
from trialrun.trials.trial import Variant

# `numbers_key` of a variant -> its numbers at some `Location`s
Numbers = dict[tuple[float, ...], list[float]]
_HOLDERS = (
    keras.layers.Layer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.initializers.Initializer,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.losses.Loss,
)
# What Keras records about a model's graph and variables, under names that differ from build to
# build, and layers inside layers, which `keras_model.all_layers` already lists.
_NOT_FOLLOWED = (
    *("_inbound_nodes", "_outbound_nodes", "_layers", "_tracker", "_metrics", "_losses"),
    *("_trainable_variables_indices", "_compile_config", "_functional", "_operations"),
)
_LEARNING_RATE = ("training", "learning_rate")
_TOGETHER = "together the settings of its trials change"
_MOST_BUILT = 12  # values of an argument of the builder, which takes tens of milliseconds each


def locations_of(model: keras.Model) -> dict[str, Location]:
    """Every number that a compiled model, its optimizer and its loss keep: name -> location."""
    locations: dict[str, Location] = {}
    seen: set[int] = set()

    def walk(value: Any, name: str) -> None:
        if id(value) in seen or not isinstance(value, (*_HOLDERS, dict, list, tuple)):
            return
        seen.add(id(value))
        if isinstance(value, list | tuple):
            for number, item in enumerate(value):
                walk(item, f"{name}[{number}]")
            return
        items = value if isinstance(value, dict) else vars(value)
        for key, item in items.items():
            where = f"{name}.{key}" if name else str(key)
            if isinstance(item, int | float) and not isinstance(item, bool):
                locations[where] = Location(where, value, key, item)
            elif not (key in _NOT_FOLLOWED or str(key).startswith("_self_")):
                walk(item, where)

    if model.compiled:
        walk(model.optimizer, "optimizer")
        walk(model.loss, "loss")
    model_and_layers = keras_model.all_layers(model)
    for number, layer in enumerate(sorted(model_and_layers, key=lambda layer: layer is model)):
        walk(layer, f"layers[{number}]")
    return locations


def find_varying(
    built: SeededBuild,
    variants: Sequence[Variant],
    build: Callable[[Variant], keras.Model],
) -> tuple[tuple[Location, ...], Numbers]:
    """The locations whose numbers differ between variants of one signature.

    Each number that differs in the settings is changed alone, to see where it ends up.

    Args:
        built: The first variant's compiled model.
        variants: At least one.
        build: Gives the compiled model of a variant, built under the same seed.

    Returns:
        The locations, and the numbers of each variant there.

    Raises:
        CannotShare: A number is found nowhere in the model, a program cannot take it as an input
            where it is kept, or it changes something else too.
    """
    first = variants[0]
    distinct = {numbers_key(variant): variant for variant in variants}
    own = locations_of(built.model)
    changed_by: dict[str, NumberPath] = {}
    is_plain = True  # the model keeps each number of the settings unchanged
    for path, values in _differing(list(distinct.values())).items():
        for other in _others_to_build(path, values, first):
            changed_model = build(with_number(first, path, other))
            changed = locations_of(changed_model)
            found = _changed_locations(own, changed, path)
            if not _is_variable(path, first, built.model):
                _require_found(found, path)
                _require_same_rates(built.model, changed_model, path)
            _require_no_more(built, changed_model, [own[name] for name in found], path)
            for name in found:
                is_plain &= own[name].value == values[0] and changed[name].value == other
                is_plain &= changed_by.setdefault(name, path) == path
    numbers = {}
    together = _built_too(list(distinct.values()), set(changed_by.values()))
    for key, variant in distinct.items():
        given = numbers_inside(variant)
        numbers[key] = [given[path] for path in changed_by.values()]
        if not is_plain or variant in together:
            model = build(variant)
            others = locations_of(model)
            _require_same(own, others, _TOGETHER)
            _require_no_more(built, model, [own[name] for name in changed_by])
            numbers[key] = [others[name].value for name in changed_by]
    return tuple(replace(own[name], path=path) for name, path in changed_by.items()), numbers


def _others_to_build(path: NumberPath, values: Sequence[float], first: Variant) -> list[float]:
    """The values of a number, but for the first, for which a model is built to see what it changes.

    Of `training`, what trialrun makes of it is known, so that the smallest and the largest show it.
    A function of the user's may decide anything by an argument, also for a value between others.
    """
    most = _MOST_BUILT if is_given_to_user(path, first) else 2
    chosen = _spread(sorted(set(values)), most)
    return [value for value in chosen if value != values[0]]


def _built_too(variants: Sequence[Variant], paths: Collection[NumberPath]) -> list[Variant]:
    """Variants that are built as they are: a builder may decide by several of its arguments."""
    given = [path for path in paths if is_given_to_user(path, variants[0])]
    return _spread(variants, _MOST_BUILT) if len(given) > 1 else []


def _spread(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of some values, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[place] for place in places]


def _differing(variants: Sequence[Variant]) -> dict[NumberPath, list[float]]:
    """The numbers of the settings that differ between variants: path -> one value per variant."""
    settings = [numbers_inside(variant) for variant in variants]
    by_path = {path: [numbers[path] for numbers in settings] for path in settings[0]}
    return {path: values for path, values in by_path.items() if len(set(values)) > 1}


def _changed_locations(
    own: Mapping[str, Location], changed: Mapping[str, Location], path: NumberPath
) -> list[str]:
    what = ".".join(path)
    _require_same(own, changed, f"{what} changes", (path,))
    found = [name for name, location in own.items() if location.value != changed[name].value]
    for name in found:
        if isinstance(own[name].owner, keras.initializers.Initializer):
            raise CannotShare.of(f"{what} changes the initial weights ({name})", (path,))
        if isinstance(own[name].value, int) and isinstance(changed[name].value, int):
            raise CannotShare.of(f"{what} changes an integer ({name})", (path,))
    return found


def _is_variable(path: NumberPath, variant: Variant, model: keras.Model) -> bool:
    """Whether a number is the learning rate that each trial's optimizer keeps in a variable."""
    has_schedule = variant.training.learning_rate_schedule is not None
    rate = keras_model.learning_rate_variable(model.optimizer)
    return path == _LEARNING_RATE and not has_schedule and rate is not None


def _require_found(found: Collection[str], path: NumberPath) -> None:
    if not found:
        what = ".".join(path)
        raise CannotShare.of(f"where {what} ends up in the model is not known", (path,))


def _require_same_rates(model: keras.Model, changed: keras.Model, path: NumberPath) -> None:
    """Refuses a number that is also a learning rate which the builder gave: that is a variable."""
    rates, others = (
        {
            name: float(rate)
            for name, optimizer in optimizers_of(one).items()
            if (rate := keras_model.learning_rate_variable(optimizer)) is not None
        }
        for one in (model, changed)
    )
    for name, rate in rates.items():
        if others.get(name) != rate:
            what = ".".join(path)
            raise CannotShare.of(f"{what} changes the learning rate of {name}", (path,))


def _require_no_more(
    built: SeededBuild,
    changed: keras.Model,
    inputs: Sequence[Location],
    path: NumberPath | None = None,
) -> None:
    """Refuses settings that change more of a model than the numbers which a program is given."""
    paths = () if path is None else (path,)
    changes = _TOGETHER if path is None else f"{'.'.join(path)} changes"
    given = {(id(location.owner), location.key) for location in inputs}
    if name := differing(built.held, held_values(changed), but_for=given):
        raise CannotShare.of(
            f"{changes} {name} too, which a program would take from one trial for all", paths
        )
    if variable := built.why_other_start(changed):
        raise CannotShare.of(f"{changes} the initial value of {variable}", paths)


def _require_same(
    own: Mapping[str, Location],
    other: Mapping[str, Location],
    changes: str,
    paths: tuple[NumberPath, ...] = (),
) -> None:
    if different := sorted(own.keys() ^ other.keys()):
        raise CannotShare.of(f"{changes} what the model is made of ({different[0]})", paths)
