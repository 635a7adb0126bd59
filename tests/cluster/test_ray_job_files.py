"""What submit_ray.sh sends, and what it refuses before anything is sent."""

import os
import sys

import pytest
from commands import ROOT

from trialrun.errors import InputError

sys.path.append(str(ROOT / "scripts"))
from ray_job_files import check_files, describe, files_to_send


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "job"
    for name in (".env", ".ssh/id_rsa", "runs/a/job.yaml", "__pycache__/nets.pyc", "large.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("secret")
    (folder / "parts").mkdir()
    for name in ("nets.py", "parts/layer.py", "d.csv"):
        (folder / name).write_text("x" * 2000)
    (folder / ".rayignore").write_text("large.bin\nstays.py\n")
    (folder / "stays.py").write_text("")
    (folder / "needs.py").write_text("import stays\n")
    (tmp_path / "outside.py").write_text("")
    return folder


def check(folder, job, *options):
    (folder / "job.yaml").write_text(job)
    check_files(folder / "job.yaml", options, files_to_send(folder))


def test_dotfiles_runs_and_ignored_files_stay_here(folder):
    sent = files_to_send(folder)
    assert [str(path.relative_to(folder)) for path in sent] == [
        "d.csv",
        "needs.py",
        "nets.py",
        "parts/layer.py",
    ]
    assert describe(folder, sent).splitlines() == [
        f"Sending 4 files of {folder}, 5.9 KiB:",
        "  d.csv  2.0 KiB",
        "  needs.py  13 bytes",
        "  nets.py  2.0 KiB",
        "  parts/layer.py  2.0 KiB",
    ]


def test_a_pipe_is_refused_instead_of_waited_for(folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(InputError, match="pipe: is neither a file nor a folder"):
        files_to_send(folder)


def test_what_a_job_names_and_is_sent_is_accepted(folder):
    job = "name: a\ndata: {csv: d.csv, target: y}\nmodel: {builder: 'nets.py:build'}\n"
    check(folder, job, "--set", "seeds=3", "--set=training.loss=parts/layer.py:loss")
    check(folder, "name: a\ndata: {npz: /scratch/large.npz}\n")
    check(folder, "name: a\nmodel: {depends_on: ['*.csv', parts]}\n")


@pytest.mark.parametrize(
    ("job", "options", "message"),
    [
        (
            "data: {generator: '../outside.py:f'}",
            (),
            r"data.generator: ../outside.py:f is not sent",
        ),
        ("model: {builder: 'needs.py:f'}", (), "model.builder: .*stays.py, which it needs, is not"),
        ("model: {depends_on: ['*.bin']}", (), "model.depends_on: .*large.bin, which it needs, is"),
        ("model: {depends_on: [gone]}", (), "must match at least one file, but .*gone matches no"),
        ("data: {npz: large.bin}", (), "data.npz: large.bin is not sent"),
        ("data: {csv: e.csv}", (), "data.csv: there is no file .*e.csv"),
        ("search: {from: runs/a/variants.csv}", (), "search.from: runs/a/variants.csv is not sent"),
        ("", ("--set", "model.builder=/x/nets.py:f"), "model.builder: /x/nets.py:f is not sent"),
        ("training: {metrics: ['.env.py:m']}", (), "training.metrics: there is no file"),
    ],
)
def test_what_would_fail_there_fails_here(folder, job, options, message):
    with pytest.raises(InputError, match=message):
        check(folder, f"name: a\n{job}\n", *options)
