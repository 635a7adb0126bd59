"""What submit_ray.sh sends, and what it refuses before anything is sent."""

import sys

import pytest
from commands import ROOT

from trialrun.errors import InputError

sys.path.append(str(ROOT / "scripts"))
from ray_job_files import command_path, copy_to, describe, find_needed, require_sendable


@pytest.fixture
def folder(tmp_path):
    """A job's folder, with much that no job needs."""
    folder = tmp_path / "job"
    sources = {
        "nets.py": "from parts.layer import units\nimport numpy\n\n\ndef build():\n    pass\n",
        "parts/__init__.py": "",
        "parts/layer.py": "import outside\n\nunits = 4\n\n\ndef loss(y, p):\n    pass\n",
        "reader.py": "def f(seed):\n    return open('d.csv').read()\n",
        "module.py": "def build():\n    pass\n",
        "unneeded.py": "",
        "d.csv": "x,y\n",
        "tables/v.csv": "",
        "tables/builders.csv": "model.builder\nnets.py:build\nmodule.py:build\n",
        "a:b.py": "def build():\n    pass\n",
        ".env": "secret",
        ".hidden/layer.py": "def f():\n    pass\n",
        "runs/a/job.yaml": "",
        "large.bin": "x" * 2000,
        "random/reader.py": "",
        "pandas/__init__.py": "",
        "pandas/nets.py": "def build():\n    pass\n",
        "secrets.py": "def build():\n    pass\n",
        "nul.py": "\0",
        ".gitignore": "d.csv\n",
    }
    for name, content in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (tmp_path / "outside.py").write_text("")
    (tmp_path / ".outside").write_text("")
    links = {
        "link.py": "module.py",
        "env.csv": ".env",
        "hidden": ".hidden",
        "outside.csv": "../.outside",
        "unreadable.py": "/proc/self/mem",
        ".job.yaml": "job.yaml",
        "linked.yaml": ".env",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    return folder


def needed(folder, job, *options):
    (folder / "job.yaml").write_text(f"name: a\n{job}\n")
    found = find_needed(folder / "job.yaml", options)
    return {str(path.relative_to(folder)) for path in found.files} - {"job.yaml"}


CODE = {"nets.py", "parts/__init__.py", "parts/layer.py"}
MODULE = {"module.py"}


@pytest.mark.parametrize(
    ("job", "options", "files"),
    [
        ("", (), set()),
        ("data: {csv: d.csv, target: y}", (), {"d.csv"}),  # although git ignores it
        ("model: {builder: 'nets.py:build'}", (), CODE),
        ("", ("--set", "seeds=3", "--set=training.loss=parts/layer.py:loss"), {"parts/layer.py"}),
        ("model: {builder: 'module:build'}", (), {"module.py"}),
        ("model: {builder: 'parts.layer:loss'}", (), CODE - {"nets.py"}),
        pytest.param(
            "model: {builder: 'keras.applications:VGG16'}", (), set(), marks=pytest.mark.tensorflow
        ),
        ("model: {builder: 'trialrun.models:mlp'}", (), set()),
        ("model: {depends_on: ['*.bin', parts]}", (), CODE - {"nets.py"} | {"large.bin"}),
        (
            "search: {method: from, from: tables/builders.csv}",
            (),
            {"tables/builders.csv", "module.py"} | CODE,
        ),
        (
            "",
            ("--set", "search.from=tables/builders.csv"),
            {"tables/builders.csv", "module.py"} | CODE,
        ),
        (
            "search: {parameters: {data.depends_on: {values: [[d.csv], [large.bin]]}}}",
            (),
            {"d.csv", "large.bin"},
        ),
        ("model: {builder: 'a:b.py:build'}", (), {"a:b.py"}),
        (
            f"model: {{args: {{k: '{'x' * 300}:y', m: 'parts:train', n: 'see gone.py:x'}}}}",
            (),
            set(),
        ),
        (
            "search: {parameters: {model.builder: {values: ['nets.py:build', 'module.py:build']}}}",
            (),
            CODE | {"module.py"},
        ),
        ("data: {npz: /scratch/large.npz}", (), set()),
        ("data: {csv: e.csv}", ("--set", "data.csv=d.csv"), {"d.csv"}),  # and not both
        ("data: {csv: e.csv}", ("--set=data={csv: d.csv}",), {"d.csv"}),
        ("model: {builder: 'gone.py:build'}", ("--set", "model.builder=module.py:build"), MODULE),
        ("search: {from: gone.csv}", ("--set", "search.from=[{data.csv: d.csv}]"), {"d.csv"}),
        (
            "training: {loss: {out: {name: 'module.py:build', note: 'gone.py:f'}}}",
            (),
            MODULE,
        ),
        ("model: {builder: 'link.py:build'}", (), {"link.py"}),
        ("model: {depends_on: [random]}", (), {"random/reader.py"}),
        ("data: {csv: e.csv}", ("--run-folder", "--set", "--set", "data.csv=d.csv"), {"d.csv"}),
    ],
)
def test_what_a_job_needs_is_sent_and_nothing_else(folder, job, options, files):
    assert needed(folder, job, *options) == files


def test_the_code_that_a_table_elsewhere_names_is_sent_without_the_table(folder, tmp_path):
    table = tmp_path / "storage.csv"
    table.write_text("model.builder\nnets.py:build\n")
    assert needed(folder, f"search: {{from: {table}}}") == CODE
    assert needed(folder, "search: {from: /scratch/gone.csv}") == set()


def test_a_job_that_is_a_link_is_what_trialrun_would_run_here(folder):
    (folder / "job.yaml").write_text("name: a\ndata: {csv: d.csv}\n")
    (folder / "tables" / "job.yaml").symlink_to("../job.yaml")
    with pytest.raises(InputError, match=r"there is no file .*/tables/d.csv"):
        find_needed(folder / "tables" / "job.yaml", ())
    for name in (".job.yaml", "linked.yaml"):
        with pytest.raises(InputError, match=r"the job itself: .*begins with a dot"):
            find_needed(folder / name, ())


def test_hostile_names_and_modules_found_elsewhere_are_told(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "elsewhere.py").write_text("def build():\n    pass\n")
    (tmp_path / "data.csv").write_text("12")
    (folder / "shared.csv").symlink_to(tmp_path / "data.csv")
    (folder / "-job.yaml").write_text(
        "name: a\nmodel: {builder: 'elsewhere:build', depends_on: ['a[!:]*', shared.csv]}\n"
    )
    (folder / "a\n\x1b[2J").write_text("")
    found = find_needed(folder / "-job.yaml", ())
    told = describe(folder, found).splitlines()
    assert told[2:] == [
        "  a\u240a\u241b[2J  0 bytes",
        f"  shared.csv -> {tmp_path}/data.csv  2 bytes",
        f"Warning: the job's code imports {tmp_path}/elsewhere.py, which is outside of {folder} and"
        " is not sent; install it on the cluster, or move it beside the job file",
    ]
    assert command_path(folder / "-job.yaml") == "./-job.yaml"
    with (folder / "a\n\x1b[2J").open("r+") as file:
        file.truncate(2 << 30)
    with pytest.raises(
        InputError, match=r"too large to send; the largest are a\u240a\S+ \(2.0 GiB"
    ):
        require_sendable(folder / "-job.yaml", found.files)


def test_what_is_sent_is_listed_with_what_may_be_missing_there(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    job = "model: {builder: 'nets.py:build'}\ndata: {generator: 'reader.py:f'}\n"
    (folder / "job.yaml").write_text(job)
    found = find_needed(folder / "job.yaml", ())
    names = ("job.yaml", "nets.py", "parts/__init__.py", "parts/layer.py", "reader.py")
    sizes = [(folder / name).stat().st_size for name in names]
    assert describe(folder, found).splitlines() == [
        f"Sending 5 files of {folder}, {sum(sizes)} bytes:",
        *(f"  {name}  {size} bytes" for name, size in zip(names, sizes, strict=True)),
        f"Warning: the job's code imports {tmp_path}/outside.py, which is outside of {folder} and"
        " is not sent; install it on the cluster, or move it beside the job file",
        "Warning: reader.py:2 seems to read a file. What the code reads is sent if data.depends_on"
        " or model.depends_on names it",
    ]
    copy_to(tmp_path / "copy", folder, found.files)
    copied = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert sorted(path.relative_to(tmp_path / "copy") for path in copied) == [
        path.relative_to(folder) for path in found.files
    ]
    assert (tmp_path / "copy" / "nets.py").read_text() == (folder / "nets.py").read_text()


@pytest.mark.parametrize(
    ("job", "options", "message"),
    [
        ("data: {generator: '../outside.py:f'}", (), r"data.generator: ../outside.py is not sent"),
        ("model: {depends_on: [../outside.py]}", (), "model.depends_on: ../outside.py is not sent"),
        ("model: {depends_on: [gone]}", (), "must match at least one file, but .*gone matches no"),
        ("model: {depends_on: [.env]}", (), "model.depends_on: .*begins with a dot may hold what"),
        ("data: {csv: e.csv}", (), "data.csv: there is no file .*e.csv"),
        ("data: {csv: runs}", (), "data.csv: .*runs is not a file"),
        ("data: {csv: '~no_such_user/d.csv'}", (), "data.csv: there is no file"),
        (f"data: {{csv: {'x' * 300}.csv}}", (), "data.csv: .*cannot be read: File name too long"),
        ("model: {depends_on: [../job/d.csv]}", (), "model.depends_on: ../job/d.csv is not sent"),
        ("model: {depends_on: [/x/d.csv]}", (), "model.depends_on: /x/d.csv is not sent"),
        ("search: {from: ../variants.csv}", (), "search.from: ../variants.csv is not sent"),
        ("", ("--set", "model.builder=/x/nets.py:f"), "model.builder: /x/nets.py is not sent"),
        ("training: {metrics: ['.gone.py:m']}", (), "training.metrics: there is no file"),
        (
            "training: {metrics: ['.hidden/layer.py:f']}",
            (),
            "training.metrics: .*begins with a dot",
        ),
        (
            "data: {csv: env.csv}",
            (),
            r"data.csv: .*env.csv, which .* is a link to .*/\.env, and is",
        ),
        ("model: {depends_on: [hidden]}", (), "hidden/layer.py, which .* begins with a dot"),
        ("data: {csv: outside.csv}", (), "is a link to .*/.outside, .* begins with a dot"),
        (
            "model: {builder: 'pandas/nets.py:build', depends_on: [pandas]}",
            (),
            "place of pandas, .* rename it",
        ),
        (
            "model: {builder: 'secrets.py:build'}",
            (),
            "secrets.py, which .* place of secrets, .* rename it",
        ),
        ("model: {builder: nets.py}", (), "model.builder: expected module:function or file.py:fu"),
        ("model: {builder: 'nets.py:buidl'}", (), "model.builder: .* did you mean 'build'"),
        ("model: {builder: 'nul.py:f'}", (), r"model.builder: nul.py: not valid Python: .*null"),
        ("model: {builder: 'unreadable.py:f'}", (), "model.builder: unreadable.py: cannot be read"),
        ("model: {builder: 'parts.gone:f'}", (), "model.builder: there is no module 'parts.gone'"),
        ("", ("--no-wait",), "No such option '--no-wait'.*follows the job file are options of"),
        ("", ("--set", "x"), "--set x: expected key=value"),
        ("", ("--set",), "'--set' requires an argument"),
    ],
)
def test_what_would_fail_there_fails_here(folder, job, options, message):
    with pytest.raises(InputError, match=message):
        needed(folder, job, *options)
