"""
A repulsion space of your own
=============================

Members repel each other in a space, and a function can define it. Here it compares what swapped
cells do to a member's prediction: a difference over a whole step, where the default compares
gradients. The example trains the same ensembles in each space and scores them on breast cancer
data.

Needs the extra ``plot`` (:doc:`how to install </start>`).
"""

import matplotlib.pyplot as plt
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from torch.nn.functional import normalize

from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.inspection import corrupted_copies

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# A space is a function of the ensemble, the encoded rows and their classes. It returns a tensor of
# shape (n_members, n_rows, K), which autograd can follow. Here K is the number of columns: the
# change of the true class's log probability if the column alone takes the value of another row.
# Directions are compared, as with gradients, because lengths follow the confidence of a member. New
# tensors are made on the device of the rows.


def swap_effects(ensemble, X, y):
    """Return the directions of a member's changes, (n_members, n_rows, n_columns)."""
    n_rows, n_columns = X.shape
    is_swapped = torch.eye(n_columns, dtype=torch.bool, device=X.device)[:, None]
    swapped = torch.where(is_swapped, X.roll(1, dims=0), X)  # (n_columns, n_rows, n_columns)
    logits = ensemble(torch.cat([X[None], swapped]).flatten(0, 1))
    log_probabilities = logits.log_softmax(-1).unflatten(1, (1 + n_columns, n_rows))
    places = torch.arange(n_rows, device=X.device)
    of_true = log_probabilities[..., places, y]  # (n_members, 1 + n_columns, n_rows)
    return normalize((of_true[:, 1:] - of_true[:, :1]).transpose(1, 2), dim=-1)


# %%
# ``augmentation=None`` keeps swapped cells out of the training, so that what remains is the effect
# of the repulsion. All spaces get the same strength, splits and initial weights.

spaces = {
    "none (deep ensemble)": "none",
    "weights": "weight",
    "predictions": "function",
    "input gradients": "input_gradient",
    "swap effects (own)": swap_effects,
}
X, y = load_breast_cancer(return_X_y=True, as_frame=True)
records = []
for seed in range(3):
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=seed, stratify=y)
    copies = corrupted_copies(
        X_test, X_train=X_train, corruptions={"swapped": 0.3}, random_state=seed
    )
    for name, space in spaces.items():
        model = FoRDEClassifier(
            n_members=5,
            repulsion=space,
            augmentation=None,
            max_epochs=30,
            random_state=seed,
        ).fit(X_train, y_train)
        for kind, rows in (("clean", X_test), ("swapped", copies["swapped", 0.3])):
            records.append([seed, name, kind, log_loss(y_test, model.predict_proba(rows))])
scores = pd.DataFrame(records, columns=["seed", "space", "rows", "log loss"])
print(scores.pivot_table("log loss", "space", "rows").loc[list(spaces)].round(3))

# %%
# Each point is a seed, and the bar is their mean. Three seeds of one table are an example and no
# ranking. Repulsion of weights changes nothing here. On swapped cells the other spaces lower the
# mean loss, that of predictions most of all. On clean rows the own space is no better than a deep
# ensemble.

figure, axes = plt.subplots(1, 2, sharex=True, sharey=True)
for ax, (_, rows) in zip(axes, scores.groupby("rows"), strict=True):
    for place, space in enumerate(spaces):
        losses = rows.loc[rows["space"] == space, "log loss"]
        ax.plot(losses, [place] * len(losses), "o", color="C0", alpha=0.6, markersize=8)
        ax.plot(losses.mean(), place, "|", color="C1", markersize=26, markeredgewidth=3)
    ax.set(yticks=range(len(spaces)), yticklabels=spaces, ylim=(len(spaces) - 0.5, -0.5))
    ax.set_xlabel("log loss (nats per row)")
axes[0].set(xlim=(0, None))
axes[0].set_title("clean test rows")
axes[1].set_title("three cells in ten swapped")
plt.show()
