"""Optuna, which is optional, without what it tells of each study."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_optuna(*ignored: type[Warning]) -> Iterator[None]:
    """Keeps Optuna from telling of each study, and of what is experimental in it.

    Args:
        ignored: Other kinds of warnings that say nothing here.
    """
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            for kind in (optuna.exceptions.ExperimentalWarning, *ignored):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        optuna.logging.set_verbosity(before)
