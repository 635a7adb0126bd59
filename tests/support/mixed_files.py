"""Which process of pytest-xdist gets which file of tests."""

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

_WAITING = "tests/system/"  # files that start real programs, and mostly wait for them
_MOST_WAITING = 3


class MixedFiles(LoadFileScheduling):
    """A file that waits goes first, unless three other processes are at one."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        others = [files for other, files in self.assigned_work.items() if other is not node]
        shall_wait = sum(map(_waits, others)) < _MOST_WAITING
        chosen = (file for file in self.workqueue if file.startswith(_WAITING) is shall_wait)
        if file := next(chosen, None):
            self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)


def _waits(files: dict[str, dict[str, bool]]) -> bool:
    """Whether any test of the files that wait, among those of a process, has not been run."""
    return any(
        file.startswith(_WAITING) and not all(is_done.values()) for file, is_done in files.items()
    )
