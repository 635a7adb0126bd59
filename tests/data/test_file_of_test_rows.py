"""`data.test` holds rows that no model was trained on."""

import os
import shutil

import pytest

from trialrun.errors import InputError
from trialrun.job import load_job

ROWS = "age,y\n" + "".join(f"{age},{'ab'[age % 2]}\n" for age in range(40))


@pytest.fixture
def job(tmp_path):
    (tmp_path / "d.csv").write_text(ROWS)

    def load(test):
        text = f"{{name: a, data: {{csv: d.csv, target: y, test: {test}}}}}"
        (tmp_path / "job.yaml").write_text(text)
        return load_job(tmp_path / "job.yaml")

    return load


def test_the_training_file_is_refused_by_any_name(job, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.csv").symlink_to("d.csv")
    os.link(tmp_path / "d.csv", tmp_path / "hard.csv")
    shutil.copy(tmp_path / "d.csv", tmp_path / "copy.csv")
    for name in ("d.csv", "sub/../d.csv", tmp_path / "d.csv", "link.csv", "hard.csv", "copy.csv"):
        with pytest.raises(InputError, match="holds the same bytes as data") as caught:
            job(name)
        assert "job.yaml:1: data.test: " in str(caught.value)


def test_a_file_of_other_rows_is_taken(job, tmp_path):
    (tmp_path / "t.csv").write_text(ROWS.replace("39,b", "39,a"))
    assert job("t.csv").spec.data.test == str(tmp_path / "t.csv")
