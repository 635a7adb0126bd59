"""Files of a run folder that are torn or foreign are moved out of the way, never deleted."""

import secrets
from pathlib import Path

from trialrun.errors import TrialrunError
from trialrun.store.columns import HISTORY_IDENTITY, IDENTITY_COLUMNS, pack_file_name
from trialrun.store.kept_arrays import verify_arrays
from trialrun.store.parquet import list_pack_files, read_about, read_pack_file, require_columns
from trialrun.store.run_folder import RunFolder


def set_aside_broken(run: RunFolder) -> list[str]:
    """Moves every file that cannot be read, or that trialrun did not write, to `set_aside/`.

    The trials and the history of a pack are moved together; its trials are then trained again.
    Temporary files that a killed driver left behind are removed.

    Returns:
        One line about each damaged file.
    """
    lines = []
    kept = run.kept
    for folder in (run.trials_dir, run.history_dir, kept.states_dir, kept.checkpoints_dir):
        for draft in folder.glob(".*"):
            draft.unlink(missing_ok=True)
    for file in list_pack_files(run.trials_dir):
        history = run.history_dir / file.name
        try:
            require_columns(file, IDENTITY_COLUMNS)
            require_columns(history, HISTORY_IDENTITY)
            read_pack_file(file, verify=True)
            read_pack_file(history, verify=True)
            read_about(file)
        except TrialrunError as error:
            lines.append(set_aside(run, file, str(error)))
            if history.exists():
                set_aside(run, history, "")
    for path in list(run.kept.files()):
        try:
            verify_arrays(path)
        except TrialrunError as error:
            lines.append(set_aside(run, path, str(error)))
    return lines


def set_aside_pack(run: RunFolder, pack_id: str, attempt: int, reason: str) -> str:
    """Moves the trials and the history of a pack into `set_aside/`."""
    name = pack_file_name(pack_id, attempt) + ".parquet"
    set_aside(run, run.history_dir / name, "")
    return set_aside(run, run.trials_dir / name, f"{run.trials_dir / name}: {reason}")


def set_aside(run: RunFolder, path: Path, reason: str) -> str:
    """Moves a file into `set_aside/`; returns a line about it."""
    run.set_aside_dir.mkdir(exist_ok=True)
    target = run.set_aside_dir / f"{path.parent.name}-{secrets.token_hex(2)}-{path.name}"
    path.replace(target)
    return f"{reason or path}; set aside as {target.relative_to(run.path)}"
