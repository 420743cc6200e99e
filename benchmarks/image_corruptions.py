"""Corruptions of grey images with pixels in [0, 1]: five kinds, each at five severities.

Deterministic given a seed, and alike for every method. Severity 1 is mild, 5 severe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Images = NDArray[np.float64]  # (N, height, width)
Corruption = Callable[[Images, float, np.random.Generator], Images]


def add_gaussian_noise(images: Images, sigma: float, rng: np.random.Generator) -> Images:
    """Add normal noise of standard deviation `sigma`, and clip."""
    return (images + sigma * rng.normal(size=images.shape)).clip(0, 1)


def add_impulse_noise(images: Images, probability: float, rng: np.random.Generator) -> Images:
    """Make each pixel black or white with `probability`."""
    impulses = rng.integers(2, size=images.shape).astype(images.dtype)
    return np.where(rng.random(images.shape) < probability, impulses, images)


def blur(images: Images, width: float, _: np.random.Generator) -> Images:
    """Convolve with a Gaussian whose standard deviation is a share `width` of the image's."""
    sigma = width * images.shape[-1]
    return ndimage.gaussian_filter(images, (0, sigma, sigma))


def lower_contrast(images: Images, factor: float, _: np.random.Generator) -> Images:
    """Shrink the distance of pixels from their image's mean by `factor`."""
    mean = images.mean((1, 2), keepdims=True)
    return mean + factor * (images - mean)


def rotate(images: Images, degrees: float, rng: np.random.Generator) -> Images:
    """Turn each image by `degrees`, clockwise or not at random."""
    clockwise = rng.random(len(images)) < 0.5
    rotated = np.empty_like(images)
    for turned, sign in ((clockwise, -1), (~clockwise, 1)):
        rotated[turned] = ndimage.rotate(
            images[turned], sign * degrees, axes=(2, 1), reshape=False, order=1
        )
    return rotated.clip(0, 1)


KINDS: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "Gaussian noise": (add_gaussian_noise, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "impulse noise": (add_impulse_noise, (0.03, 0.06, 0.1, 0.17, 0.25)),
    "blur": (blur, (0.04, 0.055, 0.07, 0.085, 0.1)),
    "contrast": (lower_contrast, (0.5, 0.4, 0.3, 0.2, 0.1)),
    "rotation": (rotate, (8, 16, 24, 32, 40)),
}
N_SEVERITIES = 5


def corrupted_copies(images: Images, seed: int) -> Iterator[tuple[str, int, Images]]:
    """Yield the kind, the severity (1 to 5) and `images` (N, height, width) under it."""
    for index, (kind, (corrupt, amounts)) in enumerate(KINDS.items()):
        for severity, amount in enumerate(amounts, start=1):
            rng = np.random.default_rng([seed, index, severity])
            yield kind, severity, corrupt(images, amount, rng)
