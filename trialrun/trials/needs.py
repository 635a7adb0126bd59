"""What a pack asks the cluster for, and how many packs fit into what a node has. Needs no Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trialrun.job import ResourcesSpec
from trialrun.trials.packing import choose_cpus_per_pack

_ROUNDING = 1e-9  # ten packs of 0.1 GPU each must fit, though 1 // 0.1 is 9


@dataclass(frozen=True, slots=True)
class Needs:
    """What each pack's task asks Ray for.

    Attributes:
        gpus: 1, a fraction of a GPU, or 0 when the CPU computes.
        cpus: Number of CPU cores.
        accelerator_type: Kind of GPU; None for any.
    """

    gpus: float
    cpus: int
    accelerator_type: str | None

    @property
    def num_threads(self) -> int:
        """Slices of a pack that are trained side by side."""
        return 1 if self.gpus else self.cpus

    def fit_on_gpus(self, num_gpus: float) -> int:
        """The number of packs that GPUs can train at the same time.

        A pack that needs a fraction of a GPU gets it from a single one.
        """
        return int(num_gpus * int(1 / self.gpus + _ROUNDING))

    def fit_into(self, node: Mapping[str, float]) -> int:
        """The number of packs that a node with these resources can train at the same time."""
        if self.accelerator_type and f"accelerator_type:{self.accelerator_type}" not in node:
            return 0
        packs = int(node.get("CPU", 0) // self.cpus)
        return min(packs, self.fit_on_gpus(node.get("GPU", 0))) if self.gpus else packs

    def __str__(self) -> str:
        kind = f" of type {self.accelerator_type}" if self.accelerator_type else ""
        return f"{self.gpus:g} GPU{kind} and {self.cpus} CPU cores"


def choose_needs(nodes: Sequence[Mapping[str, float]], resources: ResourcesSpec) -> Needs:
    """What each pack asks Ray for; resources that the job sets to `auto` are chosen here.

    Args:
        nodes: The resources of each node: Ray's name -> amount.
        resources: The job's `resources`.
    """
    gpus = float(any(node.get("GPU", 0) for node in nodes))
    if resources.gpus != "auto":
        gpus = resources.gpus
    # A head that must train nothing offers Ray no CPU cores.
    smallest_node = min((int(node["CPU"]) for node in nodes if node.get("CPU")), default=1)
    if resources.cpus != "auto":
        cpus = resources.cpus
    else:
        cpus = 1 if gpus else choose_cpus_per_pack(smallest_node)
    return Needs(gpus, cpus, resources.accelerator_type)
