"""How trials are packed for the devices there are: the measured rules behind `auto`."""

from collections.abc import Sequence

from trialrun.job import JobSpec
from trialrun.plan import Pack, Trial, pack_trials

# More threads than this in one worker wait for Python's lock between epochs.
_MAX_THREADS_PER_WORKER = 4
# A pack's results are safe when it ends: short packs lose little, long ones compile less often.
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
    """The packs for so many devices, within `resources.max_trials_per_pack`.

    Args:
        job: The job.
        trials: Those to train.
        num_devices: Packs that can be trained at the same time.
        num_threads: CPU threads per pack; 1 where GPUs compute.
        first_number: Packs are numbered from here.
    """
    limit = job.resources.max_trials_per_pack
    if limit == "auto":
        limit = _TRIALS_PER_THREAD * num_threads if num_threads > 1 else _TRIALS_PER_DEVICE
    return pack_trials(
        trials, num_devices=num_devices, max_trials_per_pack=limit, first_number=first_number
    )


def choose_cpus_per_pack(num_cpus: int) -> int:
    """CPU cores per task when no GPU computes: few tasks with threads, not a task per core.

    Tasks that run side by side each import TensorFlow and compile; threads of one task do it once.
    `resources.cpus: 1` gives a task per core instead. Measured with `trialrun run
    jobs/medical_trial.yaml`, with and without `--set resources.cpus=1`, in turns, medians of three,
    two cores of an AMD EPYC: 60 trials 16.8 s in one task with two threads, 17.7 s in two tasks;
    1,000 trials (200 seeds x 5 learning rates) 24.8 s and 27.8 s.
    """
    return max(1, min(num_cpus, _MAX_THREADS_PER_WORKER))
