"""The model of a trial: the built-in builder, loading a user's, compiling what is not compiled.

Keras is imported inside functions: naming a builder costs nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.errors import InputError
from trialrun.job import ModelSpec, TrainingSpec
from trialrun.references import load_function, portable_reference
from trialrun.untrusted import check_model_file

if TYPE_CHECKING:
    import keras


def mlp(
    *,
    units: Sequence[int] = (16, 32),
    activation: str = "relu",
    num_classes: int = 2,
    dropout: float = 0.0,
    batch_normalization: bool = False,
    l2: float = 0.0,
) -> "keras.Model":
    """A multilayer perceptron that classifies: one dense layer per entry of `units`, then softmax.

    With the defaults and one input feature it has 642 parameters.

    Args:
        units: Width of each hidden layer.
        activation: Of the hidden layers; any name that Keras knows.
        num_classes: Width of the softmax.
        dropout: Rate after each hidden layer, from 0 to below 1; 0 adds no layer.
        batch_normalization: Whether each hidden layer is normalized before its activation.
        l2: Factor of the L2 penalty on the hidden layers' kernels.

    Returns:
        A model (rows, features) -> (rows, num_classes); it is built by the first data it sees.
    """
    import keras

    layers: list[keras.layers.Layer] = []
    for width in units:
        penalty = keras.regularizers.L2(l2) if l2 else None
        if batch_normalization:
            layers += [
                # A bias before a normalization does nothing but wander.
                keras.layers.Dense(width, use_bias=False, kernel_regularizer=penalty),
                keras.layers.BatchNormalization(),
                keras.layers.Activation(activation),
            ]
        else:
            layers.append(
                keras.layers.Dense(width, activation=activation, kernel_regularizer=penalty)
            )
        if dropout:
            layers.append(keras.layers.Dropout(dropout))
    layers.append(keras.layers.Dense(num_classes, activation="softmax"))
    return keras.Sequential(layers)


def build_model(model: ModelSpec, job_folder: Path, x: Any) -> "keras.Model":
    """The model of the user's builder, built for inputs like `x`.

    Args:
        model: The job's section.
        job_folder: Where the path of a builder's file starts.
        x: A batch of inputs: an array, or a dict or tuple of arrays.

    Raises:
        InputError: The builder cannot be loaded, raises, or returns no model; or the model cannot
            take such inputs.
    """
    import keras

    source = f"model.builder {portable_reference(model.builder)}"
    builder = load_function(model.builder, job_folder)
    try:
        built = builder(**model.args)
    except Exception as error:
        raise InputError(f"{source}: it raised {type(error).__name__}: {error}") from error
    if not isinstance(built, keras.Model):
        raise InputError(f"{source}: must return a keras.Model, got a {type(built).__name__}")
    try:
        built(_symbolic(x))  # builds what waits for its first input
    except Exception as error:
        raise InputError(
            f"{source}: the model cannot take the data's inputs: {_first_line(error)}"
        ) from error
    return built


def compile_model(model: "keras.Model", training: TrainingSpec) -> None:
    """Compiles the model as the job says; a model that the builder compiled is left as it is.

    Raises:
        InputError: Keras refuses the optimizer's arguments, the loss or a metric.
    """
    import keras

    if model.compiled:
        return
    try:
        model.compile(
            optimizer=_optimizer(training),
            loss=keras.losses.get(training.loss),
            metrics=list(training.metrics),
            jit_compile=False,
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"training: Keras cannot compile it: {_first_line(error)}") from error


def load_model(path: str | Path) -> "keras.Model":
    """A whole saved model, HDF5 or `.keras`, ready to go on training where it stopped.

    `keras.models.load_model` of Keras 3.15 builds the optimizer of an HDF5 file for no variables
    and then drops its saved state with a warning. Here the state is put back.

    The file is looked at first (`trialrun.untrusted`): one that names anything but Keras's own
    classes and those that you registered yourself is refused.

    Args:
        path: A `.h5` or `.keras` file.

    Raises:
        InputError: It is no model file, or a model that could run its author's code.
    """
    import keras

    check_model_file(Path(path))
    model = keras.models.load_model(path)
    if Path(path).suffix == ".h5" and model.compiled:
        optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
        optimizer.build(model.trainable_variables)
        saved = _saved_optimizer(Path(path))
        if len(saved) == len(optimizer.variables):  # else the model was never trained
            for variable, array in zip(optimizer.variables, saved, strict=True):
                variable.assign(array)
            model.optimizer = optimizer
    return model


def _saved_optimizer(path: Path) -> list[Any]:
    """The optimizer's arrays of an HDF5 file, in Keras's order."""
    import h5py  # comes with Keras

    with h5py.File(path) as file:
        group = file.get("optimizer_weights")
        if group is None:
            return []
        return [group[name][()] for name in group.attrs["weight_names"]]


def _optimizer(training: TrainingSpec) -> "keras.optimizers.Optimizer":
    import keras

    spec = training.optimizer
    arguments = {"name": spec} if isinstance(spec, str) else dict(spec)
    optimizer_class = type(keras.optimizers.get(arguments.pop("name")))
    optimizer: keras.optimizers.Optimizer = optimizer_class(
        learning_rate=training.learning_rate, **arguments
    )
    return optimizer


def _symbolic(x: Any) -> Any:
    """Inputs with the shape and type of `x` and any number of rows."""
    import keras

    return keras.tree.map_structure(
        lambda array: keras.KerasTensor((None, *array.shape[1:]), str(array.dtype)), x
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
