"""The folder that `dump_hlo` fills; it is carried elsewhere, so its files are few and small."""

import shutil
from pathlib import Path

MAX_BYTES = 40 * 10**6
TAKEN_ALONG = ("check_hlo.py", "read_hlo.py")
WRITTEN = ("inputs.npz", "manifest.json", "programs.npz")


def finish(folder: Path) -> list[Path]:
    """Puts the program that reads the folder into it; gives the files to be carried.

    Raises:
        RuntimeError: They are too large.
    """
    for name in TAKEN_ALONG:
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
    files = [folder / name for name in sorted([*TAKEN_ALONG, *WRITTEN])]
    total = sum(path.stat().st_size for path in files)
    if total > MAX_BYTES:
        raise RuntimeError(f"{folder} has {total:,} bytes; it may have {MAX_BYTES:,} at most")
    return files
