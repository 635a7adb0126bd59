"""Opens a run folder that is damaged in a thousand ways, and counts what must not happen.

    scripts/fuzz_run_folder [RUN] [--mutations N] [--seed S]

Each time a file of a copy of RUN (absent: of a made-up run) is changed, or replaced by a pipe, a
link, a folder or a gigabyte of zeros. Then `show`, `compare`, `report`, `predict` and what Python
offers must end within ten seconds, with a result or with a message: no traceback, no control
character in what is printed, and nothing changed outside of the folder. It prints the counts, and
exits with 1 if one of them is not 0.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

import trialrun
from trialrun.cli import main as run_command
from trialrun.errors import TrialrunError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

PATIENCE_S = 10
NUM_ZEROS = 1_000_000_000
FIGURES_EVERY = 50  # they take seconds to draw
EVIL = "\x1b]0;title\x07\x1b[2J\u202e=HYPERLINK(1)"
VALUES = (None, True, -1, 1e308, float("nan"), 2**70, "", EVIL, [], {}, [[]], {"a": None}, "v00")


class Hung(BaseException):
    """A command did not end; no handler of errors may catch it."""


# Mutations ---------------------------------------------------------------------------------------


def change_bytes(file: Path, rng: random.Random, _outside: Path) -> None:
    """Bytes are flipped, cut off, doubled or put in."""
    content = bytearray(file.read_bytes())
    at = rng.randrange(len(content) + 1)
    size = rng.choice((1, 4, 64, len(content)))
    match rng.randrange(4):
        case 0:
            content[at : at + size] = rng.randbytes(min(size, 4096))
        case 1:
            del content[at:]
        case 2:
            content[at:at] = content[at : at + size]
        case _:
            content[at:at] = rng.choice((b"\x00", b"\xff", EVIL.encode(), b"{", b"[" * 100_000))
    file.write_bytes(bytes(content))


def change_values(file: Path, rng: random.Random, outside: Path) -> None:
    """A value of a JSON or YAML file is another one; a column of a table holds others."""
    if file.suffix == ".parquet":
        _change_table(file, rng)
    elif file.suffix in (".json", ".yaml"):
        import yaml

        content = yaml.safe_load(file.read_text())
        for _ in range(rng.choice((1, 1, 3))):
            content = _with_another_value(content, rng)
        file.write_text(json.dumps(content))
    else:
        change_bytes(file, rng, outside)


def _with_another_value(content: Any, rng: random.Random) -> Any:
    if isinstance(content, dict) and content and rng.random() < 0.9:
        key = rng.choice(list(content))
        if rng.random() < 0.1:
            return {k: v for k, v in content.items() if k != key}
        return content | {key: _with_another_value(content[key], rng)}
    if isinstance(content, list) and content and rng.random() < 0.9:
        at = rng.randrange(len(content))
        return [*content[:at], _with_another_value(content[at], rng), *content[at + 1 :]]
    if rng.random() < 0.05:
        deep: Any = []
        for _ in range(rng.choice((50, 500))):
            deep = [deep]
        return deep
    return rng.choice(VALUES)


def _change_table(file: Path, rng: random.Random) -> None:
    table = pq.read_table(file)
    name = rng.choice(table.column_names)
    at, rows = table.column_names.index(name), table.num_rows
    columns: list[Callable[[], pa.Table]] = [
        lambda: table.drop_columns([name]),
        lambda: table.set_column(at, name, pa.array([EVIL] * rows)),
        lambda: table.set_column(at, name, pa.nulls(rows)),
        lambda: table.set_column(at, name, pa.array([rng.choice((0, -1, 2**62))] * rows)),
        lambda: table.set_column(at, name, pa.array([[1, 2, 3]] * rows)),
        lambda: table.rename_columns([EVIL if n == name else n for n in table.column_names]),
        lambda: table.slice(0, 0),
        lambda: pa.concat_tables([table, table]),
        lambda: table.replace_schema_metadata({b"trialrun.pack": rng.choice((b"", b"[]", b"{}"))}),
    ]
    pq.write_table(rng.choice(columns)(), file)


def replace_by_pipe(file: Path, _rng: random.Random, _outside: Path) -> None:
    """Nobody writes into the pipe, so that a reader would wait forever."""
    _remove(file)
    os.mkfifo(file)


def replace_by_link(file: Path, rng: random.Random, outside: Path) -> None:
    """The link leads out of the folder: to a file, a folder, nowhere, or a device."""
    _remove(file)
    targets = (outside / "precious.txt", outside, outside / "nothing", Path("/dev/zero"))
    file.symlink_to(rng.choice(targets))


def replace_by_folder(file: Path, _rng: random.Random, _outside: Path) -> None:
    """A folder where a file should be, or a file where a folder should be."""
    was_folder = file.is_dir()
    _remove(file)
    if was_folder:
        file.write_text("no folder")
    else:
        file.mkdir()


def replace_by_zeros(file: Path, _rng: random.Random, _outside: Path) -> None:
    """A gigabyte of zeros, which take no room on the disk."""
    _remove(file)
    with file.open("wb") as content:
        content.truncate(NUM_ZEROS)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


OF_FILES = (change_bytes, change_values, change_values, change_values)
REPLACEMENTS = (replace_by_pipe, replace_by_link, replace_by_folder, replace_by_zeros)


def mutate(run: Path, rng: random.Random, outside: Path, only: str = "**/*") -> str:
    """Changes a file or a folder of a run; returns what was done to which."""
    paths = sorted(run.glob(only))
    files = [path for path in paths if path.is_file() and path.stat().st_size]
    change = rng.choice(OF_FILES if rng.random() < 0.8 else REPLACEMENTS)
    path = rng.choice(files if change in OF_FILES else paths)
    change(path, rng, outside)
    return f"{change.__name__} {path.relative_to(run)}"


# What is done with the folder --------------------------------------------------------------------


def uses(run: Path, rows: Path | None) -> Iterator[Callable[[], None]]:
    """Commands and what Python offers; each raises what must not be raised."""
    commands: list[list[object]] = [["show", run], ["show", run, "--json"], ["show", run, "--csv"]]
    commands += [["show", run, "--rounds"], ["compare", run, "v00", "v01"], ["report", run]]
    if rows is not None:
        commands.append(["predict", run, "--input", rows])
    yield from (lambda words=words: _command(words) for words in commands)
    for name in ("trials", "history", "variants", "best", "figures", "_repr_html_"):
        if rows is not None or name != "figures":
            yield lambda name=name: _attribute(run, name)


def _command(words: list[object]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["trialrun", *map(str, words)]),
    ):
        try:
            run_command()
        except SystemExit as end:
            code = end.code
    assert code in (0, 1, 2), code
    for text in (out.getvalue(), err.getvalue()):
        assert "Traceback" not in text, text
        controls = {c for c in text if unicodedata.category(c) == "Cc"} - set("\n\t\r")
        assert not controls, f"control characters {controls}"


def _attribute(run: Path, name: str) -> None:
    with contextlib.suppress(TrialrunError), mock.patch.object(sys, "stderr", io.StringIO()):
        found = getattr(trialrun.open_run(run), name)
        if callable(found):
            found()


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raises Hung after some seconds."""

    def give_up(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(
    original: Path,
    num_mutations: int,
    seed: int,
    *,
    rows: Path | None = None,
    rows_every: int = FIGURES_EVERY,
    only: str = "**/*",
    patience_s: int = PATIENCE_S,
    tell: Callable[[str], None] = print,
) -> Counter[str]:
    """How often what must not happen did: `tracebacks`, `hangs`, `changes outside`.

    Args:
        original: A run folder; only copies of it are changed.
        num_mutations: How many copies are damaged and opened.
        seed: Decides how.
        rows: A file to predict; figures are drawn only with it.
        rows_every: They are used with every so many mutations only, as both take seconds.
        only: A pattern of the files and folders that are damaged.
        patience_s: How long each use may take.
        tell: Is given a line about each that happened.
    """
    rng = random.Random(seed)
    found: Counter[str] = Counter({"tracebacks": 0, "hangs": 0, "changes outside": 0})
    with tempfile.TemporaryDirectory() as folder:
        run, outside = Path(folder, "run"), Path(folder, "outside")
        outside.mkdir()
        (outside / "precious.txt").write_text("precious")
        for number in range(num_mutations):
            shutil.copytree(original, run)
            what = mutate(run, rng, outside, only)
            for use in uses(run, rows if number % rows_every == 0 else None):
                try:
                    with within(patience_s):
                        use()
                except Hung:
                    found["hangs"] += 1
                    tell(f"{number}: {what}: hung: {traceback.format_exc()}")
                except Exception:
                    found["tracebacks"] += 1
                    tell(f"{number}: {what}: {traceback.format_exc()}")
            if [path.name for path in Path(folder).iterdir() if path != run] != ["outside"] or {
                path.name: path.read_text() for path in outside.iterdir()
            } != {"precious.txt": "precious"}:
                found["changes outside"] += 1
                tell(f"{number}: {what}: something outside was changed")
            shutil.rmtree(run)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, help="a run folder that has ended")
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=int, default=PATIENCE_S, help="seconds for each use")
    parser.add_argument("--rows", type=Path, help="a file for `predict`")
    parser.add_argument("--rows-every", type=int, default=FIGURES_EVERY)
    parser.add_argument("--only", default="**/*", help="a pattern of what is damaged, e.g. best/*")
    chosen = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = chosen.run or made_up_run(Path(folder))
        with without_figures():
            found = fuzz(
                *(run, chosen.mutations, chosen.seed),
                rows=chosen.rows,
                rows_every=chosen.rows_every,
                only=chosen.only,
                patience_s=chosen.patience,
            )
    print(f"{chosen.mutations} mutations in {time.monotonic() - start:.0f} s:")
    for name, count in found.items():
        print(f"{name:>16} {count:6}")
    return int(any(found.values()))


def made_up_run(folder: Path) -> Path:
    """A run of three variants and three seeds that nobody trained."""
    from made_up_runs import finish, learning_rates, write_run

    return finish(write_run(folder, learning_rates(0.1, 0.2, 0.3), range(3))).path


@contextlib.contextmanager
def without_figures() -> Iterator[None]:
    """Reports without figures, which take most of the time and read nothing more."""
    with mock.patch("trialrun.report.figures.draw_figures", return_value=()):
        yield


if __name__ == "__main__":
    sys.exit(main())
