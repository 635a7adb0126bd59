"""What a run shows while it goes on, and what it has come to."""

import io
import json
from dataclasses import replace
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_runs import broken, completed, learning_rates, trial_of
from rich.console import Console

import trialrun.driver.progress
from trialrun.driver.costs import merged_costs
from trialrun.driver.course import MAX_PACKS_SHOWN, Course
from trialrun.driver.progress import ProgressLine
from trialrun.job import SelectSpec
from trialrun.store import RunFolder
from trialrun.store.costs import Cost, write_costs
from trialrun.trials.results import PackResult, PackStart, Progress, SoFar

VARIANTS = learning_rates(1e-3, 1e-2)
TRIALS = [trial_of(variant, seed) for variant in VARIANTS for seed in range(6)]
EPOCHS = VARIANTS[0].training.epochs


def start_of(pack_id="p000", node="node1", num_trials=6, num_waiting=0, variants=None):
    variants = variants or {"v00": num_trials}
    return PackStart(pack_id, num_trials, EPOCHS, 0, node, "GPU 0", num_waiting, variants)


def result_of(pack_id, variant, *seeds, failed=()):
    trials = [completed(variant, seed, val_loss=0.1 + seed) for seed in seeds]
    return PackResult(pack_id, (*trials, *(broken(variant, seed) for seed in failed)))


@pytest.fixture
def course():
    course = Course()
    course.begin(TRIALS, SelectSpec(), num_packs=2)
    return course


def test_a_pack_that_was_halved_is_not_counted_twice(course):
    course.advance(Progress("p000", 10 * EPOCHS))
    course.leave("p000")
    course.advance(Progress("p000a", 5 * EPOCHS))
    course.advance(Progress("p000b", 5 * EPOCHS))
    course.advance(Progress("p0001", EPOCHS))
    assert (course.num_trials_done, course.num_trials) == (11, 12)


def test_the_content_says_what_has_ended_and_what_is_in_training(course):
    course.start(start_of(num_waiting=1))
    course.advance(Progress("p000", 3 * 6, 0.5, "fused"))
    course.finish(result_of("p001", VARIANTS[1], 1, 2, failed=[3]))
    course.retry("p002")
    content = json.loads(json.dumps(course.content()))
    assert content["trials"] == {"done": 3, "total": 12, "completed": 2, "failed": 1}
    assert content["packs"] == {"done": 1, "running": 1, "waiting": 1, "retries": 1}
    assert content["best"] == {"metric": "val_loss", "goal": "minimize", "value": 0.5}
    [pack] = content["running"]
    assert (pack["pack"], pack["node"], pack["device"]) == ("p000", "node1", "GPU 0")
    assert (pack["engine"], pack["epoch"], pack["epochs"]) == ("fused", 3, EPOCHS)
    assert content["stage"] == "training"


def test_trials_of_earlier_commands_count_as_ended(course):
    course.recall({"completed": 7, "failed": 3})  # what failed is tried again
    course.begin(TRIALS[:5], SelectSpec())
    course.finish(result_of("p001", VARIANTS[1], 1, 2))
    assert course.content()["trials"] == {"done": 9, "total": 12, "completed": 9}


def test_variants_in_training_are_added_up_over_packs_the_best_first(course):
    for number, variants in enumerate(
        [{"v00": SoFar(2, 6, 2, 1.0), "v01": SoFar(1, 3, 0, 0.0)}, {"v00": SoFar(2, 8, 1, 0.8)}]
    ):
        course.advance(Progress(f"p00{number}", 9, None, "fused", variants))
    course.advance(Progress("p001", 9))  # most heartbeats have none
    content = course.content()["variants"]
    assert (content["metric"], content["count"]) == ("val_loss", 2)
    first, second = content["shown"]
    assert first == {
        "variant": "v00",
        "parameters": {"training.learning_rate": 1e-3},
        "trials": 4,
        "epoch": 3.5,
        "mean": pytest.approx(0.6),
    }
    assert (second["variant"], second["mean"]) == ("v01", None)
    course.close()
    assert course.content()["variants"] is None


def test_a_cluster_of_thousands_makes_no_long_file(course):
    for number in range(3_000):
        course.start(start_of(f"p{number:04d}", num_trials=1))
    content = course.content()
    assert content["packs"]["running"] == 3_000
    assert len(content["running"]) == MAX_PACKS_SHOWN
    assert len(json.dumps(content)) < 50_000


# Without a terminal -----------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now_s = 0.0

        def monotonic(self):
            return self.now_s

    clock = Clock()
    monkeypatch.setattr(trialrun.driver.progress, "time", clock)
    monkeypatch.setattr(trialrun.driver.course, "time", clock)
    return clock


def test_the_cost_is_the_time_of_devices_over_all_commands(clock):
    course = Course()
    course.recall_costs({"v00": Cost(60, 10), "v01": Cost(40)})
    course.begin(TRIALS, SelectSpec(), num_packs=3)
    for name in ("p000", "p001", "p002"):
        course.start(start_of(name, variants={"v00": 4, "v01": 2}))
    clock.now_s = 4.0
    course.retry("p001")
    course.leave("p001")
    clock.now_s = 6.0
    timings_s = {"trace": 0.5, "compile": 1.0, "train": 4.0}
    course.finish(replace(result_of("p000", VARIANTS[0], 0), timings_s=timings_s))
    clock.now_s = 7.0
    expected = {"device_s": 100 + 4 + 6 + 7, "lost_s": 10 + 4, "compile_s": 1.5}
    assert course.content()["cost"] == course.cost()._asdict() == expected
    course.close()
    assert course.cost()._asdict() == expected
    own = {"v00": Cost(60 + 6 + 11 * 4 / 6, 10 + 4 * 4 / 6, 1.5), "v01": Cost(40 + 11 / 3, 4 / 3)}
    assert course.costs() == {name: pytest.approx(cost) for name, cost in own.items()}


@pytest.mark.parametrize(
    ("known_for_s", "worked_s", "timings_s", "failed", "cost"),
    [
        (6.0, 5.0, {"trace": 1.0, "compile": 2.0}, 0, Cost(6, 0, 3)),
        (0.0, 5.0, {"trace": 1.0, "compile": 2.0}, 0, Cost(5, 0, 3)),  # heard of late
        (None, 5.0, {"trace": 1.0, "compile": 2.0}, 0, Cost(5, 0, 3)),
        (6.0, 0.0, {"compile": 20.0}, 0, Cost(6, 0, 6)),
        (6.0, 0.0, {}, 2, Cost(6, 6, 0)),  # tried for the last time
        (6.0, 5.0, {}, 1, Cost(6, 0, 0)),
    ],
)
def test_no_part_of_a_packs_cost_is_more_than_the_whole(
    course, clock, known_for_s, worked_s, timings_s, failed, cost
):
    if known_for_s is not None:
        course.start(start_of())
        clock.now_s = known_for_s
    trials = [replace(completed(VARIANTS[0], 0), duration_s=worked_s)][: 2 - failed]
    trials += [broken(VARIANTS[0], 1 + seed) for seed in range(failed)]
    course.finish(PackResult("p000", tuple(trials), timings_s=timings_s))
    assert course.cost() == cost
    assert course.costs() == {"v00": cost}


PACKS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["v00", "v01", "v02"]), st.integers(1, 600), min_size=1),
        st.sampled_from(["waits", "result", "failed", "leaves", "tried again"]),
        st.floats(0, 1e5),
    )
)


def ended(pack_id, variants, *, failed):
    """A pack's result, in which the trials of each variant stopped after other epochs."""
    trials = [
        broken(variant, seed) if failed else completed(variant, seed, epochs=1 + number)
        for number, variant in enumerate(learning_rates(0.1, 0.2, 0.3))
        for seed in range(min(3, variants.get(variant.variant_id, 0)))
    ]
    return PackResult(pack_id, tuple(trials), timings_s={"trace": 0.7, "compile": 0.1})


@settings(max_examples=50, deadline=None)
@given(PACKS, st.dictionaries(st.sampled_from(["v00", "v03"]), st.just(Cost(1e4, 3.0, 0.1))))
def test_what_variants_cost_is_together_what_the_run_costs(packs, earlier):
    course, clock = Course(), mock.Mock(**{"monotonic.return_value": 0.0})
    course.recall_costs(earlier)
    with mock.patch("trialrun.driver.course.time", clock):
        for number, (variants, end, lasts_s) in enumerate(packs):
            name = f"p{number:03d}"
            course.start(start_of(name, variants=variants))
            clock.monotonic.return_value += lasts_s
            match end:
                case "result" | "failed":
                    course.finish(ended(name, variants, failed=end == "failed"))
                case "leaves":
                    course.leave(name)
                case "tried again":
                    course.retry(name)
                    course.leave(name)
        costs, whole = course.costs(), course.cost()
    sums = [sum(getattr(cost, name) for cost in costs.values()) for name in Cost._fields]
    assert sums == pytest.approx(list(whole))
    for cost in (*costs.values(), whole):
        assert 0 <= cost.lost_s <= cost.device_s * (1 + 1e-9)
        assert 0 <= cost.compile_s <= cost.device_s * (1 + 1e-9)
    assert set(costs) == set(earlier).union(*(variants for variants, *_ in packs))


def test_without_a_terminal_a_line_tells_of_each_pack_and_of_several_at_once(clock):
    out = io.StringIO()
    with ProgressLine(Console(file=out, width=200)) as line:
        line.start(TRIALS, SelectSpec(), num_packs=3)
        clock.now_s = 2.0
        line.finish(result_of("p000", VARIANTS[0], 0, 1))
        line.finish(result_of("p001", VARIANTS[1], 0, 1, failed=[2]))
        line.finish(result_of("p002", VARIANTS[1], 3))
        line.warn("something else")
    assert out.getvalue().splitlines() == [
        "p000 has ended: 2 completed. 2 of 12 trials, 1 trials/s, 0:10 left, best val_loss 0.1000",
        "p001 and 1 more pack have ended: 3 completed, 1 failed. 6 of 12 trials, 3 trials/s,"
        " 0:02 left, best val_loss 0.1000",
        "Warning: something else",
    ]


def test_without_a_terminal_a_line_a_minute_tells_how_far_it_is(clock):
    out = io.StringIO()
    with ProgressLine(Console(file=out, width=200)) as line:
        line.say("starting Ray")
        for clock.now_s in range(0, 131, 2):
            line.tick()
    assert out.getvalue().splitlines() == [
        "starting Ray (1:00): 0 of 0 trials",
        "starting Ray (2:00): 0 of 0 trials",
    ]


def test_on_a_terminal_there_is_no_line_but_the_live_one(clock):
    out = io.StringIO()
    with ProgressLine(Console(file=out, width=200, force_terminal=True)) as line:
        line.start(TRIALS, SelectSpec())
        clock.now_s = 100.0
        line.finish(result_of("p000", VARIANTS[0], 0, 1))
        line.tick()
    assert "has ended" not in out.getvalue()
    assert "training" in out.getvalue()


def test_no_control_character_reaches_the_terminal():
    out = io.StringIO()
    with ProgressLine(Console(file=out, width=200)) as line:
        line.warn("a name\x1b[2J with\a bells")
    assert out.getvalue() == "Warning: a name␛[2J with␇ bells\n"


def test_merged_costs_come_on_top_of_a_runs_own_and_are_not_counted_twice(tmp_path):
    target, *shards = (RunFolder.create(tmp_path / name, "a") for name in ("t", "s", "r"))
    write_costs(target, {"v00": Cost(5)})
    write_costs(shards[0], {"v00": Cost(10, 1), "v01": Cost(20)})
    write_costs(shards[1], {"v01": Cost(30)})
    warnings = []
    merged = merged_costs(target, shards, warnings.append)
    assert merged == {"v00": Cost(15, 1), "v01": Cost(50)}
    write_costs(target, merged)
    target.environment_file.write_text('{"ray": {}, "earlier": [{"ray": {"merged": ["s", "r"]}}]}')
    assert merged_costs(target, shards, warnings.append) == merged
    write_costs(shards[1], {"v01": Cost(60)})  # it has been extended
    assert merged_costs(target, shards, warnings.append) == merged | {"v01": Cost(80)}
    assert warnings == []
    shards[1].costs_file.write_text("{")
    merged_costs(target, shards, warnings.append)
    assert [text.partition(" is damaged")[0] for text in warnings] == [str(shards[1].costs_file)]
