"""The values of a searched parameter in several variants, of which some may not have it."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol


class _Absent:
    """The type of `ABSENT`."""

    def __repr__(self) -> str:
        return "absent"


# Stands for the value of a parameter that a variant does not have; None is a value.
ABSENT: Final = _Absent()


class HasParameters(Protocol):
    """A variant: its parameters are searched dotted path -> value."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Searched dotted path -> value."""


def values_in(variants: Iterable[HasParameters], path: str) -> list[Any]:
    """The value of a parameter in each variant, `ABSENT` where a variant does not have it."""
    return [variant.parameters.get(path, ABSENT) for variant in variants]
