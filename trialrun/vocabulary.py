"""The names that Keras 3.15 gives a meaning to, so that a typo is found without importing it.

A test compares each tuple with the installed Keras. Names that need arguments to be built
(`PrecisionAtRecall`, `MeanIoU`) and base classes are left out: a bare name cannot mean them.
"""

import difflib
from collections.abc import Iterable


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Keras ignores the case of an optimizer's name; here they are lower case.
OPTIMIZERS = _names(
    """
    adadelta adafactor adagrad adam adamax adamw ftrl lion muon nadam rmsprop schedulefreeadamw sgd
    """
)

_SHORT_ERRORS = _names("bce BCE mae MAE mape MAPE mse MSE msle MSLE")

# `crossentropy` and `ce` choose binary, categorical or sparse by the shapes of labels and outputs.
LOSSES = _SHORT_ERRORS + _names(
    """
    crossentropy ce kld KLD
    binary_crossentropy binary_focal_crossentropy categorical_crossentropy
    categorical_focal_crossentropy categorical_hinge circle cosine_similarity ctc dice hinge huber
    kl_divergence log_cosh mean_absolute_error mean_absolute_percentage_error mean_squared_error
    mean_squared_logarithmic_error poisson sparse_categorical_crossentropy squared_hinge tversky
    BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy
    CategoricalFocalCrossentropy CategoricalHinge Circle CosineSimilarity Dice Hinge Huber
    KLDivergence LogCosh MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
    MeanSquaredLogarithmicError Poisson SparseCategoricalCrossentropy SquaredHinge Tversky
    """
)

# A larger value of these is a better model. `accuracy` and `acc` choose by shapes, as above.
LARGER_IS_BETTER = _names(
    """
    accuracy acc auc binary_accuracy binary_io_u categorical_accuracy concordance_correlation
    cosine_similarity f1_score f_beta_score pearson_correlation precision r2_score recall
    sparse_categorical_accuracy sparse_top_k_categorical_accuracy top_k_categorical_accuracy
    true_negatives true_positives
    AUC Accuracy BinaryAccuracy BinaryIoU CategoricalAccuracy ConcordanceCorrelation
    CosineSimilarity F1Score FBetaScore PearsonCorrelation Precision R2Score Recall
    SparseCategoricalAccuracy SparseTopKCategoricalAccuracy TopKCategoricalAccuracy TrueNegatives
    TruePositives
    """
)

SMALLER_IS_BETTER = _SHORT_ERRORS + _names(
    """
    binary_crossentropy categorical_crossentropy categorical_hinge false_negatives false_positives
    hinge kl_divergence log_cosh_error mean_absolute_error mean_absolute_percentage_error
    mean_squared_error mean_squared_logarithmic_error poisson root_mean_squared_error
    sparse_categorical_crossentropy squared_hinge
    BinaryCrossentropy CategoricalCrossentropy CategoricalHinge FalseNegatives FalsePositives Hinge
    KLDivergence LogCoshError MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
    MeanSquaredLogarithmicError Poisson RootMeanSquaredError SparseCategoricalCrossentropy
    SquaredHinge
    """
)

METRICS = LARGER_IS_BETTER + SMALLER_IS_BETTER


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known ones, or all of them.

    >>> suggest("adm", ["adam", "sgd"])
    "did you mean 'adam'?"
    >>> suggest("xyz", ["adam", "sgd"])
    'known: adam, sgd'
    """
    names = list(known)
    by_lower = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(word.lower(), by_lower, n=3)
    if near:
        return f"did you mean {' or '.join(repr(by_lower[name]) for name in near)}?"
    return f"known: {', '.join(names) or 'none'}"
