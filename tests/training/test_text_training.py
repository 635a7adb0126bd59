"""Models that take text are trained by model.fit; oracle: plain Keras with the trial's weights."""

import numpy as np
import pytest
from training_jobs import load_trials, make_task, train

pytestmark = pytest.mark.tensorflow

CODE = """
import keras, numpy as np, pandas as pd
from keras import layers
WORDS = np.array("good great bad awful film plot".split())
def data(seed, kind="text", n=60):
    r = np.random.default_rng(seed); i = r.integers(0, 6, (n, 4))
    text = np.array([" ".join(WORDS[k]) for k in i], dtype=object)
    y = np.where((i < 2).sum(1) > ((i == 2) | (i == 3)).sum(1), "up", "down")
    x = {"text": text, "both": {"w": pd.Series(WORDS[i[:, 0]]), "n": i[:, 1:] * 1.0}}[kind]
    cut = lambda rows: {k: v[rows] for k, v in x.items()} if kind == "both" else x[rows]
    return {"train": (cut(slice(40)), y[:40]), "test": (cut(slice(40, n)), y[40:])}
def text():
    words = layers.TextVectorization(max_tokens=20, output_sequence_length=4); words.adapt(WORDS)
    x = keras.Input((), dtype="string")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(20, 4)(words(x)))
    return keras.Model(x, layers.Dense(2, "softmax")(h))
def both():
    look = layers.StringLookup(vocabulary=WORDS.tolist(), output_mode="one_hot")
    w, n = keras.Input((1,), name="w", dtype="string"), keras.Input((3,), name="n")
    h = layers.Concatenate()([look(w), n])
    return keras.Model({"w": w, "n": n}, layers.Dense(2, "softmax")(h))
"""


@pytest.mark.parametrize("kind", ["text", "both"])
def test_a_model_that_takes_text_is_trained_and_judged_as_keras_judges_it(tmp_path, kind):
    import keras
    import tensorflow as tf

    (tmp_path / "texts.py").write_text(CODE)
    data = {"generator": "texts.py:data", "args": {"kind": kind}, "scaling": "minmax"}
    training = {"epochs": 2, "batch_size": 16}
    builder = f"texts.py:{kind}"
    trials = load_trials(tmp_path, builder=builder, seeds=[0, 1], data=data, training=training)
    result = train(make_task(tmp_path, trials))
    assert {(one.status, one.engine) for one in result.trials} == {("completed", "keras")}
    assert result.class_names == ("down", "up")
    assert "an input is text" in result.reason

    (state,) = result.best_states.values()
    made: dict = {}
    exec(CODE, made)
    model = made[kind]()
    for variable, array in zip(model.trainable_variables, state.trainable, strict=True):
        variable.assign(array)
    x, labels = made["data"](state.seed, kind)["test"]
    if kind == "both":
        number = made["data"](state.seed, kind)["train"][0]["n"]  # 0 to 5: minmax divides by 5
        assert (number.min(), number.max()) == (0, 5)
        x = {"w": tf.constant(x["w"].tolist()), "n": x["n"] / 5}
    else:
        x = tf.constant(x)
    y = np.array([["down", "up"].index(label) for label in labels])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
    loss, accuracy = model.evaluate(x, y, verbose=0)
    of_trial = next(one for one in result.trials if one.trial.trial_id == state.trial_id)
    assert of_trial.metrics["test_loss"] == pytest.approx(loss, abs=1e-5)
    assert of_trial.metrics["test_accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_a_seed_whose_labels_are_other_classes_fails_alone(tmp_path):
    code = """
import numpy as np
def data(seed):
    y = np.array(["a", "b", "c"] * 8 if seed != 1 else ["a", "c"] * 12)
    x = np.arange(24.0)[:, None] + [0, 1, 2, 3, 4, 5]
    return {"train": (x, y), "test": (x + 0.5, y)}
"""
    (tmp_path / "named.py").write_text(code)
    data = {"generator": "named.py:data"}
    trials = load_trials(
        tmp_path,
        builder="dense",
        seeds=[0, 1, 2],
        data=data,
        training={"epochs": 1, "engine": "keras"},
    )
    result = train(make_task(tmp_path, trials))
    status = {one.trial.seed: one.status for one in result.trials}
    assert status == {0: "completed", 1: "failed", 2: "completed"}
    (failed,) = (one for one in result.trials if one.status == "failed")
    assert failed.error == (
        "the data of seed 1 has the classes a, c, that of other seeds a, b, c; let the generator"
        " return class_names, the same for every seed"
    )
