"""The programs that this process has compiled, kept for later packs of the same signature."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from trialrun.data.splits import PARTS, Splits
from trialrun.errors import CannotFuse, ModelError
from trialrun.messages import in_short
from trialrun.training.internals import keras_model
from trialrun.training.model.built import check_built, check_logs
from trialrun.training.model.first_steps import FirstSteps
from trialrun.training.model.initial import CompiledModel, build_compiled, make_compiled_model
from trialrun.training.pack_data import PackData
from trialrun.training.program.own_steps import OwnStepsModel
from trialrun.training.program.program import CompiledEngine, Program
from trialrun.training.program.pure_model import FunctionalModel
from trialrun.training.program.traced_number import Location
from trialrun.training.program.varying import Numbers, find_varying
from trialrun.training.program.verify import can_evaluate_at_once
from trialrun.trials.signature import numbers_key
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Variant


@dataclass(slots=True, eq=False)
class BuiltProgram:
    """A program, the model that it was traced from, and the numbers that each trial gives it.

    Attributes:
        compiled: The model of the first variant.
        program: The program.
        first: The variant whose numbers the model holds.
        seed: The seed that the model was built under.
        locations: Where the model keeps the numbers that may differ between trials.
        numbers: The numbers of the known variants at these locations.
        logs: The names of the model's logs.
    """

    compiled: CompiledModel
    program: Program
    first: Variant
    seed: int
    locations: tuple[Location, ...]
    numbers: Numbers
    logs: tuple[str, ...]

    def numbers_of(self, variants: Sequence[Variant]) -> list[list[float]]:
        """The numbers of each variant."""
        return [self.numbers[numbers_key(variant)] for variant in variants]


class ProgramCache:
    """The latest programs, found by what they were compiled for."""

    def __init__(self, max_programs: int) -> None:
        self._max_programs = max_programs
        self._built: dict[tuple[Any, ...], BuiltProgram] = {}

    def get(self, task: PackTask, data: PackData, engine: CompiledEngine) -> BuiltProgram:
        """The program for a pack; made unless there is one that takes the numbers of its trials.

        Raises:
            CannotFuse: No such program can be built.
        """
        key = (
            task.pack.signature,
            str(task.job_folder),
            data.is_shared,
            form_of(data.splits[0]),
            engine,
        )
        variants = list({id(t.variant): t.variant for t in task.pack.trials}.values())
        built = self._built.get(key)
        if built is not None:
            numbers = _numbers_for(built, variants, task, data)
            if numbers is not None:
                built.numbers.update(numbers)
                check_logs(built.logs, task)
                return built
        first = () if built is None else (built.first,)
        self._built.pop(key, None)
        if len(self._built) >= self._max_programs:
            del self._built[next(iter(self._built))]  # the oldest
        self._built[key] = _build(task, data, engine, [*first, *variants])
        return self._built[key]

    def forget_those_of_others(self, task: PackTask) -> bool:
        """Forgets a pack's programs whose own numbers are those of no trial of the pack.

        The pack's trials may not be able to share such a program, and yet share a new one.

        Returns:
            Whether there were any.
        """
        pack_key = (task.pack.signature, str(task.job_folder))
        own = {numbers_key(trial.variant) for trial in task.pack.trials}
        others = [
            key
            for key, built in self._built.items()
            if key[:2] == pack_key and numbers_key(built.first) not in own
        ]
        for key in others:
            del self._built[key]
        return bool(others)


def form_of(splits: Splits) -> tuple[Any, ...]:
    """The shapes and types of all arrays of a data set, and which parts have sample weights."""
    parts = [splits.part(name) for name in PARTS]
    arrays = keras.tree.flatten(parts)
    shapes = tuple((tuple(array.shape), str(array.dtype)) for array in arrays)
    return (*map(len, parts), *shapes)


def _numbers_for(
    built: BuiltProgram, variants: Sequence[Variant], task: PackTask, data: PackData
) -> Numbers | None:
    """The numbers of variants that a program does not know yet; None if it cannot take them."""
    if all(numbers_key(variant) in built.numbers for variant in variants):
        return {}
    locations, numbers = _find_varying(
        built.compiled, [built.first, *variants], task, data.splits[0], built.seed
    )
    known = [location.name for location in built.locations]
    found = [location.name for location in locations]
    if not set(found) <= set(known):
        return None
    by_name = {key: dict(zip(found, values, strict=True)) for key, values in numbers.items()}
    return {
        key: [given.get(location.name, location.value) for location in built.locations]
        for key, given in by_name.items()
    }


def _build(
    task: PackTask, data: PackData, engine: CompiledEngine, variants: Sequence[Variant]
) -> BuiltProgram:
    first, training, splits = variants[0], variants[0].training, data.splits[0]
    seed = task.pack.trials[0].seed
    compiled = make_compiled_model(first, task.job_folder, splits, seed)
    checked = check_built(compiled, task, data)
    check_logs(checked.logs, task)
    if keras_model.own_steps(compiled.model) and training.terminate_on_nan:
        raise CannotFuse("training.terminate_on_nan reads what each of the model's own steps logs")
    locations, numbers = _find_varying(compiled, variants, task, splits, seed)
    batch = keras.tree.map_structure(
        lambda rows: tf.constant(rows[: training.batch_size]), splits.part("train")
    )
    model = _functional(compiled.model, batch, locations, checked.first_steps)
    at_once = isinstance(model, FunctionalModel) and can_evaluate_at_once(
        compiled.model, splits.part("train"), training.batch_size
    )
    program = Program(
        model,
        engine,
        batch_size=training.batch_size,
        shared_data=data.is_shared,
        evaluation_batch_size=None if at_once else training.batch_size,
        name=f"{task.pack.signature} {form_of(splits)} {data.is_shared}",
    )
    compiled = _with_other_state(compiled, model)
    return BuiltProgram(compiled, program, first, seed, locations, numbers, checked.logs)


def _with_other_state(
    compiled: CompiledModel, model: FunctionalModel | OwnStepsModel
) -> CompiledModel:
    """The model with the state of its program that stands behind its optimizer's variables."""
    stream = [variable.numpy() for variable in model.stream.variables]
    return replace(
        compiled,
        optimizer_start=(*compiled.optimizer_start, *stream, *model.others_start),
        stream_index=len(compiled.optimizer_start) if stream else None,
    )


def _functional(
    model: keras.Model,
    batch: tuple[Any, ...],
    locations: tuple[Location, ...],
    first_steps: FirstSteps | None,
) -> FunctionalModel | OwnStepsModel:
    try:
        if first_steps is not None and keras_model.own_steps(model):
            return OwnStepsModel(model, batch, locations, first_steps)
        if first_steps is not None and first_steps.why_impure:
            raise CannotFuse(first_steps.why_impure)
        return FunctionalModel(model, batch, locations)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"training: loss or metrics do not fit the model: {in_short(error)}"
        ) from error


def _find_varying(
    compiled: CompiledModel, variants: Sequence[Variant], task: PackTask, splits: Splits, seed: int
) -> tuple[tuple[Location, ...], Numbers]:
    return find_varying(
        compiled.initial,
        variants,
        lambda variant: build_compiled(variant, task.job_folder, splits, seed),
    )
