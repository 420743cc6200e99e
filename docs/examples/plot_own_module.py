"""
A network of your own
=====================

``module`` takes any torch module that maps rows to logits. Here it is a small convolutional
network for images of handwritten digits. Each member has its own weights and its own statistics of
batch normalisation. What do the members say about a digit that turns?

Needs the extra ``plot`` (:doc:`how to install </start>`).
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sklearn_fordes import FoRDEClassifier

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# ``fit`` calls the function once for each member. It passes ``n_outputs`` because the function has
# an argument of that name, and ``module__width`` as ``width``.


def convolution(n_outputs, width=16):
    """Return a network from images (n_rows, 1, 8, 8) to logits (n_rows, n_outputs)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * width, n_outputs),
    )


digits = load_digits()
images = digits.images[:, None] / 16
X_train, X_test, y_train, y_test = train_test_split(images, digits.target, random_state=0)

model = FoRDEClassifier(5, module=convolution, module__width=16, max_epochs=10, random_state=0)
model.fit(X_train, y_train)
print(f"accuracy on upright test images: {model.score(X_test, y_test):.3f}")

# %%
# No member has seen a turned digit. We turn all test images, and ask how often the ensemble is
# right, how sure it is, and how much of its uncertainty is disagreement between members.

angles = np.array([0, 15, 30, 45, 60, 75, 90])


def turned(images, angle):
    """Turn images by an angle in degrees."""
    return rotate(images, angle, axes=(3, 2), reshape=False, order=1)


for angle in angles:
    rows = turned(X_test, angle)
    uncertainty = model.predict_uncertainty(rows)
    confidence = model.predict_proba(rows).max(axis=1).mean()
    disagreement = uncertainty.epistemic.mean() / uncertainty.total.mean()
    print(
        f"{angle:2d} degrees: accuracy {model.score(rows, y_test):.2f}, confidence "
        f"{confidence:.2f}, disagreement {disagreement:.0%} of the uncertainty"
    )

# %%
# One image, and what each member says about it: a row is a member, and a column one of the ten
# digits. Halfway the members disagree. At a quarter turn they agree again, on a wrong digit.
# Disagreement is no alarm for everything: members may share a mistake.

example = X_test[y_test == 7][:1]
figure, axes = plt.subplots(2, len(angles), figsize=(8, 4), height_ratios=[0.45, 1])
for angle, (above, below) in zip(angles, axes.T, strict=True):
    image = turned(example, angle)
    above.imshow(image[0, 0], cmap="Greys")
    above.set_title(f"{angle}°")
    above.set_axis_off()
    members = model.predict_proba_members(image)[:, 0]
    heat = below.imshow(members, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    below.grid(False)
    below.set(xticks=[0, 3, 6, 9], yticks=range(5), xlabel="digit")
    below.label_outer()
axes[1, 0].set_ylabel("member")
figure.colorbar(heat, ax=axes[1], label="probability")
plt.show()
