"""The paths of the best model's files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BestFiles:
    """The paths of `best/`.

    Attributes:
        folder: `best/` of a run folder.
        job_name: The names of the model files begin with it.
    """

    folder: Path
    job_name: str

    @property
    def model_h5(self) -> Path:
        """The whole model in legacy HDF5: architecture, weights, optimizer state."""
        return self.folder / f"{self.job_name}_model.h5"

    @property
    def architecture(self) -> Path:
        """Only the architecture, as JSON."""
        return self.folder / f"{self.job_name}_architecture.json"

    @property
    def weights(self) -> Path:
        """Only the weights, in HDF5."""
        return self.folder / f"{self.job_name}.weights.h5"

    @property
    def model_keras(self) -> Path:
        """The whole model in Keras's native format."""
        return self.folder / f"{self.job_name}_model.keras"

    @property
    def preprocessing(self) -> Path:
        """Scalers, class names and more: how raw input becomes the model's input."""
        return self.folder / "preprocessing.json"

    @property
    def builder(self) -> Path:
        """How the job's builder makes the model again, for models that no file holds wholly."""
        return self.folder / "builder.json"

    @property
    def readme(self) -> Path:
        """Instructions for loading each file."""
        return self.folder / "README.md"

    @property
    def all_paths(self) -> tuple[Path, ...]:
        """The paths of all files."""
        models = (self.model_h5, self.architecture, self.weights, self.model_keras)
        return (*models, self.preprocessing, self.builder, self.readme)
