"""The public names of `sklearn_fordes.distributed`."""

from sklearn_fordes.distributed._launch import fit as fit
