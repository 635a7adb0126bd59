"""What README.md and docs/ say can be done can be done: commands, job files, Python, links.

What the commands do is tested where it is made: a laptop in `test_run`, a cluster in
`test_ray_jobs`, SLURM in `test_slurm`; Kubernetes is not run.
"""

import ast
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import yaml
from commands import ROOT

import trialrun
from trialrun.cli import cli
from trialrun.job import JobSpec, load_job
from trialrun.trials.search_space import expand

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "trialrun/training/README.md"]
OTHER_PROGRAMS = {"docker", "kubectl", "pip", "ray", "rsync", "salloc", "tensorboard"}


def texts(language: str) -> list[tuple[str, str]]:
    """The page and the text of each block in a language."""
    return [
        (page.relative_to(ROOT).as_posix(), block)
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    ]


def commands() -> Iterator[list[str]]:
    """The words of each command in the pages' bash blocks, without comments."""
    for _, block in texts("bash"):
        for line in block.replace("\\\n", "").splitlines():
            for part in re.split(r" && ", line):
                words = shlex.split(part, comments=True)
                if words and words[0] != "export":
                    yield words


COMMANDS = list({tuple(words): words for words in commands()}.values())


def commands_of(program: str) -> list[list[str]]:
    found = [words for words in COMMANDS if words[0] == program]
    assert found, f"no page has a command of {program}"
    return found


def assert_trialrun_takes(words: list[str]) -> None:
    name, *arguments = words
    cli.commands[name].make_context(name, list(arguments))


# Commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_is_of_a_known_program_and_the_files_that_it_names_are_there(words):
    paths = [word for word in words if re.match(r"(scripts|jobs)/", word)]
    assert all((ROOT / path).exists() for path in paths), paths
    if words[0].startswith("scripts/"):
        assert os.access(ROOT / words[0], os.X_OK)
    else:
        assert words[0] in {"trialrun", *OTHER_PROGRAMS}


def test_trialrun_takes_its_commands():
    for words in [*commands_of("scripts/trialrun"), *commands_of("trialrun")]:
        assert_trialrun_takes(words[1:])
    for words in commands_of("salloc"):
        assert_trialrun_takes(words[words.index("trialrun") + 1 :])


def test_the_table_of_commands_has_them_all():
    table = [line for line in README.read_text().splitlines() if line.startswith("| `trialrun ")]
    assert set(re.findall(r"`trialrun (\w+)", "".join(table))) == set(cli.commands)


def test_trialrun_has_the_commands_and_options_that_sentences_name():
    named = [
        (name, option)
        for page in PAGES
        for name, rest in re.findall(r"`trialrun (\w+)([^`]*)`", page.read_text())
        for option in ["", *re.findall(r"--[a-z-]+", rest)]
    ]
    assert len(named) > 50
    for name, option in named:
        options = [word for parameter in cli.commands[name].params for word in parameter.opts]
        assert not option or option in options, f"trialrun {name} {option}"


@pytest.mark.parametrize(
    "words", [w for w in COMMANDS if w[0].startswith("scripts/")], ids=" ".join
)
def test_a_script_knows_the_options_that_it_is_given(words):
    name = words[0].removeprefix("scripts/")
    sources = [ROOT / words[0], *(ROOT / "scripts").rglob(f"{name}.py")]
    text = "".join(source.read_text() for source in sources)
    if name not in ("trialrun", "submit_ray.sh", "slurm/submit.sh"):  # these hand them on
        assert all(word in text for word in words[1:] if word.startswith("--"))


def test_what_goes_to_trialrun_through_other_programs_is_taken_there():
    for words in commands_of("scripts/submit_ray.sh"):
        assert_trialrun_takes(["run", *words[1:]])
    for words in commands_of("scripts/slurm/submit.sh"):
        if "--" in words:
            assert_trialrun_takes(["run", "JOB.yaml", *words[words.index("--") + 1 :]])


def test_ray_takes_its_command():
    from ray.dashboard.modules.job.cli import job_cli_group

    for words in commands_of("ray"):
        assert words[1] == "job"
        context = job_cli_group.commands[words[2]].make_context(words[2], words[3:])
        entrypoint = list(context.params["entrypoint"])
        assert entrypoint[0] == "trialrun"
        assert_trialrun_takes(entrypoint[1:])


def test_kubernetes_finds_what_its_commands_name():
    folder = ROOT / "scripts" / "kubernetes"
    manifests = "".join((folder / name).read_text() for name in ("rayjob.yaml", "fetch.yaml"))
    for words in commands_of("kubectl"):
        if words[1] == "create":
            assert words[4 if words[2] == "secret" else 3] in manifests
        if words[1] == "apply":
            assert list(yaml.safe_load_all((ROOT / words[words.index("-f") + 1]).read_text()))
        if words[1] in ("cp", "wait"):
            assert any("trialrun-fetch" in word for word in words)
    assert "name: trialrun-fetch" in manifests


# Job files -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job_folder(tmp_path_factory):
    """A folder with the files that the pages' jobs name."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "tables").mkdir()
    (folder / "tables" / "clinics.csv").write_text("clinic\n")
    (folder / "mine.py").write_text(
        "def my_data(seed, num_rows=1000): ...\n"
        "def my_model(width=64): ...\n"
        "def focal(y_true, y_pred, gamma): ...\n"
        "def my_callback(): ...\n"
    )
    table = pd.DataFrame(
        {"age": [20], "dose": [1.5], "clinic": ["a"], "stage": ["low"], "outcome": ["well"]}
    )
    table.to_csv(folder / "patients.csv", index=False)
    table.to_csv(folder / "semicolons.csv", index=False, sep=";")
    variants = {"training.learning_rate": [1e-3, 3e-4], "model.args.units": ["[16, 32]", "[8]"]}
    pd.DataFrame(variants).to_csv(folder / "variants.csv", index=False)
    table.assign(age=30).to_csv(folder / "other.csv", index=False)
    table.to_parquet(folder / "patients.parquet")
    np.savez(folder / "images.npz", x=np.zeros([4, 2]), y=np.zeros(4))
    return folder


def load(folder, content):
    path = folder / "job.yaml"
    path.write_text(content)
    return load_job(path).spec


@pytest.mark.parametrize(("page", "block"), texts("yaml"))
def test_a_job_or_a_section_of_one_loads(page, block, job_folder):
    named = block if re.search("^name:", block, re.MULTILINE) else f"name: a_job\n{block}"
    assert load(job_folder, named).name


def test_the_grid_with_conditions_has_as_many_variants_as_is_told(job_folder):
    [block] = [block for _, block in texts("yaml") if "when:" in block and "tpe" not in block]
    assert len(expand(load(job_folder, f"name: a_job\n{block}"))) == 4
    assert "This grid has four variants: `adam`," in DOCUMENT.FILE.read_text()


def test_fields_that_sentences_name_are_fields():
    sections = "|".join(set(JobSpec.model_fields) - {"name", "seeds", "model"})
    pattern = rf"`(?:--set )?((?:{sections})(?:\.[a-z_]+)+)"
    named = [path for page in PAGES for path in re.findall(pattern, page.read_text())]
    assert len(named) > 10
    for path in named:
        section, field, *_ = path.split(".")
        fields = JobSpec.model_fields[section].annotation.model_fields
        assert field in {known.alias or name for name, known in fields.items()}, path


def document_job():
    """The program that writes the tables of docs/job-file.md."""
    [path] = (ROOT / "scripts").rglob("document_job.py")
    spec = importlib.util.spec_from_file_location("document_job", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["document_job"] = module
    spec.loader.exec_module(module)
    return module


DOCUMENT = document_job()


def test_the_page_of_the_job_file_is_what_the_program_writes():
    text = DOCUMENT.FILE.read_text()
    assert DOCUMENT.fill_in(text) == text, "run scripts/document_job"
    for name in DOCUMENT.SECTIONS:
        assert f"<!-- fields: {name} -->\n| field" in text
    assert "<!-- names -->\n- Optimizers" in text


TABLE = {"csv": "patients.csv", "target": "outcome"}
SCORED = {"metric": "val_accuracy"}
RATES = {"training.learning_rate": {"values": [1e-4, 1e-3]}, "model.args.units": {"values": [[1]]}}
RANGE = {"min": 1e-6, "max": 1.0, "distribution": "uniform"}
# What a field's example needs beside it.
BESIDE = {
    "data.args": {"generator": "mine.py:my_data"},
    "data.thousands": {**TABLE, "decimal": ","},
    "data.parquet": {"target": "outcome"},
    "data.separator": {**TABLE, "csv": "semicolons.csv"},
    **{f"data.{field}": {} for field in ("generator", "npz", "scaling", "seed", "depends_on")},
    "training.loss_weights": {"loss": {"price": "mse", "kind": "mse"}},
    "search.method": {"num_variants": 2, "parameters": RATES},
    "search.from": {"method": "from"},
    "search.num_variants": {"method": "random", "parameters": {"training.learning_rate": RANGE}},
    "search.parameters: values.when": {"values": [1e-4, 1e-3]},
    "search.rounds: round.seeds": {"keep": 2},
    "search.rounds: round.keep": {"seeds": 2},
    "search.rounds: round.epochs": {"seeds": 2, "keep": 2},
    "search.rounds: race.looks": {"method": "race"},
    "search.rounds: race.level": {"method": "race"},
    "search.batch": {
        "method": "tpe",
        "num_variants": 32,
        "parameters": {"training.learning_rate": RANGE},
    },
    "search.budget": {"rounds": "auto"},
    "select.goal": SCORED,
}


@pytest.mark.parametrize(
    ("section", "field", "example"),
    [
        (name, section.model_fields[field].alias or field, about.example)
        for name, section in DOCUMENT.SECTIONS.items()
        for field, about in DOCUMENT.descriptions(section).items()
    ],
)
def test_the_example_of_a_field_is_taken(section, field, example, job_folder):
    if section == "search.parameters: range":
        beside = RANGE
    else:
        beside = BESIDE.get(f"{section}.{field}", TABLE if section == "data" else {})
    others = [f"{key}: {flow(value)}" for key, value in beside.items() if key != field]
    content = ", ".join([f"{field}: {example}", *others])
    if section.startswith("search.parameters: "):
        parent = "training.optimizer.name: {values: [adam, sgd]}"
        content = f"parameters: {{{parent}, training.learning_rate: {{{content}}}}}"
        if section.endswith("range"):
            content += ", method: random, num_variants: 2"
    elif section == "search.rounds: round":
        content = f"rounds: [{{{content}}}, {{seeds: 5}}]"
    elif section == "search.rounds: race":
        content = f"rounds: {{{content}}}"
    elif section == "search.budget":
        content = f"rounds: auto, budget: {{{content}}}"
    elif "." in section:
        content = f"{section.partition('.')[2]}: {{{content}}}"
    if section:
        content = f"{section.partition('.')[0]}: {{{content}}}"
    assert load(job_folder, content if field == "name" else f"name: a_job\n{content}")


def flow(value) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).partition("\n...")[0].strip()


# Python and links ------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "block"), texts("python"))
def test_python_of_a_page_uses_what_trialrun_has(page, block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if owner == "trialrun":
                assert hasattr(trialrun, node.attr)
            if owner == "run":
                assert hasattr(trialrun.Run, node.attr)
            if owner == "run.best":
                assert hasattr(trialrun.Best, node.attr)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *(p for p in ROOT.glob("*.md") if p != README)], ids=str)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


def test_every_page_is_reached_from_the_readme():
    seen, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text())
        waiting += [p for p in ((page.parent / link).resolve() for link in links) if p not in seen]
    assert set(PAGES) <= seen


def test_files_that_sentences_name_are_there():
    pattern = r"`((?:tests|scripts|jobs)/[\w./-]+)`"
    named = [path for page in PAGES for path in re.findall(pattern, page.read_text())]
    assert len(named) > 15
    for path in named:
        assert (ROOT / path).exists(), path
