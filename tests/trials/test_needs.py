"""What a pack asks for, and how many packs a node takes."""

import pytest

from trialrun.job import ResourcesSpec
from trialrun.trials.needs import Needs, choose_needs

NODE = {"CPU": 8.0, "GPU": 4.0, "accelerator_type:A100": 1.0}


@pytest.mark.parametrize(
    ("needs", "packs"),
    [
        (Needs(1, 1, None), 4),
        (Needs(1, 4, None), 2),
        (Needs(0.5, 1, None), 8),
        (Needs(0.4, 1, None), 8),  # two on each GPU: none lies across two
        (Needs(0.3, 1, None), 8),  # three on each, but there are eight cores
        (Needs(0, 4, None), 2),
        (Needs(0, 9, None), 0),
        (Needs(1, 1, "A100"), 4),
        (Needs(1, 1, "T4"), 0),
    ],
)
def test_a_node_takes_as_many_packs_as_fit(needs, packs):
    assert needs.fit_into(NODE) == packs
    assert needs.fit_into({"CPU": 0.5}) == 0


@pytest.mark.parametrize(
    ("nodes", "needs"),
    [
        ([{"CPU": 2.0}, {"CPU": 4.0}], Needs(0, 2, None)),
        ([{}, {"CPU": 2.0}], Needs(0, 2, None)),  # a head for the driver alone
        ([{"CPU": 8.0}, NODE], Needs(1, 1, None)),
    ],
)
def test_a_pack_asks_for_what_every_node_that_trains_has(nodes, needs):
    assert choose_needs(nodes, ResourcesSpec()) == needs


def test_ten_packs_of_a_tenth_fit_on_a_gpu():
    """Though 1 // 0.1 is 9."""
    assert Needs(0.1, 1, None).fit_into({"CPU": 64.0, "GPU": 2.0}) == 20
