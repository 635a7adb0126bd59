"""A whole run in this process: trained for real and saved for real, without a Ray or processes."""

import contextlib
from concurrent.futures import Executor, Future
from unittest import mock

import trialrun.cluster
import trialrun.driver.best_model
import trialrun.driver.run
from trialrun.cluster.connection import Cluster
from trialrun.export.process import ExportProcess
from trialrun.export.save import save_best
from trialrun.trials.needs import Needs


@contextlib.contextmanager
def connect(*_):
    """Stands in for `cluster.connect`."""
    yield Cluster("none", Needs(0, 1, None), num_devices=1, num_threads=1, head=None)


def train_packs(tasks, *_):
    """Stands in for `cluster.run_packs`: one pack after the other."""
    from trialrun.training.pack import train_pack

    for task in tasks:
        *_, result = train_pack(task, "CPU")
        yield result


class ExportHere(ExportProcess):
    """Stands in for the process that saves the best model."""

    def _start(self):
        pass

    def _end(self):
        pass

    def _ask(self, what, run, parameters, **details):
        assert what == "save"
        return save_best(str(run.path), parameters, **details)

    def try_untrained(self, *_):
        return []  # it would build a model beside those that are trained meanwhile


class AtOnce(Executor):
    """Stands in for the thread that saves the model while figures are drawn.

    Both change which warnings are errors, for all threads; a run saves in another process.
    """

    def __init__(self, *args, **kwargs):
        pass

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def all_in_this_process():
    """What a command trains meanwhile, it trains in this process.

    So nothing is imported beside it in another thread: what walks through modules could fail.
    """
    with (
        mock.patch.object(trialrun.driver.best_model, "import_report"),
        mock.patch.object(trialrun.cluster, "connect", connect),
        mock.patch.object(trialrun.cluster, "run_packs", train_packs),
        mock.patch.object(trialrun.driver.run, "ExportProcess", ExportHere),
        mock.patch.object(trialrun.driver.run, "ThreadPoolExecutor", AtOnce),
    ):
        yield
