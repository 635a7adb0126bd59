"""How many trials form a pack: the rules, found by measurement, behind `auto`."""

from collections.abc import Sequence

from trialrun.job import JobSpec
from trialrun.plan import Pack, Trial, pack_trials

# If a worker has more threads, they wait for Python's global lock between epochs.
_MAX_THREADS_PER_WORKER = 4
# Results are saved when a pack ends: small packs lose little in a crash, large ones compile less
# often.
_TRIALS_PER_THREAD = 128
_TRIALS_PER_DEVICE = 512


def make_packs(
    job: JobSpec,
    trials: Sequence[Trial],
    num_devices: int,
    *,
    num_threads: int,
    first_number: int = 0,
) -> tuple[Pack, ...]:
    """The packs for a number of devices, none larger than `resources.max_trials_per_pack`.

    Args:
        job: The job.
        trials: The trials to train.
        num_devices: How many packs can be trained at the same time.
        num_threads: CPU threads per pack; 1 if GPUs compute.
        first_number: The number of the first pack.
    """
    limit = job.resources.max_trials_per_pack
    if limit == "auto":
        limit = _TRIALS_PER_THREAD * num_threads if num_threads > 1 else _TRIALS_PER_DEVICE
    return pack_trials(
        trials, num_devices=num_devices, max_trials_per_pack=limit, first_number=first_number
    )


def choose_cpus_per_pack(num_cpus: int) -> int:
    """CPU cores per task if no GPU computes: few tasks with several threads, not a task per core.

    Each task imports TensorFlow and compiles by itself, but threads of one task do so only once.
    `resources.cpus: 1` gives a task per core instead. This was measured with `trialrun run
    jobs/medical_trial.yaml`, alternately with and without `--set resources.cpus=1`, as medians of
    three runs on two cores of an AMD EPYC: 60 trials took 16.8 s in one task with two threads and
    17.7 s in two tasks; 1,000 trials (200 seeds x 5 learning rates) took 24.8 s and 27.8 s.
    """
    return max(1, min(num_cpus, _MAX_THREADS_PER_WORKER))
