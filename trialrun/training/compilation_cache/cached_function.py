"""A function that XLA compiles, or that is loaded as an earlier process has compiled it."""

import contextlib
import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from trialrun.messages import in_short
from trialrun.training.compilation_cache.entries import (
    Entry,
    read_entries,
    remove_entries,
    write_entry,
)
from trialrun.training.compilation_cache.folder import IN_MEMORY
from trialrun.training.compilation_cache.place import find_place
from trialrun.training.devices import is_out_of_memory
from trialrun.training.internals.xla_cache import numbered_from, put_file, take_files

_log = logging.getLogger(__name__)

_MAX_INSIDE = 1_000_000  # functions inside of one function
_times_traced: Counter[str] = Counter()

Tracing = Callable[[], contextlib.AbstractContextManager[None]]
Check = Callable[[Any], None]


@dataclass(slots=True, eq=False)
class _Form:
    """The function for arguments of certain shapes and types.

    Attributes:
        function: What is called.
        traced: Its graph.
        key: Under which its entries are kept.
        lock: Held while one thread of several looks for entries, or keeps them.
        loaded: The names of the entries that TensorFlow was given; None before.
        is_compiled: Whether it was called.
    """

    function: Any
    traced: Any
    key: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    loaded: frozenset[str] | None = None
    is_compiled: bool = False


class CachedFunction:
    """A function of tensors, compiled by XLA once for all shapes and types of its arguments.

    Args:
        function: The function in Python, which is traced.
        name: What it computes. Under an equal name another process finds what this one compiles,
            if the operations are equal too.
        tracing: The context in which it is traced, which lets one thread in at a time.
        check: Takes each graph that was traced, and raises an error for one that must not run.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        tracing: Tracing,
        check: Check = lambda graph: None,
    ) -> None:
        self._function, self._name, self._tracing = function, name, tracing
        self._check = check
        self._forms: dict[tuple[Any, ...], _Form] = {}

    def trace(self, *arguments: Any) -> Any:
        """Its graph for arguments of these shapes."""
        return self._form_of(arguments).traced

    def experimental_get_compiler_ir(self, *arguments: Any) -> Callable[..., Any]:
        """What XLA makes of it; see `tf.function`."""
        form = self._form_of(arguments)
        compiler: Callable[..., Any] = form.function.experimental_get_compiler_ir(*arguments)
        return compiler

    def __call__(self, *arguments: Any) -> Any:
        """Its results; the first call with arguments of these shapes compiles or loads it."""
        form = self._form_of(arguments)
        if form.is_compiled:
            return form.function(*arguments)
        with form.lock:  # else another thread would compile what is being loaded
            if form.loaded is None:
                form.loaded = _offer(form)
        try:
            results = form.function(*arguments)
        except tf.errors.OpError as error:
            if not form.loaded or is_out_of_memory(error):
                raise
            return self._anew(form, arguments, error)
        with form.lock:
            if not form.is_compiled:
                _keep(form)
                form.is_compiled = True
        return results

    def compile(self, *arguments: Any) -> None:
        """Compiles or loads it for arguments of these shapes, by a call, if it has not been."""
        if not self._form_of(arguments).is_compiled:
            self(*arguments)

    def _form_of(self, arguments: tuple[Any, ...]) -> _Form:
        types = _types_of(arguments)
        if types not in self._forms:
            with self._tracing():
                if types not in self._forms:
                    self._forms[types] = self._make_form(types, arguments)
        return self._forms[types]

    def _make_form(self, types: tuple[Any, ...], arguments: tuple[Any, ...]) -> _Form:
        named = f"{self._name} {types}"
        digest = hashlib.sha256(f"{named} {_times_traced[named]}".encode()).hexdigest()[:16]
        _times_traced[named] += 1  # a number, and so a name, may not come twice in a process
        function = tf.function(self._function, jit_compile=True, autograph=False)
        with numbered_from((1 << 64 | int(digest, 16)) * _MAX_INSIDE):
            traced = function.get_concrete_function(*arguments)
        self._check(traced.graph)
        return _Form(function, traced, digest)

    def _anew(self, form: _Form, arguments: tuple[Any, ...], error: Exception) -> Any:
        """Its results, without what was loaded, which TensorFlow could not use."""
        _log.info("an entry of the compilation cache is removed: %s", in_short(error))
        types = _types_of(arguments)
        with form.lock:
            if self._forms[types] is form:
                _forget(form)
                with self._tracing():
                    self._forms[types] = self._make_form(types, arguments)
        return self(*arguments)


def _types_of(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((tensor.dtype, tensor.shape) for tensor in tf.nest.flatten(arguments))


def _offer(form: _Form) -> frozenset[str]:
    """Gives TensorFlow what was compiled for a form before; returns the names of the entries."""
    if (place := find_place()) is None:
        return frozenset()
    entries = read_entries(place.folder, f"{place.key}-{form.key}")
    for entry in entries:
        put_file(IN_MEMORY, entry.name, entry.content)
    return frozenset(entry.name for entry in entries)


def _keep(form: _Form) -> None:
    """Keeps what TensorFlow has compiled for a form, and not loaded."""
    if (place := find_place()) is None:
        return
    for name, content in take_files(IN_MEMORY, form.traced).items():
        if name not in (form.loaded or ()):
            write_entry(place.folder, f"{place.key}-{form.key}", Entry(name, content))


def _forget(form: _Form) -> None:
    """Removes what TensorFlow could not load."""
    if (place := find_place()) is not None:
        take_files(IN_MEMORY, form.traced)
        remove_entries(place.folder, f"{place.key}-{form.key}")
