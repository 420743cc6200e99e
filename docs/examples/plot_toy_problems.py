"""
Two toy problems
================

Problems small enough to look at: a curve with a gap in its data, and three clusters in the plane.
A deep ensemble and FoRDE have the same networks and the same initial weights. Away from the data,
do their members disagree?

Needs the extra ``plot`` (:doc:`how to install </start>`).
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_blobs
from sklearn.preprocessing import StandardScaler

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# Both estimators are set up as in the paper's toy problems: plain networks of two small layers, a
# constant learning rate, and a strong repulsion in each step at all rows of the batch. The scaler
# does not clip its input as the default encoder does, so that members can go their own ways
# outside of the data.

plain = {
    "n_members": 10,
    "hidden_layer_sizes": (32, 32),
    "encoder": StandardScaler(),
    "module__dropout": 0.0,
    "lr": 0.01,
    "lr_schedule": "constant",
    "weight_decay": 0,
    "ema_decay": 0.0,
    "early_stopping": False,
    "repulsion_strength": 5,
    "random_state": 0,
}
spaces = {"deep ensemble": "none", "FoRDE": "input_gradient"}


def repulsion_in(space):
    """Return a repulsion that acts in each step, at all rows, as strongly at the end as before."""
    return Repulsion(space, fraction=1.0, period=1, relative=False)


# %%
# The curve has sixty points, and none between −0.4 and 0.4. With one input, the members' slopes
# are compared.

rng = np.random.default_rng(0)
x = np.concatenate([rng.uniform(-1, -0.4, 30), rng.uniform(0.4, 1, 30)])[:, None]
y = np.sin(4 * x[:, 0]) + 0.3 * x[:, 0] + 0.05 * rng.normal(size=60)
regressors = {
    name: FoRDERegressor(
        repulsion=repulsion_in(space),
        noise="homoscedastic",
        module__activation="tanh",
        max_epochs=400,
        **plain,
    ).fit(x, y)
    for name, space in spaces.items()
}

# %%
# The clusters have sixty points each. With two inputs, the angles of the gradients are compared.

centers = [[0, 2], [-1.8, -1.2], [1.8, -1.2]]
points, labels = make_blobs(180, centers=centers, cluster_std=0.4, random_state=0)
classifiers = {
    name: FoRDEClassifier(repulsion=repulsion_in(space), max_epochs=60, batch_size=60, **plain).fit(
        points, labels
    )
    for name, space in spaces.items()
}

# %%
# Above: thin lines are members, and the band is two standard deviations of the members' means.
# Below: the entropy of the mean probability, which is 0 for a certain row and 1.1 for a guess.
#
# In the gap FoRDE's members fan out more than those of the deep ensemble. In the plane the borders
# of the deep ensemble nearly coincide, so that it is certain almost everywhere. FoRDE's borders
# differ, and its entropy grows away from the clusters. Behind each cluster it stays certain for a
# while.

line = np.linspace(-1.6, 1.6, 161)[:, None]
axis = np.linspace(-4.5, 4.5, 91)
plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)

figure, axes = plt.subplots(2, 2, figsize=(8, 7), height_ratios=[1, 1.35], sharey="row")
for ax, (name, model) in zip(axes[0], regressors.items(), strict=True):
    mean, std = model.predict(line), np.sqrt(model.predict_uncertainty(line).epistemic)
    ax.fill_between(line[:, 0], mean - 2 * std, mean + 2 * std, color="C0", alpha=0.2, linewidth=0)
    ax.plot(line, model.predict_members(line).T, color="C0", linewidth=0.8, alpha=0.7)
    ax.plot(x, y, ".", color="black")
    ax.set(xlabel="x", ylim=(-2.5, 2.5))
    ax.set_title(name)
axes[0, 0].set_ylabel("y")

for ax, model in zip(axes[1], classifiers.values(), strict=True):
    entropy = model.predict_uncertainty(plane).total.reshape(len(axis), -1)
    surface = ax.contourf(axis, axis, entropy, levels=np.linspace(0, 1.1, 12), cmap="Greys")
    for label, marker in enumerate("os^"):
        ax.plot(*points[labels == label].T, marker, color=f"C{label}", markersize=3)
    ax.set(xlabel="first input", aspect="equal")
    ax.grid(False)
axes[1, 0].set_ylabel("second input")
figure.colorbar(surface, ax=axes[1], label="entropy (nats)", ticks=[0, 0.5, 1.0])
plt.show()
