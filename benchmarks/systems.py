"""The systems that the paper compares, by name, as parameters of the classifier."""

from __future__ import annotations

from typing import Any

from sklearn_fordes import Repulsion
from sklearn_fordes.particles import tuned_lengthscale

# The paper's repulsion acts at every step, and its strength is not relative.
PAPER: dict[str, Any] = {"fraction": 0.25, "period": 1, "relative": False}
NO_REPULSION = {"repulsion": "none"}
DEEP_ENSEMBLE = "deep ensemble"
WEIGHT = "weight space"
FUNCTION = "function space"
FEATURE = "feature space"
STEIN = "SVGD, weight space"
LIT = "LIT"
IDENTITY = "FoRDE identity"
PCA = "FoRDE PCA"
ALPHAS = (0.1, 0.2, 0.4, 0.8)


def tuned(alpha: float) -> str:
    return f"FoRDE tuned {alpha:g}"


def repelling(space: str = "input_gradient", **settings: Any) -> dict[str, Any]:
    """Return the classifier's parameters for a repulsion."""
    return {"repulsion": Repulsion(space, **settings)}


def fordes(lengthscale: Any) -> dict[str, Any]:
    """Return the classifier's parameters for the paper's repulsion of input gradients."""
    return {**repelling(**PAPER), "lengthscale": lengthscale}


MIXED = f"{tuned(0.4)}, variances mixed"
VARIANCE_MIX = {MIXED: fordes(tuned_lengthscale(0.4, mix="variance"))}
RIVALS: dict[str, dict[str, Any]] = {
    WEIGHT: repelling("weight", **PAPER),
    FUNCTION: repelling("function", **PAPER),
    FEATURE: repelling("feature", **PAPER),
    STEIN: repelling("weight", update="svgd", **PAPER),
    LIT: repelling(update="lit", **PAPER),
}
LENGTHSCALES: dict[str, dict[str, Any]] = {
    IDENTITY: fordes("identity"),
    **{tuned(alpha): fordes(alpha) for alpha in ALPHAS},
    PCA: fordes("pca"),
}
BLOCKS: dict[float, dict[str, dict[str, Any]]] = {  # by repulsion_strength
    0: {DEEP_ENSEMBLE: NO_REPULSION},
    1: {**RIVALS, **LENGTHSCALES},
    5: {**RIVALS, **LENGTHSCALES, **VARIANCE_MIX},
    20: {
        **{name: RIVALS[name] for name in (FUNCTION, LIT)},
        **{name: LENGTHSCALES[name] for name in (IDENTITY, tuned(0.4), PCA)},
    },
}
