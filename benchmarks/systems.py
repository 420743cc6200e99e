"""The systems that the paper compares, by name, as parameters of the classifier."""

from __future__ import annotations

from typing import Any

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


VARIANCE_MIX = f"{tuned(0.4)}, variances mixed"
RIVALS: dict[str, dict[str, Any]] = {
    WEIGHT: {"repulsion": "weight"},
    FUNCTION: {"repulsion": "function"},
    FEATURE: {"repulsion": "feature"},
    STEIN: {"repulsion": "weight", "update": "svgd"},
    LIT: {"update": "lit"},
}
LENGTHSCALES: dict[str, dict[str, Any]] = {
    IDENTITY: {"lengthscale": "identity"},
    **{tuned(alpha): {"lengthscale": alpha} for alpha in ALPHAS},
    PCA: {"lengthscale": "pca"},
}
BLOCKS: dict[float, dict[str, dict[str, Any]]] = {  # by repulsion_strength
    0: {DEEP_ENSEMBLE: {"repulsion": "none"}},
    1: {**RIVALS, **LENGTHSCALES},
    5: {
        **RIVALS,
        **LENGTHSCALES,
        VARIANCE_MIX: {"lengthscale": 0.4, "lengthscale_mix": "variance"},
    },
    20: {
        **{name: RIVALS[name] for name in (FUNCTION, LIT)},
        **{name: LENGTHSCALES[name] for name in (IDENTITY, tuned(0.4), PCA)},
    },
}
