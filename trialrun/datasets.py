"""The built-in generator, `trialrun.datasets:medical_trial` in a job."""

from typing import Any

import numpy as np
import numpy.typing as npt


def medical_trial(
    seed: int,
    *,
    num_train_younger_with: int = 50,
    num_train_older_without: int = 50,
    num_train_younger_without: int = 1000,
    num_train_older_with: int = 1000,
    num_test_younger_with: int = 10,
    num_test_older_without: int = 10,
    num_test_younger_without: int = 200,
    num_test_older_with: int = 200,
) -> dict[str, Any]:
    """Ages of a drug trial's participants and whether they had side effects.

    Younger participants are 13 to 64 years old, older ones 65 to 100, both ends included. By
    default about one in twenty of the younger had side effects and about one in twenty of the older
    had none, so that no model can be right for more than 2000/2100 = 95.24% of them.

    Args:
        seed: Decides all ages and the order of the rows.
        num_train_younger_with: How many younger participants with side effects the training set
            has; the other counts are named in the same way.
        num_train_older_without: See above.
        num_train_younger_without: See above.
        num_train_older_with: See above.
        num_test_younger_with: See above.
        num_test_older_without: See above.
        num_test_younger_without: See above.
        num_test_older_with: See above.

    Returns:
        `train` and `test`, each a pair of ages, int64 (participants, 1), and labels, int32
        (participants,), 1 for those who had side effects, in random order; `class_names`;
        `feature_names`.
    """
    rng = np.random.default_rng(seed)
    train = _draw_participants(
        rng,
        num_younger=(num_train_younger_without, num_train_younger_with),
        num_older=(num_train_older_without, num_train_older_with),
    )
    test = _draw_participants(
        rng,
        num_younger=(num_test_younger_without, num_test_younger_with),
        num_older=(num_test_older_without, num_test_older_with),
    )
    class_names = ["no_side_effects", "had_side_effects"]
    return {"train": train, "test": test, "class_names": class_names, "feature_names": ["age"]}


def _draw_participants(
    rng: np.random.Generator, *, num_younger: tuple[int, int], num_older: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Ages and labels in random order; each pair is (number without, number with side effects)."""
    ages = np.concatenate(
        [
            rng.integers(13, 64, sum(num_younger), endpoint=True),
            rng.integers(65, 100, sum(num_older), endpoint=True),
        ]
    )
    labels = np.repeat(np.array([0, 1, 0, 1], np.int32), (*num_younger, *num_older))
    order = rng.permutation(len(ages))
    return ages[order, np.newaxis], labels[order]
