"""The reference job's model as its users write it. Only the peers that train with Keras import it.

`keras_fit.py` does not, because it is a user's plain script.
"""

import keras


def compiled_model(learning_rate: float) -> keras.Model:
    """A new model with initial weights of Keras's own random stream."""
    model = keras.Sequential(
        [
            keras.layers.Input((1,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model
