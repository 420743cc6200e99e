"""Training passes of stacked `MLP`, written out by hand: the fast engine of `stack_members`.

An ensemble of this engine computes what `Ensemble` computes by vmap and autograd's second
derivative, in about two thirds of the time. Nothing else depends on it: a member of another type
trains through autograd.

The rule for its end: this package is deleted when, on CPU and GPU, an autograd engine compiled by
torch is within 15 % of its time for a step, or when the default network changes in a way that it
does not know.
"""

from sklearn_fordes.networks.fast._engine import MLPEnsemble, is_as_built, stack_members

__all__ = ["MLPEnsemble", "is_as_built", "stack_members"]
