"""The run folder: every path in it, and how each file is written and read.

`run_folder` is the entry: its methods read and write each file, as `RunFolder.write_variants` does
for variants.csv. What a file holds is in modules of their own: `variants_csv` and
`confusion_matrices` for the files of these names; `columns`, `rows` and `trial_tables` for trials/
and history/; `pack_records` for packs, `best_files` for best/, `kept_arrays` for checkpoints. Every
file is written whole or not at all (`files`). Refuses to know what the numbers mean: that is for
`analysis`. pandas and pyarrow are imported inside functions.
"""

from trialrun.store.run_folder import RunFolder

__all__ = ["RunFolder"]
