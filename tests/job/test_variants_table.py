"""`search.from`: a table of variants, which becomes rows of the job itself."""

import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from trialrun.cli import cli
from trialrun.errors import InputError
from trialrun.job import dump_job, load_job
from trialrun.store.variants_csv import variants_csv
from trialrun.trials.plan import plan_trials, plan_variants

JOB = """
    name: a
    seeds: 3
    search:
      method: from
      from: t.csv
"""
TABLE = """
    training.learning_rate,model.args.units,training.optimizer
    1e-3,"[16, 32]",adam
    0.01 , "[8]","{name: sgd, momentum: 0.9}"
"""
ROWS = [
    {"training.learning_rate": 0.001, "model.args.units": [16, 32], "training.optimizer": "adam"},
    {
        "training.learning_rate": 0.01,
        "model.args.units": [8],
        "training.optimizer": {"name": "sgd", "momentum": 0.9},
    },
]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a job that stands beside a table."""
    monkeypatch.chdir(tmp_path)

    def load(table=TABLE, overrides=(), job=JOB):
        Path("t.csv").write_text(textwrap.dedent(table).lstrip("\n"))
        Path("a.yaml").write_text(textwrap.dedent(job))
        return load_job("a.yaml", overrides).spec

    return load


def parameters(spec):
    return [dict(variant.parameters) for variant in plan_variants(spec)]


def refusal(load, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        load(*args, **kwargs)
    return str(caught.value)


def test_a_row_is_a_variant(load):
    spec = load()
    assert parameters(spec) == ROWS
    assert plan_variants(spec)[1].training.optimizer == {"name": "sgd", "momentum": 0.9}
    assert [variant.variant_id for variant in plan_variants(spec)] == ["v00", "v01"]
    assert load(overrides={"search.from": ROWS}) == spec


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1e-4", 1e-4),
        ("1e-05", 1e-5),
        ("3", 3),
        ("3.0", 3.0),
        ("True", True),
        ("no", "no"),
        ("null", None),
        ("'3'", "3"),
        ('"[1, [2, a]]"', [1, [2, "a"]]),
        ('"{""a"": 1.5}"', {"a": 1.5}),
        ("relu", "relu"),
    ],
)
def test_a_cell_is_read_as_yaml(load, cell, value):
    [variant] = parameters(load(f"model.args.units\n{cell}\n"))
    assert repr(variant) == repr({"model.args.units": value})


def test_the_leaderboard_of_an_earlier_run_is_a_table(load):
    table = """
        rank,variant_id,param.training.learning_rate,param.model.args.units,n,val_loss_mean
        1,v07,0.001,"[16, 32]",20,0.25
        2,v03,1e-05,"[8]",20,
    """
    assert parameters(load(table)) == [
        {"training.learning_rate": 0.001, "model.args.units": [16, 32]},
        {"training.learning_rate": 1e-5, "model.args.units": [8]},
    ]


TEXTS = (
    *("relu", "1e-3", "true", "null", "~", "", " x ", "a: b", "[1", "it's #1", "'", 'say "a"'),
    *("\\n", "a\nb", "\t", "!x", "*y", "a:", "a:b", "/a/b.py:f", "é è", "NULL", "- a", "nullable"),
)


@pytest.mark.parametrize(
    "value", [*TEXTS, None, 1, 1.0, 1e-05, True, [1, "2"], {"a": ["1e-3", 0.1]}, []]
)
def test_a_value_in_a_runs_leaderboard_is_read_as_itself(load, value):
    row = {"rank": 1, "param.model.args.units": value, "n": 2, "val_loss_mean": None}
    [variant] = parameters(load(variants_csv(list(row), [row])))
    assert repr(variant) == repr({"model.args.units": value})


def test_a_repeated_row_is_one_variant(load):
    table = "training.learning_rate,training.epochs\n1e-3,2\n0.01,2\n0.001,2\n0.01,3\n"
    spec = load(table)
    rates = [(one["training.learning_rate"], one["training.epochs"]) for one in parameters(spec)]
    assert rates == [(0.001, 2), (0.01, 2), (0.01, 3)]
    ids = [trial.trial_id for trial in plan_trials(spec)]
    assert len(ids) == len(set(ids)) == 9


def test_a_trial_of_a_table_is_the_same_trial_in_a_grid(load):
    def ids(spec):
        return {trial.trial_id for trial in plan_trials(spec)}

    grid = """
        name: b
        seeds: 3
        search: {parameters: {training.learning_rate: {values: [1e-3, 1e-2]}}}
    """
    assert ids(load("training.learning_rate\n1e-2\n1e-3\n")) == ids(load(job=grid))


MOMENTUM = "training.optimizer.momentum"
CONDITIONAL = f"""
    training.learning_rate,{MOMENTUM},training.optimizer.name
    0.1,,adam
    0.1,0.5,sgd
    0.2,0.5,sgd
    0.2,,adam
"""
CONDITIONAL_GRID = f"""
    name: b
    seeds: 3
    search:
      parameters:
        training.learning_rate: {{values: [0.1, 0.2]}}
        training.optimizer.name: {{values: [adam, sgd]}}
        {MOMENTUM}: {{values: [0.5], when: {{training.optimizer.name: sgd}}}}
"""


def test_a_row_does_not_have_a_parameter_whose_cell_is_empty(load):
    table = load(CONDITIONAL)
    assert [MOMENTUM in one for one in parameters(table)] == [False, True, True, False]
    assert list(table.search.domains) == [
        "training.learning_rate",
        MOMENTUM,
        "training.optimizer.name",
    ]
    grid = load(job=CONDITIONAL_GRID)
    ids = [{trial.trial_id for trial in plan_trials(spec)} for spec in (table, grid)]
    assert ids[0] == ids[1]
    Path("job.yaml").write_text(dump_job(table))
    assert load_job("job.yaml").spec == table


def test_an_argument_that_a_row_leaves_out_must_not_be_needed(load):
    Path("nets.py").write_text("def own(width): ...\n")
    table = "training.epochs,model.args.width\n2,3\n3,\n"
    text = refusal(load, table, overrides=["model.builder=nets.py:own"])
    assert text.startswith("t.csv:3: nets.py:own needs an argument 'width', which this row leaves")
    args = ["model.builder=nets.py:own", "model.args={width: 1}"]
    assert len(parameters(load(table, overrides=args))) == 2


def test_the_plan_of_a_table_shows_a_dash_for_an_empty_cell(load, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    load(CONDITIONAL)
    said = CliRunner().invoke(cli, ["plan", "a.yaml"])
    assert said.exit_code == 0, said.output
    rows = [line.split() for line in said.output.splitlines()]
    assert ["v00", "0.1", "-", "adam"] in rows
    assert ["v01", "0.1", "0.5", "sgd"] in rows
    assert [MOMENTUM, "yes"] in rows


def test_a_resolved_job_needs_no_table(load):
    Path("nets.py").write_text("def own(units=(3,)): ...\n")
    for table in (TABLE, "model.builder\nnets.py:own\ntrialrun.models:mlp\n"):
        spec = load(table)
        Path("t.csv").unlink()
        Path("elsewhere").mkdir(exist_ok=True)
        resolved = Path("elsewhere", "job.yaml")
        resolved.write_text(dump_job(spec))
        again = load_job(resolved).spec
        assert again == spec
        assert parameters(again) == parameters(spec)


@pytest.mark.parametrize(("cell", "num_fitting"), [("[{}]", 90), ("'\t{}'", 580)])
def test_a_table_that_is_not_too_large_fits_into_the_job_of_a_run(load, cell, num_fitting):
    def table(num_rows):
        content = ", ".join(["1"] * 333)
        cells = [cell.format(f"{number}, {content}") for number in range(num_rows)]
        return "model.args.units\n" + "".join(f'"{one}"\n' for one in cells)

    spec = load(table(num_fitting))
    Path("job.yaml").write_text(dump_job(spec))
    assert load_job("job.yaml").spec == spec
    assert refusal(load, table(2 * num_fitting)).startswith(
        f"t.csv: is too large for a job; of {2 * num_fitting:,} rows, about"
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("learning_rate\n1\n", "t.csv:1: 'learning_rate' cannot be searched; did you mean"),
        ("training.epoch\n1\n", "t.csv:1: 'training.epoch' cannot be searched: training has no"),
        ("training.engine\nkeras\n", "t.csv:1: 'training.engine' cannot be searched: it must be"),
        ("training.epochs,note\n1,good\n", "t.csv:1: 'note' cannot be searched; allowed: data.*"),
        ("training.epochs,\n1,2\n", "t.csv:1: column 2 has no name; give it a dotted path"),
        (
            "training.epochs,param.training.epochs\n1,2\n",
            "t.csv:1: the columns 1 and 2 are both 'training.epochs'",
        ),
        (
            "training.optimizer,training.optimizer.name\nadam,sgd\n",
            "t.csv:1: 'training.optimizer.name' lies inside 'training.optimizer'",
        ),
        ("training.epochs\n2\n\n0\n", "t.csv:4: training.epochs must be at least 1, got 0"),
        ('model.args.units\n"[8,\n9]"\n"[1"\n', "t.csv:4: model.args.units: not YAML: expected"),
        ("model.args.units\n!!python/none x\n", "t.csv:2: model.args.units: the tag"),
        (
            'model.args.units\n8\n"#ff0000"\n',
            "t.csv:3: model.args.units: '#ff0000' holds a comment",
        ),
        ("model.args.activation\nrelu #x\n", "t.csv:2: model.args.activation: 'relu #x' holds a"),
        (
            "training.epochs,training.batch_size\n2,3\n,3\n2,0\n",
            "t.csv:4: training.batch_size must be at least 1, got 0",
        ),
        (
            "training.optimizer.name,training.optimizer.momentum\nadam,\n,0.9\n",
            "t.csv:3: training.optimizer: adam takes no argument 'momentum'",
        ),
        (
            "training.optimizer.name,training.optimizer.momentum\nsgd,0.9\nadam,0.9\n",
            "t.csv:3: the values of a row do not fit: training.optimizer",
        ),
        (
            "training.epochs,training.batch_size\n2,4\n,4\n30,4\n",
            "t.csv:4: row 3 of search.from is the same variant as row 2; an empty cell stands for",
        ),
        (
            "rank,param.training.epochs,param.training.batch_size\n1,2,4\n2,,\n",
            "t.csv:3: has no value in any column of a parameter; leave it out",
        ),
        (
            "training.learning_rate\n1\n1.0\n",
            "t.csv:3: training.learning_rate: 1 and 1.0 are the same; write both alike",
        ),
        ("model.args.units\n[1, 2]\n", "t.csv:2: has 2 fields, but the header has 1; put quotes"),
        ('training.epochs\n2\n"3\n', "t.csv:3: cannot be read as CSV: unexpected end of data"),
        ("training.epochs\n", "t.csv: holds no variant"),
        ("", "t.csv: holds no variant"),
    ],
)
def test_a_wrong_table_is_refused_with_file_line_and_column(load, table, message):
    assert refusal(load, table).startswith(message)


def test_text_that_is_not_utf8_is_refused(load):
    load()
    Path("t.csv").write_bytes(b"training.epochs\n\xff\n")
    with pytest.raises(InputError, match=r"^t.csv: not UTF-8 text \(byte 16\)"):
        load_job("a.yaml")


def test_of_many_wrong_rows_the_first_are_told(load):
    text = refusal(load, "training.epochs\n" + "".join(f"-{n}\n" for n in range(100)))
    assert text.splitlines()[-1] == "and 80 more problems"
    assert len(text.splitlines()) == 21


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.from=u.csv", "search.from: there is no file"),
        ("search.from=null", "search.from is missing; give a CSV file with a column for each"),
        ("search.from=3", "search.from must be a CSV file or a list of mappings, got 3"),
        ("search.from=[]", "search.from must not be empty"),
        ("search.from=[{}]", "search.from must give each variant as a mapping"),
        ("search.from=[{training.epochs: 0}]", "training.epochs must be at least 1, got 0"),
        ("search.rows=[{training.epochs: 1}]", "unknown key 'rows' in search"),
        ("search.method=grid", "search.from is only for method: from, got method: grid"),
        ("search.num_variants=3", "search.num_variants is only for method: random"),
        (
            "search.parameters={training.epochs: {values: [1]}}",
            "search.parameters must be left out, because search.from has the values",
        ),
    ],
)
def test_what_does_not_go_with_a_table_is_refused(load, override, message):
    assert refusal(load, overrides=[override]).startswith(f"--set {override}: {message}")


def test_what_the_job_sets_is_checked_with_the_columns(load):
    with pytest.raises(InputError, match=r"val_loss cannot be compared, because training\.loss"):
        load("training.loss\nmse\nmae\n")
