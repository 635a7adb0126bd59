"""Worker, node, driver and head, each killed at four moments of a run: no trial is lost.

Training is made up (`made_up_driver`), so that a run takes seconds and its numbers can be compared
exactly. After whatever happened and one `resume`, every trial is there once, and the summary is
that of a run that nobody disturbed.
"""

import os
import signal

import pytest
from durable_runs import DurableRun
from ray_nodes import RayNodes

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def nodes():
    """A node of one core, or two, started again when a test has killed one."""
    with RayNodes(1) as nodes:
        yield nodes


MOMENTS = [
    "before the first pack",
    "while packs run",
    "while results are written",
    "while the model is saved",
]


@pytest.mark.parametrize("moment", MOMENTS)
# Drivers come last: once a Ray has lost one of the warm Python, others wait 1.5 s at each pack.
@pytest.mark.parametrize("fault", ["worker", "node", "head", "driver"])
def test_no_trial_is_lost(tmp_path, nodes, fault, moment):
    nodes.make_whole(num_nodes=2 if fault == "node" else 1)
    run = DurableRun(tmp_path / "home")
    # While the driver waits for a dead head, Ray in it tries again without a pause.
    command = run.begin(nodes.address, MADE_UP_REACT_S="0.5")
    command.wait_for(lambda: run.has_reached(moment))
    if fault == "driver":
        os.kill(int((run.home / "driver.pid").read_text()), signal.SIGKILL)
    else:
        nodes.kill(fault)
    finished = command.finish()
    assert "Traceback" not in finished.stderr
    if finished.code != 0:
        assert fault in ("driver", "head"), finished
        assert finished.code == (-signal.SIGKILL if fault == "driver" else 75), finished
        nodes.make_whole()
        finished = run.resume(nodes.address).finish()
        assert finished.code == 0, finished
    run.assert_whole()
    if (fault, moment) == ("worker", MOMENTS[1]):
        log = (run.folder / "run.log").read_text()
        assert log.count(": WorkerCrashedError: ") == log.count("trying again") == 1
    if (fault, moment) == ("driver", MOMENTS[-1]):  # as a kill after the summary leaves it
        (run.folder / "report.html").unlink()
        assert run.resume(nodes.address).finish().code == 0
        run.assert_whole()
