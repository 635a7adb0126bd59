"""Checks of the compilation cache: where it is, how large, and whether workers can use it."""

import os
from collections.abc import Mapping

from trialrun.doctor.check import Check, ok, warning
from trialrun.doctor.storage import nearest_folder
from trialrun.messages import bytes_text, counted, said_by
from trialrun.training.compilation_cache.entries import MAX_BYTES, size_of
from trialrun.training.compilation_cache.folder import (
    VARIABLE,
    CacheRefusedError,
    chosen_folder,
    has_users_own,
    holding,
)

_NAME = "compilation cache"
_ELSEWHERE = f"choose another folder with {VARIABLE}, or `off`; without, each run compiles anew"


def check_compilation_cache(environment: Mapping[str, str]) -> Check:
    """Checks the folder of what XLA has compiled; it is not made, nor changed.

    Args:
        environment: The variables, which may choose the folder.
    """
    folder = chosen_folder(environment)
    if folder is None:
        return ok(_NAME, f"turned off by {VARIABLE}")
    if has_users_own(environment):
        return ok(_NAME, "TensorFlow's own, as TF_XLA_FLAGS says")
    try:
        num_files, num_bytes = size_of(folder)
    except CacheRefusedError as error:
        return warning(_NAME, said_by(error), _ELSEWHERE)
    except OSError as error:
        return warning(_NAME, f"{folder}: {said_by(error)}", _ELSEWHERE)
    inner = holding(folder)
    found = f"{folder}: {counted(num_files, 'compiled function')}, {bytes_text(num_bytes)}"
    if not os.access(nearest_folder(inner), os.W_OK):
        how = "cannot be made" if not inner.exists() else "nothing can be added"
        return warning(_NAME, f"{found}; {how}", _ELSEWHERE)
    return ok(_NAME, f"{found} of at most {bytes_text(MAX_BYTES)}")
