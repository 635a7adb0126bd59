"""The versions of the libraries on which a trial's numbers depend."""

import functools
from importlib import metadata

PACKAGES = ("tensorflow", "keras", "numpy", "trialrun")


@functools.cache
def installed_versions() -> dict[str, str]:
    """Package -> its version in this process's Python, without importing it."""
    return {name: metadata.version(name) for name in PACKAGES}
