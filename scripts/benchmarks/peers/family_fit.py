"""One side of `family.py`: `model.fit` of one trial, as it is and with all that Keras offers."""

import json
import os
import sys
import time

import one_core

one_core.pin()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import families  # noqa: E402
import keras  # noqa: E402


def us_per_step(family: str, **options: object) -> float:
    """Of the second epoch; the first one traces and compiles."""
    size, splits = families.FAMILIES[family], families.data(0, family)
    model = families.build(family)
    model.compile(
        keras.optimizers.Adam(1e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **options,
    )

    def fit() -> float:
        start = time.process_time()
        model.fit(
            *splits["train"],
            validation_data=splits["validation"],
            batch_size=size.batch_size,
            verbose=0,
        )
        return time.process_time() - start

    fit()
    return fit() / size.steps_per_epoch * 1e6


if __name__ == "__main__":
    name = sys.argv[1]
    whole_epochs = {
        "jit_compile": True,
        "steps_per_execution": families.FAMILIES[name].steps_per_epoch,
    }
    us = {"fit": us_per_step(name), "fit, compiled": us_per_step(name, **whole_epochs)}
    print(json.dumps({"us": us}))
