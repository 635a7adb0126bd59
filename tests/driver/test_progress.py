"""The one live line of a run."""

import io

from made_up_runs import learning_rates, trial_of
from rich.console import Console

from trialrun.driver.progress import ProgressLine
from trialrun.job import SelectSpec
from trialrun.trials.results import Progress


def test_a_pack_that_was_halved_is_not_counted_twice():
    trials = [trial_of(learning_rates(1e-3)[0], seed) for seed in range(12)]
    num_epochs = trials[0].variant.training.epochs
    with ProgressLine(Console(file=io.StringIO())) as line:
        line.start(trials, SelectSpec())
        line.advance(Progress("p000", 10 * num_epochs))
        line.advance(Progress("p000a", 5 * num_epochs))
        line.advance(Progress("p000b", 5 * num_epochs))
        line.advance(Progress("p0001", num_epochs))
    [shown] = line._bar.tasks
    assert (shown.completed, shown.total) == (11, 12)
