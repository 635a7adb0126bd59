"""The rules for what follows a fault, played through without Ray."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from made_up_runs import learning_rates, trial_of

from trialrun.cluster.faults import FaultRules
from trialrun.job import ModelSpec, SelectSpec
from trialrun.trials.packing import parts_of
from trialrun.trials.signature import signature_of
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack

[VARIANT] = learning_rates(1e-3)


def task_of(num_trials, *, pack_id="p003", attempt=0, signature="s"):
    trials = tuple(trial_of(VARIANT, seed) for seed in range(num_trials))
    return PackTask(Pack(pack_id, signature, trials), None, SelectSpec(), attempt=attempt)


def seeds(task):
    return [trial.seed for trial in task.pack.trials]


def play(task, fault_of: Callable, max_retries=2):
    """Trains by `fault_of(task) -> fault or None`; gives completed seeds, failed seeds, tries."""
    rules, waiting = FaultRules(max_retries), [task]
    completed, failed, tries = [], [], 0
    while waiting:
        task, *rest = [piece for one in waiting for piece in rules.fit(one)]
        waiting = rest
        tries += 1
        assert tries < 1000
        fault = fault_of(task)
        if fault is None:
            completed += seeds(task)
        elif again := rules.answer(task, fault):
            waiting = [*again, *waiting]
        else:
            failed += seeds(task)
    return sorted(completed), failed, tries


@pytest.mark.parametrize("fault", ["worker", "error"])
@pytest.mark.parametrize("poisonous", [0, 5, 12])
def test_a_poisonous_trial_is_found_alone_and_its_neighbors_complete(fault, poisonous):
    completed, failed, tries = play(
        task_of(13), lambda task: fault if poisonous in seeds(task) else None
    )
    assert failed == [poisonous]
    assert completed == [seed for seed in range(13) if seed != poisonous]
    assert tries <= 12


def test_two_poisonous_trials_are_found():
    _, failed, _ = play(task_of(16), lambda t: "worker" if {3, 4} & set(seeds(t)) else None)
    assert failed == [3, 4]


def test_a_worker_that_dies_once_costs_one_more_try_and_no_halving():
    faults = iter(["worker", None])
    completed, failed, tries = play(task_of(8), lambda task: next(faults))
    assert (len(completed), failed, tries) == (8, [], 2)


def test_packs_whose_trials_share_no_program_are_split_once_and_the_next_ones_beforehand():
    variants = [
        replace(VARIANT, variant_id=f"v{l2}", model=ModelSpec(args={"l2": l2}))
        for l2 in (0.1, 0.2, 0.3)
    ]
    signature = signature_of(variants[0])

    def pack(pack_id):
        trials = tuple(trial_of(one, seed) for one in variants for seed in (1, 2))
        return PackTask(Pack(pack_id, signature, trials), None, SelectSpec())

    rules = FaultRules(2)
    assert [one.pack.pack_id for one in rules.fit(pack("p1"))] == ["p1"]
    apart = rules.answer(pack("p1"), "share")
    assert [one.pack.pack_id for one in apart] == ["p1aa", "p1ab", "p1b"]
    assert [len(one.pack.trials) for one in apart] == [2, 2, 2]
    assert [one.pack.pack_id for one in rules.fit(pack("p2"))] == ["p2aa", "p2ab", "p2b"]
    assert rules.answer(apart[0], "share") == ()


L2, DROPOUT = ("model", "args", "l2"), ("model", "args", "dropout")


def variants_of(l2s, dropouts):
    return [
        replace(
            VARIANT,
            variant_id=f"v{l2}-{dropout}",
            model=ModelSpec(args={"l2": l2, "dropout": dropout}),
        )
        for l2 in l2s
        for dropout in dropouts
    ]


def pack_of(variants, pack_id):
    trials = tuple(trial_of(one, seed) for one in variants for seed in (1, 2))
    return PackTask(Pack(pack_id, signature_of(variants[0]), trials), None, SelectSpec())


def shapes(tasks):
    return [(task.pack.pack_id, len(task.pack.trials)) for task in tasks]


def test_packs_are_split_by_the_number_that_stands_in_the_way_alone():
    variants = variants_of([0.1, 0.2], [0.3, 0.4, 0.5])
    rules = FaultRules(2)
    apart = rules.answer(pack_of(variants, "p1"), "share", paths=[L2])
    assert shapes(apart) == [("p1a", 6), ("p1b", 6)]
    assert shapes(rules.fit(pack_of(variants, "p2"))) == [("p2a", 6), ("p2b", 6)]
    alike = pack_of(variants_of([0.2], [0.3, 0.4]), "p3")
    assert shapes(rules.fit(alike)) == [("p3", 4)]
    # Another number stands in the way of one of the two, and of the next pack like it.
    again = rules.answer(apart[1], "share", paths=[DROPOUT])
    assert shapes(again) == [("p1baa", 2), ("p1bab", 2), ("p1bb", 2)]
    assert shapes(rules.fit(pack_of(variants, "p4"))) == [
        ("p4a", 6),
        ("p4baa", 2),
        ("p4bab", 2),
        ("p4bb", 2),
    ]
    assert rules.answer(again[0], "share", paths=[DROPOUT]) == ()


@pytest.mark.parametrize("paths", [[], [("training", "learning_rate")]])
def test_packs_are_split_by_all_numbers_where_the_guilty_one_is_not_known(paths):
    variants = variants_of([0.1, 0.2], [0.3, 0.4])
    rules = FaultRules(2)
    apart = rules.answer(pack_of(variants, "p1"), "share", paths=paths)
    assert [len(task.pack.trials) for task in apart] == [2] * 4
    assert [len(task.pack.trials) for task in rules.fit(pack_of(variants, "p2"))] == [2] * 4


def test_whatever_numbers_are_named_splitting_ends_with_each_trial_once():
    variants = variants_of([0.1, 0.2], [0.3, 0.4])

    def is_mixed(task):
        return len({trial.variant.variant_id for trial in task.pack.trials}) > 1

    for paths in ([], [L2], [DROPOUT], [L2, DROPOUT]):
        rules, waiting, done = FaultRules(2), [pack_of(variants, "p1"), pack_of(variants, "p2")], []
        while waiting:
            task, *rest = [piece for one in waiting for piece in rules.fit(one)]
            if is_mixed(task):
                waiting = [*rules.answer(task, "share", paths=paths), *rest]
            else:
                done.append(task.pack)
                waiting = rest
        assert [len(pack.trials) for pack in done] == [2] * 8
        assert len({pack.pack_id for pack in done}) == 8


def test_a_pack_that_says_how_many_trials_fit_is_split_to_that_size():
    rules = FaultRules(2)
    halves = rules.answer(task_of(64), "memory", max_trials=10)
    assert [len(piece.pack.trials) for half in halves for piece in rules.fit(half)] == [8] * 8


def test_lost_nodes_never_halve_a_pack_and_are_retried_so_often():
    for max_retries in (0, 1, 2):
        _, failed, tries = play(task_of(8), lambda task: "node", max_retries)
        assert (len(failed), tries) == (8, max_retries + 1)


def test_a_wrong_model_is_not_tried_again():
    assert play(task_of(8), lambda task: "model") == ([], list(range(8)), 1)


def test_an_error_of_user_code_is_not_tried_again_for_one_trial():
    assert play(task_of(1), lambda task: "error") == ([], [0], 1)


def test_what_is_too_large_is_halved_until_it_fits_and_the_size_is_remembered():
    rules = FaultRules(2)
    sizes = []

    def train(task):
        sizes.append(len(task.pack.trials))
        return None if sizes[-1] <= 5 else "memory"

    waiting = [task_of(16), task_of(16, pack_id="p004"), task_of(4, pack_id="p005")]
    waiting.append(task_of(9, pack_id="p006", signature="another"))
    names = []
    while waiting:
        task, *rest = [piece for one in waiting for piece in rules.fit(one)]
        names.append(task.pack.pack_id)
        waiting = rest if train(task) is None else [*rules.answer(task, "memory"), *rest]
    assert sizes == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4, 4, 9, 5, 4]
    assert len(set(names)) == len(names)
    assert {"p003", "p003a", "p003aa", "p004aa", "p006b"} <= set(names)


def test_one_trial_that_is_too_large_is_tried_again_and_given_up():
    assert play(task_of(1), lambda task: "memory") == ([], [0], 3)


def test_halves_that_were_never_tried_keep_their_attempt():
    rules = FaultRules(2)
    rules.answer(task_of(8), "memory")
    assert [piece.attempt for piece in rules.fit(task_of(8))] == [0, 0]
    assert [piece.attempt for piece in rules.answer(task_of(8), "memory")] == [1, 1]


def test_no_retries_means_none():
    assert play(task_of(1), lambda task: "worker", 0) == ([], [0], 1)
    rules = FaultRules(1)
    [again] = rules.answer(task_of(1), "worker")
    assert rules.answer(again, "worker") == ()


def test_a_trial_that_halving_left_alone_is_retried_as_often_as_any():
    """Twice its pack was too large; then its node is lost, and then once more."""
    faults = {0: iter(["node", "node", None])}

    def fault_of(task):
        if len(task.pack.trials) > 1:
            return "memory"
        return next(faults.get(task.pack.trials[0].seed, iter([None])))

    completed, failed, _ = play(task_of(4), fault_of, max_retries=2)
    assert (completed, failed) == ([0, 1, 2, 3], [])


@pytest.mark.parametrize(("num_trials", "fit"), [(512, 200), (9, 4), (64, 64), (37, 1), (65, 64)])
def test_a_plan_knows_into_which_packs_one_is_halved_that_does_not_fit(num_trials, fit):
    rules, task = FaultRules(2), task_of(num_trials)
    halved = rules.answer(task, "memory", fit) if num_trials > fit else [task]
    sizes = [len(seeds(part)) for half in halved for part in rules.fit(half)]
    assert parts_of(num_trials, fit) == sizes
