"""How long a step takes in each engine, kept in the cache folder: measured once per machine."""

import hashlib
import json
from collections.abc import Mapping

import tensorflow as tf

from trialrun.training.compilation_cache.entries import Entry, read_entries, write_entry
from trialrun.training.compilation_cache.place import find_place

_NAME = "seconds per step"


def read_seconds(name: str) -> dict[str, float]:
    """Engine -> seconds per step and trial, as measured before; empty if it was not.

    Args:
        name: What was measured: the program, how many trials it trains at once, and its threads.
    """
    if (place := find_place()) is None:
        return {}
    for entry in read_entries(place.folder, f"{place.key}-{_key(name)}"):
        found: dict[str, float] = json.loads(entry.content)
        return found
    return {}


def keep_seconds(name: str, seconds: Mapping[str, float]) -> None:
    """Keeps what was measured; see `read_seconds`."""
    if (place := find_place()) is not None:
        entry = Entry(_NAME, json.dumps(dict(seconds)).encode())
        write_entry(place.folder, f"{place.key}-{_key(name)}", entry)


def _key(name: str) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    devices = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    return hashlib.sha256(f"{_NAME} {name} {devices}".encode()).hexdigest()[:16]
