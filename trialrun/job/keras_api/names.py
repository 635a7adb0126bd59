"""The names that Keras 3.15 knows, so that a typo is found without importing Keras.

A test compares each tuple with the installed Keras. Base classes are left out. The arguments of
each name are in `trialrun.job.keras_api.arguments`. A new optimizer needs nothing beside these two:
the engines run the code of Keras.
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Keras ignores the case of an optimizer's name; here all are in lower case.
OPTIMIZERS = _names(
    """
    adadelta adafactor adagrad adam adamax adamw ftrl lamb lion muon nadam rmsprop schedulefreeadamw
    sgd
    """
)

# Keras has only class names for these; here they are spelled like its losses.
SCHEDULES = _names(
    """
    cosine_decay cosine_decay_restarts exponential_decay inverse_time_decay
    piecewise_constant_decay polynomial_decay
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

# Metrics of which a larger value is better. `accuracy` and `acc` choose by shapes, as above.
LARGER_IS_BETTER = _names(
    """
    accuracy acc auc binary_accuracy binary_io_u categorical_accuracy concordance_correlation
    cosine_similarity pearson_correlation precision r2_score recall
    sparse_categorical_accuracy sparse_top_k_categorical_accuracy top_k_categorical_accuracy
    true_negatives true_positives
    AUC Accuracy BinaryAccuracy BinaryIoU CategoricalAccuracy ConcordanceCorrelation
    CosineSimilarity PearsonCorrelation Precision R2Score Recall
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

# Metrics that need arguments: without them they cannot be built, or give one number per class. A
# larger value is better.
METRICS_WITH_ARGUMENTS = _names(
    """
    f1_score f_beta_score io_u mean_io_u one_hot_io_u one_hot_mean_io_u precision_at_recall
    recall_at_precision sensitivity_at_specificity specificity_at_sensitivity
    F1Score FBetaScore IoU MeanIoU OneHotIoU OneHotMeanIoU PrecisionAtRecall RecallAtPrecision
    SensitivityAtSpecificity SpecificityAtSensitivity
    """
)

METRICS = LARGER_IS_BETTER + SMALLER_IS_BETTER + METRICS_WITH_ARGUMENTS

# These choose a class by the shapes of labels and outputs.
CHOSEN_BY_SHAPES = ("accuracy", "acc", "crossentropy", "ce")

# Losses whose targets are quantities, not classes.
REGRESSION_LOSSES = _SHORT_ERRORS[2:] + _names(
    """
    cosine_similarity huber log_cosh mean_absolute_error mean_absolute_percentage_error
    mean_squared_error mean_squared_logarithmic_error poisson
    CosineSimilarity Huber LogCosh MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
    MeanSquaredLogarithmicError Poisson
    """
)
