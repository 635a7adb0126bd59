"""Short made-up reviews as sequences of word numbers, and a recurrent network that reads them."""

import keras
import numpy as np

# Words are numbers. 0 is no word: it fills up short reviews.
NUM_WORDS = 40
NOT, GOOD, BAD = 1, range(2, 10), range(10, 18)  # the other words, 18 to 39, say nothing


def reviews(seed, *, num_train=1200, num_test=400, num_steps=16):
    """Reviews and whether they praise. "not" turns the word after it into its opposite.

    So it takes the order of the words, and not only which they are, to be always right.
    """
    rng = np.random.default_rng(seed)
    rows = [_write_review(rng, num_steps) for _ in range(num_train + num_test)]
    words, labels = (np.array(column) for column in zip(*rows, strict=True))
    return {
        "train": (words[:num_train], labels[:num_train]),
        "test": (words[num_train:], labels[num_train:]),
        "class_names": ["complaint", "praise"],
    }


def _write_review(rng, num_steps):
    while True:
        words = rng.integers(18, NUM_WORDS, rng.integers(num_steps // 2, num_steps + 1))
        telling = rng.random(len(words)) < 0.4
        words[telling] = rng.integers(2, 18, telling.sum())
        words[np.flatnonzero(telling[1:] & (rng.random(len(words) - 1) < 0.5))] = NOT
        score = 0
        for before, word in zip([0, *words], words, strict=False):
            sign = 1 if word in GOOD else -1 if word in BAD else 0
            score += -sign if before == NOT else sign
        if score:
            return np.pad(words, (0, num_steps - len(words))), int(score > 0)


def gru(*, width=8, units=16):
    """An embedding that knows that 0 is no word, a GRU, and one probability: of praise."""
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(NUM_WORDS, width, mask_zero=True),
            keras.layers.GRU(units),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
