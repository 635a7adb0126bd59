"""The run folder: every path in it, and how each file is written and read.

`run_folder` is the entry. Every file is written whole or not at all (`files`). Refuses to know what
the numbers mean: that is for `analysis`. pandas and pyarrow are imported inside functions.
"""

from trialrun.store.run_folder import RunFolder

__all__ = ["RunFolder"]
