"""The base of a job's sections, which refuses unknown keys, and types of fields that they share."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from trialrun.errors import InputError
from trialrun.job.user_code.functions import absolute_reference, check_reference
from trialrun.messages import show

REFERENCE_PATHS = ("data.generator", "model.builder")
CALLBACKS_PATH = "training.callbacks"


PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]


SEED_LIMIT = 2**32  # what every random generator of NumPy, Keras and TensorFlow takes


class Section(BaseModel):
    """A section with strict types (`2.5` and `true` are no integers) and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def is_int(value: object) -> bool:
    """Whether a value is an integer; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def word_or_int(word: str, minimum: int, limit: int | None = None) -> BeforeValidator:
    """Accepts one word, or an integer from `minimum` to below `limit`."""

    def check(value: object) -> object:
        is_small = limit is None or not is_int(value) or value < limit  # type: ignore[operator]
        if value == word or (is_int(value) and value >= minimum and is_small):  # type: ignore[operator]
            return value
        raise ValueError(f"must be {word!r} or an integer of at least {minimum}, got {show(value)}")

    return BeforeValidator(check)


def folder_of(info: ValidationInfo) -> Path | None:
    """The folder of the job file; None if the job is not read from a file."""
    context: Any = info.context
    return None if context is None else context["folder"]


def _check_reference(value: str, info: ValidationInfo) -> str:
    """An absolute reference to a function that exists; unchanged if the folder is not known."""
    folder = folder_of(info)
    if folder is None:
        return value
    try:
        check_reference(value, folder)
        return absolute_reference(value, folder)
    except InputError as error:
        raise ValueError(str(error)) from error


ReferenceText = Annotated[str, AfterValidator(_check_reference)]
