"""scikit-learn's own pipeline of scaling and logistic regression, which a probe must agree with."""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import Normalizer, StandardScaler

from indexer.array_types import Doubles, Floats
from training.logistic_regression import Scaling


def expected_probabilities(
    features: Floats,
    labels: npt.ArrayLike,
    queries: Floats,
    scaling: Scaling,
    inverse_penalty: float,
) -> Doubles:
    """Probabilities (Q, labels) of the queries, with the labels in alphabetical order."""
    fitted, asked = features.astype(np.float64), queries.astype(np.float64)
    if scaling == "length":
        fitted, asked = Normalizer().transform(fitted), Normalizer().transform(asked)
        mean, divisor = fitted.mean(axis=0), np.sqrt(fitted.var(axis=0).mean())
        fitted, asked = (fitted - mean) / divisor, (asked - mean) / divisor
    else:
        scaler = StandardScaler().fit(fitted)
        fitted, asked = scaler.transform(fitted), scaler.transform(asked)
    model = LogisticRegression(C=inverse_penalty, max_iter=10_000, tol=1e-10).fit(fitted, labels)
    probabilities: Doubles = model.predict_proba(asked)
    return probabilities
