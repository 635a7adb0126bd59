"""What the variants of a run have cost, as costs.json holds it."""

import stat
from collections.abc import Mapping
from typing import NamedTuple

from trialrun.messages import visible
from trialrun.store.files import read_small_json, write_json
from trialrun.store.run_folder import RunFolder
from trialrun.store.run_state import Fields

_MAX_BYTES = 64 << 20
_DIGITS = 6
_EMPTY = b"{}\n"  # of a run that has trained nothing yet


class Cost(NamedTuple):
    """What a run, or one of its variants, has cost over all commands, in seconds of devices.

    Attributes:
        device_s: From when a worker began a pack until the pack left it, summed over packs; of a
            variant, its share of that.
        lost_s: The part of it that went into tries that failed, the last ones too.
        compile_s: The part of it in which programs were traced and compiled, and their first epochs
            trained.
    """

    device_s: float = 0.0
    lost_s: float = 0.0
    compile_s: float = 0.0

    def plus(self, other: "Cost", share: float = 1.0) -> "Cost":
        """The cost and a share of another."""
        return Cost(*(own + share * more for own, more in zip(self, other, strict=True)))


Costs = Mapping[str, Cost]  # by variant


def write_costs(run: RunFolder, costs: Costs, *, flush: bool = True) -> None:
    """Writes costs.json: `{"v00": {"device_s": 61.5, "lost_s": 0.0, "compile_s": 4.2}, ...}`.

    Args:
        run: The run folder.
        costs: Variant id -> its cost so far.
        flush: False not to wait for the disk.
    """
    rounded = {
        variant_id: {name: round(value, _DIGITS) for name, value in cost._asdict().items()}
        for variant_id, cost in costs.items()
    }
    write_json(run.costs_file, rounded, indent=None, flush=flush)


def read_costs(run: RunFolder) -> Costs:
    """What each variant has cost; empty if the run is of a version that did not write it."""
    content = Fields(read_small_json(run.costs_file, _MAX_BYTES))
    return {
        visible(variant_id): _cost_in(content.part(variant_id)) for variant_id in content.content
    }


def problem_with_costs(run: RunFolder) -> str:
    """Why what the variants have cost is not known; empty if it is, or if it was never written."""
    try:
        about = run.costs_file.stat()
        is_empty = stat.S_ISREG(about.st_mode) and about.st_size == len(_EMPTY)
        is_empty = is_empty and run.costs_file.read_bytes() == _EMPTY
    except OSError:
        return ""
    content = Fields(read_small_json(run.costs_file, _MAX_BYTES))
    numbers = [content.part(key).number(name) for key in content.content for name in Cost._fields]
    is_whole = all(number is not None and number >= 0 for number in numbers)
    if is_empty or (numbers and is_whole):
        return ""
    return f"{run.costs_file} is damaged: what earlier commands have cost is not known"


def _cost_in(fields: Fields) -> Cost:
    return Cost(*(max(0.0, fields.number(name) or 0.0) for name in Cost._fields))
