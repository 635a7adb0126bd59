"""A saved model loaded by Keras, with its optimizer's state, after its file was looked at."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.export.untrusted import check_model_file

if TYPE_CHECKING:
    import keras

# The group of an HDF5 file that holds the optimizer's state; see `formats.write_h5`.
OPTIMIZER_GROUP = "trialrun_optimizer"


def load_model(path: str | Path) -> "keras.Model":
    """A whole saved model, HDF5 or `.keras`, so that its training can be continued.

    `keras.models.load_model` of Keras 3.15 does not load the optimizer's state of an HDF5 file.
    This function does, also from files that Keras wrote.

    The file is inspected first (`trialrun.export.untrusted`) and refused if it names anything but
    Keras's own classes and those that you have registered yourself.

    Args:
        path: A `.h5` or `.keras` file.

    Raises:
        InputError: The file is no model file, or holds a model that could run its author's code.
    """
    import keras

    check_model_file(Path(path))
    model = keras.models.load_model(path)
    if Path(path).suffix == ".h5" and model.compiled:
        optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
        optimizer.build(model.trainable_variables)
        saved = _saved_optimizer(Path(path))
        if len(saved) == len(optimizer.variables):  # otherwise the model was never trained
            for variable, array in zip(optimizer.variables, saved, strict=True):
                variable.assign(array)
            model.optimizer = optimizer
    return model


def _saved_optimizer(path: Path) -> list[Any]:
    """The arrays of the optimizer in an HDF5 file, in Keras's order."""
    import h5py  # a dependency of Keras

    with h5py.File(path) as file:
        if OPTIMIZER_GROUP in file:
            group = file[OPTIMIZER_GROUP]
            return [group[str(number)][()] for number in range(len(group))]
        group = file.get("optimizer_weights")
        if group is None:
            return []
        return [group[name][()] for name in group.attrs["weight_names"]]
