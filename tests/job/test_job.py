import textwrap
from pathlib import Path

import pytest
import yaml

from trialrun.errors import InputError
from trialrun.job import JobSpec, dump_job, load_job, settings_of

JOBS = Path(__file__).parents[2] / "jobs"

NETS = """
def mlp(units, activation="relu"): ...
def cnn(**args): ...
def data(seed, rows=3): ...
def no_seed(rows=3): ...
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a job file beside nets.py and gives its path, relative as users type it."""
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)

    def write(text):
        path = Path("a.yaml")
        path.write_text(textwrap.dedent(text))
        return path

    return write


def refusal(path, overrides=()):
    with pytest.raises(InputError) as caught:
        load_job(path, overrides)
    return str(caught.value)


# What a job may leave out, and what it may say -------------------------------------------------


def test_a_name_is_all_that_a_job_needs(write):
    spec = load_job(write("name: a")).spec
    assert spec.data.generator == "trialrun.datasets:medical_trial"
    assert spec.model.builder == "trialrun.models:mlp"
    assert (spec.training.learning_rate, spec.training.epochs) == (1e-4, 30)
    assert spec.seed_list == (0, 1, 2, 3, 4)
    assert (spec.select.metric, spec.select.goal) == ("val_loss", "minimize")


def test_the_reference_job_says_what_its_file_says():
    spec = load_job(JOBS / "medical_trial.yaml").spec
    assert spec.model.args == {"units": [16, 32], "activation": "relu"}
    assert spec.training.learning_rate == 1e-4
    assert spec.seed_list == tuple(range(20))
    assert spec.search.parameters["training.learning_rate"].values == (1e-4, 3e-4, 1e-3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("2020-01-01", "2020-01-01"),
        ("~", None),
        ("True", True),
        ("'1e-4'", "1e-4"),
        (".inf", float("inf")),
        ("!!str 3", "3"),
    ],
)
def test_values_are_read_by_the_rules_of_yaml_1_2_and_survive_being_written(write, text, value):
    spec = load_job(write(f"name: a\nmodel: {{builder: nets.py:cnn, args: {{x: {text}}}}}")).spec
    assert repr(spec.model.args["x"]) == repr(value)
    assert load_job(write(dump_job(spec))).spec == spec


@pytest.mark.parametrize(
    ("metric", "goal"),
    [
        ("val_loss", "minimize"),
        ("val_accuracy", "maximize"),
        ("val_auc", "maximize"),
        ("val_mae", "minimize"),
        ("val_R2Score", "maximize"),
        ("val_FalsePositives", "minimize"),
    ],
)
def test_the_goal_of_a_known_metric_is_filled_in(write, metric, goal):
    path = write(f"""
        name: a
        training: {{metrics: [accuracy, auc, mae, R2Score, FalsePositives]}}
        select: {{metric: {metric}}}
        """)
    assert load_job(path).spec.select.goal == goal


def test_an_optimizer_is_a_name_in_any_case_or_a_mapping(write):
    assert (
        load_job(write("name: a\ntraining: {optimizer: AdamW}")).spec.training.optimizer == "adamw"
    )
    mapping = load_job(write("name: a\ntraining: {optimizer: {name: SGD, momentum: 0.9}}"))
    assert mapping.spec.training.optimizer == {"name": "sgd", "momentum": 0.9}


@pytest.mark.parametrize(
    ("optimizer", "assignment", "expected"),
    [
        ("sgd", {"momentum": 0.5}, {"name": "sgd", "momentum": 0.5}),
        ("adam", {"name": "sgd"}, {"name": "sgd"}),
        ("{name: adam, beta_1: 0.8}", {"beta_2": 0.9}, {"beta_1": 0.8, "beta_2": 0.9}),
    ],
)
def test_arguments_are_searched_beside_a_name_alone(write, optimizer, assignment, expected):
    spec = load_job(write(f"name: a\ntraining: {{optimizer: {optimizer}}}")).spec
    paths = {f"training.optimizer.{name}": value for name, value in assignment.items()}
    assert settings_of(spec, paths).training.optimizer.items() >= expected.items()


def test_a_job_is_never_changed(write):
    spec = load_job(write("name: a")).spec
    with pytest.raises(ValueError, match="frozen"):
        spec.training.epochs = 3


# Overrides -------------------------------------------------------------------------------------


def test_overrides_are_read_as_yaml_and_win(write):
    path = write("name: a\ntraining: {epochs: 3}")
    overrides = [
        "training.epochs=7",
        "training.learning_rate=1e-3",
        "seeds=[4, 2]",
        "search.parameters.training.learning_rate.values=[1e-4, 1e-3]",
        "search.parameters.training.batch_size={values: [5]}",
    ]
    spec = load_job(path, overrides).spec
    assert (spec.training.epochs, spec.training.learning_rate) == (7, 1e-3)
    assert spec.seed_list == (4, 2)
    parameters = spec.search.parameters
    assert {path: spec.values for path, spec in parameters.items()} == {
        "training.learning_rate": (1e-4, 1e-3),
        "training.batch_size": (5,),
    }


def test_overrides_may_be_python_values(write):
    overrides = {"training.epochs": 7, "seeds": (1, 2), "model.args": {"units": (3,)}}
    spec = load_job(write("name: a"), overrides).spec
    assert (spec.training.epochs, spec.seed_list) == (7, (1, 2))
    assert spec.model.args == {"units": [3]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=0", "training.epochs must be at least 1, got 0"),
        ("training.epochs=", "training.epochs must be an integer, got nothing"),
        ("training.epocs=3", "unknown key 'epocs' in training; did you mean 'epochs'?"),
        ("training.epochs", "expected key=value, e.g. --set training.epochs=10"),
        ("training.epochs=[1", "not YAML: expected ',' or ']', but got '<stream end>'"),
        ("name.x=1", "name is 'a', not a mapping, so that 'x' cannot be set in it"),
        ("training.epochs.x=1", "training.epochs must be an integer, got {'x': 1}"),
        ("seeds={a: 1, a: 2}", None),
    ],
)
def test_a_wrong_override_is_named_as_the_user_typed_it(write, override, message):
    shown = refusal(write("name: a"), [override])
    assert shown.startswith(f"--set {override}: ")
    assert message is None or shown == f"--set {override}: {message}"


def test_an_override_that_is_no_plain_value_is_refused(write):
    shown = refusal(write("name: a"), {"model.args.x": {1, 2}})
    assert "expected numbers, text, lists and mappings, got set {1, 2}" in shown


def test_a_value_that_is_no_text_is_refused(write):
    """As the command line gives a byte that is not UTF-8."""
    with pytest.raises(InputError, match=r"^--set name=.*: not YAML: "):
        load_job(write("name: a"), ["name=\udcff"])


# Files that are no jobs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.yaml: the file is empty; expected at least `name: ...`"),
        (b"# only a comment\n", "a.yaml: the file is empty"),
        (b"- a\n- b", "a.yaml: expected a mapping of keys to values, got ['a', 'b']"),
        (b"name: \xff", "a.yaml: not UTF-8 text (byte 6)"),
        (b"name: a\nseeds: 1: 2", "a.yaml:2: not YAML: mapping values are not allowed here"),
        (b"name: a\n\tseeds: 1", "a.yaml:2: not YAML: found character '\\t'"),
        (b"name: \x00", "a.yaml: not YAML: "),
        (b"name: a\n---\nname: b", "a.yaml:2: not YAML: but found another document"),
        (b"name: a\nname: b", "a.yaml:2: the key 'name' was already given at a.yaml:1"),
        (b"name: a\ndata:\n  args: {x: 1, x: 2}", "a.yaml:3: the key 'x' was already given"),
        (b"name: a\n1: 2", "a.yaml:2: a key must be text, got 1; put quotes around it"),
        (b"name: *b", "a.yaml:1: not YAML: found undefined alias 'b'"),
        (b"name: a\ndata: &d {args: {x: *d}}", "a.yaml:2: this alias holds itself, so that"),
        (
            b"name: a\nmodel:\n  args: {x: !!python/object/apply:os.system [ls]}",
            "a.yaml:3: the tag !!python/object/apply:os.system is refused; only plain values",
        ),
        (b"name: !mine a", "a.yaml:1: the tag !mine is refused"),
        (b"seeds: !!int ten", "a.yaml:1: 'ten' is not of type int"),
    ],
)
def test_a_file_that_is_no_plain_yaml_mapping_is_refused(write, content, message):
    path = write("")
    path.write_bytes(content)
    assert refusal(path).startswith(message)


def test_a_missing_file_and_a_folder_are_refused(write, tmp_path):
    assert refusal("b.yaml") == "b.yaml: there is no such file"
    assert refusal(tmp_path) == f"{tmp_path}: this is a folder; expected a YAML file"


# Fields that are wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("training: {epochs: ten}", "training.epochs must be an integer, got 'ten'"),
        ("training: {epochs: 2.5}", "training.epochs must be an integer, got 2.5"),
        ("training: {epochs: true}", "training.epochs must be an integer, got true"),
        ("training: {epochs: 0}", "training.epochs must be at least 1, got 0"),
        ("training: {batch_size: -1}", "training.batch_size must be at least 1, got -1"),
        ("training: {learning_rate: -1}", "training.learning_rate must be greater than 0, got -1"),
        ("training: {learning_rate: .nan}", "training.learning_rate must be "),
        ("training: {learning_rate: .inf}", "training.learning_rate must be finite, got inf"),
        ("training: {learning_rate: '1'}", "training.learning_rate must be a number, got '1'"),
        ("training: {learning_rate: true}", "training.learning_rate must be a number, got true"),
        (
            "training: {optimizer: adm}",
            "training.optimizer must be a Keras optimizer, got 'adm'; did",
        ),
        ("training: {optimizer: {momentum: 1}}", "training.optimizer must be a name, or a mapping"),
        ("training: {optimizer: 3}", "training.optimizer must be a name, or a mapping"),
        (
            "training: {optimizer: {name: sgd, learning_rate: 1}}",
            "training.optimizer holds a learning_rate; give it as training.learning_rate instead",
        ),
        ("training: {loss: msee}", "training.loss must be a Keras loss, got 'msee'; did you mean"),
        (
            "search: {rounds: auto, budget: {}}",
            "search.budget must give trials or time, got neither",
        ),
        (
            "search: {budget: {trials: 9}}",
            "search.budget: without rounds every variant gets every seed; give search.rounds",
        ),
        (
            "search: {rounds: {method: race}, budget: {trials: 9}}",
            "search.budget.trials: a race takes as many trials as its tests need",
        ),
        (
            "search: {rounds: auto, budget: {time: 2 days}}",
            "search.budget.time must be a time in hours, minutes or seconds, such as 2h, 90m",
        ),
        ("training: {metrics: accuracy}", "training.metrics must be a list, got 'accuracy'"),
        (
            "training: {metrics: [acuracy]}",
            "training.metrics must be a Keras metric, got 'acuracy'",
        ),
        (
            "training: {metrics: [auc, auc]}",
            "training.metrics must be distinct, got ['auc', 'auc']",
        ),
        (
            "training: {optimizer: {name: adam, beta1: 0.9}}",
            "training.optimizer: adam takes no argument 'beta1'; did you mean 'beta_1'",
        ),
        (
            "training: {optimizer: {name: sgd, momentum: 7}}",
            "training.optimizer: sgd's momentum must be a number from 0 to 1, got 7",
        ),
        (
            "training: {optimizer: {name: sgd, clipnorm: 1, clipvalue: 1}}",
            "training.optimizer holds clipnorm and clipvalue; an optimizer clips in only one way",
        ),
        (
            "training: {optimizer: {name: sgd, loss_scaling: 3}}",
            "training.optimizer: loss_scaling must be true or a mapping of initial_scale, dynamic_",
        ),
        (
            "training: {learning_rate_schedule: {name: cosine_decay}}",
            "training.learning_rate_schedule: cosine_decay needs an argument 'decay_steps', an int",
        ),
        (
            "training: {learning_rate_schedule: {name: cosine, decay_steps: 3}}",
            "training.learning_rate_schedule must be a Keras schedule, got 'cosine'; did you mean",
        ),
        (
            "training: {learning_rate_schedule: {name: cosine_decay, decay_steps: 3,"
            " decay_epochs: 1}}",
            "training.learning_rate_schedule holds both decay_steps and decay_epochs; give one",
        ),
        (
            "training: {learning_rate_schedule: {name: piecewise_constant_decay, boundaries: [3],"
            " values: [1]}}",
            "training.learning_rate_schedule: piecewise_constant_decay needs one value more than",
        ),
        (
            "training: {loss: {name: huber, delt: 3}}",
            "training.loss: huber takes no argument 'delt'; did you mean 'delta'?",
        ),
        (
            "training: {loss: {a: mse, b: msee}}",
            "training.loss: of b: must be a Keras loss, got 'msee'; did you mean",
        ),
        (
            "training: {loss: {a: mse, b: mse}, metrics: [mae]}",
            "training.metrics must be a mapping with a list for each of the outputs a, b",
        ),
        (
            "training: {loss: {a: mse, b: mse}, metrics: {aa: [mae]}}",
            "training.metrics: has an output 'aa' without a loss; did you mean 'a'?",
        ),
        (
            "training: {loss_weights: {a: 1}}",
            "training.loss_weights: needs a loss per output",
        ),
        (
            "training: {metrics: [f1_score]}",
            "training.metrics: f1_score needs an argument 'average', 'micro' or 'macro' or",
        ),
        (
            "training: {metrics: [{name: mean_io_u}]}",
            "training.metrics: mean_io_u needs an argument 'num_classes', an integer of at least 1",
        ),
        (
            "training: {metrics: [{name: auc, as: accuracy}]}",
            "training.metrics: as: 'accuracy' is the name of a Keras metric or of the loss",
        ),
        (
            "training: {metrics: [{name: accuracy, threshold: 0.3}]}",
            "training.metrics: accuracy takes no argument 'threshold'",
        ),
        (
            "training: {class_weight: {0: -1}}",
            "training.class_weight: the classes's 0 must be a number of at least 0, got -1",
        ),
        ("training: {class_weight: blanced}", "training.class_weight must be 'balanced', a list"),
        (
            "training: {engine: fsed}",
            "training.engine must be 'auto', 'fused', 'mapped' or 'keras', got 'fsed'",
        ),
        (
            "training: {early_stopping: {patence: 3}}",
            "unknown key 'patence' in training.early_stopping; did you mean 'patience'?",
        ),
        (
            "training: {early_stopping: {monitor: val_acuracy}}",
            "training.early_stopping.monitor: 'val_acuracy' is not logged; did you mean",
        ),
        (
            "training: {keep_best: test_loss}",
            "training.keep_best must be a validation or training log, got 'test_loss'",
        ),
        (
            "training: {reduce_lr_on_plateau: {factor: 1.0}}",
            "training.reduce_lr_on_plateau.factor must be less than 1, got 1.0",
        ),
        pytest.param(
            "training: {engine: fused, callbacks: ['keras.callbacks:SwapEMAWeights']}",
            "training.engine must be 'auto' or 'keras', because only model.fit calls",
            marks=pytest.mark.tensorflow,
        ),
        (
            "training: {callbacks: ['nets.py:mlpp']}",
            "training.callbacks[0]: nets.py has no function 'mlpp'",
        ),
        ("training:", "training must be a mapping, got nothing"),
        ("trainin: {}", "unknown key 'trainin'; did you mean 'training'?"),
        ("training: {batch-size: 3}", "unknown key 'batch-size' in training; did you mean"),
        ("epochs: 3", "unknown key 'epochs'; did you mean 'training.epochs'?"),
        ("data: {scaling: max}", "data.scaling must be 'minmax', 'standard' or 'none', got 'max'"),
        ("data: {validation_split: 0}", "data.validation_split must be greater than 0, got 0"),
        ("data: {validation_split: 1.0}", "data.validation_split must be less than 1, got 1.0"),
        (
            "data: {seed: per_tril}",
            "data.seed must be 'per_trial' or an integer of at least 0, got",
        ),
        ("data: {seed: -1}", "data.seed must be 'per_trial' or an integer of at least 0, got -1"),
        ("data: {args: [1]}", "data.args must be a mapping, got [1]"),
        (
            "data: {args: {seed: 1}}",
            "data.args holds a seed, but the generator is always given one",
        ),
        ("data: {args: {rows: 1}}", "trialrun.datasets:medical_trial takes no argument 'rows'"),
        (
            "data: {generator: nets.py:data, args: {row: 1}}",
            "nets.py:data takes no argument 'row';",
        ),
        ("data: {generator: nets.py:no_seed}", "nets.py:no_seed takes no argument 'seed'"),
        (
            "data: {generator: nets.py:dat}",
            "data.generator: nets.py has no function 'dat'; did you",
        ),
        ("model: {builder: nts.py:mlp}", "model.builder: there is no file nts.py; did you"),
        ("model: {builder: mlp}", "model.builder: expected module:function or file.py:function"),
        ("model: {builder: 3}", "model.builder must be text, got 3"),
        ("model: {builder: nets.py:mlp}", "nets.py:mlp needs an argument 'units'; give it in"),
        (
            "model: {builder: nets.py:mlp, args: {units: 3, unit: 3}}",
            "nets.py:mlp takes no argument 'unit'; did you mean 'units'?",
        ),
        ("seeds: 0", "seeds must be at least 1 and at most 2**32, got 0"),
        ("seeds: true", "seeds must be a count or a list of integers, got true"),
        ("seeds: []", "seeds must not be empty"),
        ("seeds: [1, 2, 1]", "seeds must be distinct, got 1 twice"),
        ("seeds: [1, -2]", "seeds must be integers from 0 to 2**32 - 1, got -2"),
        ("seeds: [4294967296]", "seeds must be integers from 0 to 2**32 - 1, got 4294967296"),
        ("seeds: [1, 2.0]", "seeds must be integers from 0 to 2**32 - 1, got 2.0"),
        (
            "resources: {gpus: 1e-320}",
            "resources.gpus must be 0 or at least 0.0001, the smallest share of a GPU that Ray",
        ),
        (
            "resources: {gpus: -1}",
            "resources.gpus must be 'auto' or a number from 0 to 1, the share of a GPU that each"
            " pack gets, got -1",
        ),
        (
            "resources: {cpus: 0}",
            "resources.cpus must be 'auto' or an integer of at least 1, got 0",
        ),
        (
            "resources: {max_trials_per_pack: 1.5}",
            "resources.max_trials_per_pack must be 'auto' or",
        ),
        ("resources: {max_retries: -1}", "resources.max_retries must be at least 0, got -1"),
        ("select: {metric: test_accuracy}", "select.metric must be a validation metric, got"),
        (
            "select: {metric: loss}",
            "select.metric must be a validation metric, got 'loss': variants",
        ),
        ("select: {metric: val_auc}", "select.metric: 'val_auc' is not logged; training.loss"),
        (
            "select: {metric: val_accuracy, goal: minimize}",
            "select.goal must be 'maximize' for val_accuracy, got 'minimize'",
        ),
        ("select: {goal: max}", "select.goal must be 'minimize' or 'maximize', got 'max'"),
        (
            "search: {method: bayes}",
            "search.method must be 'grid', 'random', 'tpe' or 'from', got 'bayes'",
        ),
        ("search: {num_variants: 3}", "search.num_variants is only for method: random"),
        ("search: {method: random, num_variants: 3}", "search.num_variants must be at most 1"),
        ("search: {method: random}", "search.num_variants is missing"),
        ("search: {parameters: [a]}", "search.parameters must be a mapping, got ['a']"),
    ],
)
def test_a_wrong_field_is_named_with_its_line_what_was_found_and_what_is_allowed(
    write, line, message
):
    shown = refusal(write(f"name: a\n{line}\n"))
    assert shown.replace(f"{Path.cwd()}/", "").startswith(f"a.yaml:2: {message}")
    assert "\n" not in shown


@pytest.mark.parametrize("name", ["''", "../x", ".x", "a/b", "a b", "ä", "a" * 101, '"a\\n"', "-a"])
def test_a_name_that_is_no_safe_folder_is_refused(write, name):
    assert "a.yaml:1: name must be 1 to 100 letters" in refusal(write(f"name: {name}"))


@pytest.mark.parametrize("name", ["a", "medical_trial-2.1", "A" * 100, "'7'"])
def test_a_plain_name_is_accepted(write, name):
    assert load_job(write(f"name: {name}")).spec.name == name.strip("'")


def test_a_name_is_required(write):
    assert refusal(write("seeds: 3")) == "a.yaml: name is missing"


def test_all_wrong_fields_are_shown_each_with_its_own_line(write):
    path = write("""\
        name: a
        training:
          epochs: 0

          batch_size: 2.5
        seeds:
          - 1
          - 1
        serch: {}
        """)
    assert refusal(path).splitlines() == [
        "a.yaml:5: training.batch_size must be an integer, got 2.5",
        "a.yaml:3: training.epochs must be at least 1, got 0",
        "a.yaml:6: seeds must be distinct, got 1 twice",
        "a.yaml:9: unknown key 'serch'; did you mean 'search'?",
    ]


# The searched space ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "training.learning_rate: {values: []}",
            "search.parameters.training.learning_rate.values ",
        ),
        (
            "training.learning_rate: {values: [1, -1]}",
            "training.learning_rate must be greater than 0",
        ),
        ("training.learning_rate: {values: [1, 1.0]}", "training.learning_rate: 1 and 1.0 are the"),
        (
            "training.learning_rate: [1e-3]",
            "search.parameters.training.learning_rate must be {valu",
        ),
        ("training.learning_rate: {}", "search.parameters.training.learning_rate must be {values:"),
        (
            "training.learning_rate: {values: [1], min: 3}",
            "unknown key 'min' in search.parameters.",
        ),
        ("training.epochs: {values: [1, 2.5]}", "training.epochs must be an integer, got 2.5"),
        ("training.optimizer: {values: [adam, Adam]}", "training.optimizer: 'adam' and 'Adam' are"),
        (
            "training.optimizer: {values: [sdg]}",
            "training.optimizer must be a Keras optimizer, got",
        ),
        (
            "training.optimizer.momentum: {values: [1]}",
            "training.optimizer: adam takes no argument 'momentum'",
        ),
        (
            "training.learning_rte: {values: [1]}",
            "'training.learning_rte' cannot be searched: traini",
        ),
        (
            "training.epochs.x: {values: [1]}",
            "'training.epochs.x' cannot be searched: training.epochs",
        ),
        (
            "training.metrics: {values: [[auc]]}",
            "'training.metrics' cannot be searched: it must be",
        ),
        ("training.engine: {values: [keras]}", "'training.engine' cannot be searched: it must be"),
        (
            "training.callbacks: {values: [[]]}",
            "'training.callbacks' cannot be searched: it must be",
        ),
        (
            "training.early_stopping.patence: {values: [1]}",
            "'training.early_stopping.patence' cannot be searched: early_stopping has no field",
        ),
        (
            "training.keep_best: {values: [val_auc]}",
            "training.keep_best: 'val_auc' is not logged",
        ),
        ("training: {values: [{}]}", "'training' cannot be searched; allowed: data.*, model.*,"),
        (
            "seeds: {values: [1]}",
            "'seeds' cannot be searched; allowed: data.*, model.*, training.*",
        ),
        ("data.args.seed: {values: [1]}", "data.args holds a seed, but the generator is always"),
        ("name: {values: [b]}", "'name' cannot be searched; allowed"),
        ("resources.gpus: {values: [1]}", "'resources.gpus' cannot be searched; allowed"),
        ("model.args.: {values: [1]}", "'model.args.' cannot be searched: a name is missing"),
        ("model.args.unit: {values: [1]}", "nets.py:mlp takes no argument 'unit'; did you mean"),
        (
            "model.builder: {values: [nets.py:mlpp]}",
            "model.builder: nets.py has no function 'mlpp'",
        ),
        ("training.loss: {values: [mse, mae]}", "select.metric: val_loss cannot be compared"),
        (
            "training.loss.delta: {values: [1, 2]}",
            "select.metric: val_loss cannot be compared, because training.loss.delta is searched",
        ),
        (
            "training.epochs: {min: 1, max: 3, distribution: int_uniform}",
            "training.epochs: a grid cannot take a range; list `values` or use method: random",
        ),
    ],
)
def test_a_parameter_that_makes_no_right_variant_is_refused_at_its_line(write, line, message):
    text = "name: a\nmodel: {builder: nets.py:mlp, args: {units: 3}}\nselect: {}\n"
    path = write(f"{text}search:\n  parameters:\n    {line}\n")
    shown = refusal(path).splitlines()[0]
    assert shown.startswith((f"a.yaml:6: {message}", f"a.yaml:3: {message}"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{min: 3, max: 3, distribution: uniform}", ": min must be less than max, got 3 and 3"),
        ("{min: 0, max: 3, distribution: log_uniform}", ": log_uniform needs a min greater than 0"),
        (
            "{min: 1, max: 2.5, distribution: int_uniform}",
            ": int_uniform needs integers, got 1 and",
        ),
        ("{min: 1, max: .inf, distribution: uniform}", ".max must be a finite number, got inf"),
        ("{min: a, max: 2, distribution: uniform}", ".min must be a finite number, got 'a'"),
        ("{min: 1, max: 2}", ".distribution is missing"),
        (
            "{min: 1, max: 2, distribution: normal}",
            ".distribution must be 'uniform', 'log_uniform'",
        ),
        ("{min: 1, max: 2, distribution: uniform, step: 3}", None),
    ],
)
def test_a_range_that_cannot_be_drawn_from_is_refused(write, spec, message):
    search = f"search: {{method: random, num_variants: 2, parameters: {{model.args.x: {spec}}}}}"
    shown = refusal(write(f"name: a\nmodel: {{builder: nets.py:cnn}}\n{search}"))
    expected = f"a.yaml:3: search.parameters.model.args.x{message}"
    assert shown.startswith(expected if message else "a.yaml:3: unknown key 'step'")


def test_both_ends_of_a_range_are_checked_as_values(write):
    path = write("""\
        name: a
        search:
          method: random
          num_variants: 3
          parameters:
            data.validation_split:
              distribution: uniform
              min: 0.1
              max: 1.5
        """)
    assert refusal(path) == "a.yaml:9: data.validation_split must be less than 1, got 1.5"


def test_each_wrong_value_of_a_list_is_named_at_its_own_line(write):
    path = write("""\
        name: a
        search:
          parameters:
            training.learning_rate:
              values:
                - 1e-3
                - 0
        """)
    assert refusal(path) == "a.yaml:7: training.learning_rate must be greater than 0, got 0"


def test_an_argument_that_only_the_search_gives_is_not_missing(write):
    path = write("""
        name: a
        model: {builder: nets.py:mlp}
        search: {parameters: {model.args.units: {values: [[1], [2]]}}}
        """)
    assert load_job(path).spec.search.parameters["model.args.units"].values == ([1], [2])


# A job as it is written back -------------------------------------------------------------------


def test_a_written_job_is_the_same_job_in_every_folder(write, tmp_path):
    path = write("""
        name: a
        model: {builder: nets.py:mlp, args: {units: [3], activation: null}}
        data: {generator: nets.py:data, args: {rows: 4}}
        training: {learning_rate: 1e-5, optimizer: {name: sgd, nesterov: true}}
        seeds: [3, 4]
        search:
          method: random
          num_variants: 2
          parameters:
            training.learning_rate: {min: 1e-7, max: 1e-3, distribution: log_uniform}
            model.builder: {values: [nets.py:mlp, nets.py:cnn]}
            model.args.activation: {values: ["1e-4", "null", "true", "3"]}
        """)
    spec = load_job(path).spec
    copy = tmp_path / "runs" / "job.yaml"
    copy.parent.mkdir()
    copy.write_text(dump_job(spec))
    assert load_job(copy).spec == spec
    assert spec.model.builder == f"{tmp_path}/nets.py:mlp"


def test_a_written_job_is_yaml_to_other_readers_too_with_every_default(write):
    written = yaml.safe_load(dump_job(load_job(write("name: a")).spec))
    assert list(written) == list(JobSpec.model_fields)
    assert written["training"]["learning_rate"] == 1e-4
    assert written["select"] == {"metric": "val_loss", "goal": "minimize", "statistic": "mean"}


def test_outputs_metrics_and_weights_give_the_names_that_select(write):
    path = write(
        "name: a\ntraining:\n  loss: {kind: ce, size: {name: huber, delta: 2}}\n"
        "  metrics: {size: [mae, {name: r2_score, as: fit}]}\n  class_weight: {0: 1, 1: 3}\n"
        "  learning_rate_schedule: {name: cosine_decay, decay_epochs: 2.5}\n"
        "select: {metric: val_size_fit}\n"
    )
    spec = load_job(path).spec
    assert spec.select.goal == "maximize"
    assert spec.training.class_weight == {"0": 1.0, "1": 3.0}
    assert spec.training.logs == {
        "loss": "minimize",
        "kind_loss": "minimize",
        "size_loss": "minimize",
        "size_mae": "minimize",
        "size_fit": "maximize",
    }


def test_a_goal_against_the_metrics_nature_is_refused(write):
    path = write(
        "name: a\ntraining: {metrics: [{name: auc, as: area}]}\n"
        "select: {metric: val_area, goal: minimize}\n"
    )
    assert "a.yaml:3: select.goal must be 'maximize' for val_area" in refusal(path)


@pytest.mark.parametrize(
    ("loss", "metrics"),
    [
        ("mse", ("mae", "r2_score")),
        ("{name: huber, delta: 2}", ("mae", "r2_score")),
        ("binary_crossentropy", ("accuracy",)),
        ("{a: mse, b: ce}", {"a": ("mae", "r2_score"), "b": ("accuracy",)}),
    ],
)
def test_a_job_that_names_no_metrics_has_those_of_its_loss(write, loss, metrics):
    assert load_job(write(f"name: a\ntraining: {{loss: {loss}}}")).spec.training.metrics == metrics
