"""The corrupted copies of `sklearn_fordes.inspection`, under the names of the saved results."""

from __future__ import annotations

import pandas as pd

from sklearn_fordes import inspection


def name_of_rows(corruption: str, severity: float) -> str:
    """Return what results call the rows of `drift_scores`."""
    if corruption == "clean":
        return corruption
    return f"{'permute' if corruption == 'swapped' else corruption} {severity:g}"


def corrupted_copies(X: pd.DataFrame, X_train: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """Return `X` under each corruption, by name."""
    copies = inspection.corrupted_copies(X, X_train=X_train, random_state=seed)
    return {name_of_rows(*key): copy for key, copy in copies.items()}
