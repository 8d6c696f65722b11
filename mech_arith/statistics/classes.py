"""How well the class of a problem is told from its coordinates: for values of few numbers.

A carry, a parity or a digit need not lie on a line: the digits 0 to 9 may lie on a circle, where
no correlation shows them. So the classes are told apart by linear discriminants, fitted on some of
the problems and tried on the others.
"""

import warnings

import numpy as np
from jaxtyping import Bool, Float64, Real
from numpy.typing import NDArray

MOST_CLASSES = 10
"""Numbers of a value up to which they are classes."""

FOLDS = 5


def n_classes(values: Real[np.ndarray, " n"]) -> int:
    """How many numbers a value has; 0 if it is no value of few classes, or constant."""
    found = len(np.unique(values))
    return found if 2 <= found <= MOST_CLASSES else 0


def told_apart(
    coordinates: Float64[np.ndarray, "n k"], values: Float64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which problems' classes are told right from k coordinates, by 5-fold cross-validation.

    Linear discriminant analysis with the classes' shares as they are among the other problems.
    Where those are of one class, or their coordinates are all the same, their most frequent class
    is told. Fewer problems than folds are told wrong.
    """
    # Heavy, and needed by few cells.
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import KFold

    right = np.zeros(len(values), dtype=bool)
    if len(values) < FOLDS:
        return right
    classes: NDArray[np.int64] = np.unique(values, return_inverse=True)[1]
    for rest, fold in KFold(FOLDS, shuffle=True, random_state=0).split(coordinates):
        counts = np.bincount(classes[rest])
        if (counts > 0).sum() < 2 or not np.ptp(coordinates[rest], axis=0).any():
            right[fold] = classes[fold] == counts.argmax()
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # coordinates that say the same twice
            told = LinearDiscriminantAnalysis().fit(coordinates[rest], classes[rest])
            right[fold] = told.predict(coordinates[fold]) == classes[fold]
    return right
