"""The devices that a plan is made for: those of this machine, or of a cluster that is not here."""

from dataclasses import dataclass

from trialrun.errors import InputError
from trialrun.host import num_local_cpus
from trialrun.job import JobSpec, LoadedJob
from trialrun.messages import counted
from trialrun.trials.needs import Needs, choose_needs
from trialrun.trials.packing import choose_cpus_per_pack


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of a cluster.

    Attributes:
        count: How many there are.
        memory_bytes: The memory of each; None if it is not known.
    """

    count: int
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices that a plan is made for.

    Attributes:
        num: How many packs can be trained at the same time.
        num_threads: Slices of a pack that are trained side by side.
        gpus: The GPUs; None if the CPU computes.
        needs: What each pack is given of them.
    """

    num: int
    num_threads: int
    gpus: Gpus | None = None
    needs: Needs | None = None

    @property
    def bytes_per_pack(self) -> int | None:
        """A pack's share of the memory of a GPU; None if it is not known."""
        if self.gpus is None or self.gpus.memory_bytes is None:
            return None
        return self.gpus.memory_bytes * self.gpus.count // self.num

    def describe(self) -> str:
        """Sentences about which packs can be trained at a time, and what a run does with them."""
        if self.gpus is None or self.needs is None:
            return (
                f"On this machine, without GPUs: packs at a time: {self.num}, threads each:"
                f" {self.num_threads}. On a cluster or with GPUs the run makes other packs when it"
                " starts; no result depends on the packs."
            )
        needs, shared = self.needs, self.num // self.gpus.count
        kind = f" of type {needs.accelerator_type}" if needs.accelerator_type else ""
        each = f" ({shared} on each GPU)" if shared > 1 else ""
        return (
            f"On {counted(self.gpus.count, 'GPU')}{kind}: packs at a time: {self.num}{each}, with"
            f" {counted(self.num * needs.cpus, 'CPU core')} for them. A run makes these packs if it"
            " finds as many; no result depends on the packs."
        )


def devices_here(job: JobSpec) -> Devices:
    """The devices of this machine, as if it had no GPUs."""
    cpus = job.resources.cpus
    num_threads = choose_cpus_per_pack(num_local_cpus()) if cpus == "auto" else cpus
    return Devices(max(1, num_local_cpus() // num_threads), num_threads)


def devices_of(loaded: LoadedJob, gpus: Gpus) -> Devices:
    """The devices of a cluster, as its run would count them.

    Raises:
        InputError: The job uses no GPUs.
    """
    resources = loaded.spec.resources
    if resources.gpus == 0:
        text = (
            "resources.gpus is 0, so that the CPU trains, and no plan for GPUs can be made; leave"
            " out --gpus, or give --set resources.gpus=auto"
        )
        raise InputError(loaded.locate(text))
    needs = choose_needs([{"GPU": gpus.count}], resources)
    return Devices(needs.fit_on_gpus(gpus.count), needs.num_threads, gpus, needs)
