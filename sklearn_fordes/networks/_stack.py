"""From a factory of members to an ensemble on the fastest engine that knows them."""

from __future__ import annotations

from torch import nn

from sklearn_fordes.networks.fast import MLPEnsemble
from sklearn_fordes.particles import Ensemble, MemberFactory


def stack_members(
    make_member: MemberFactory | nn.Module, n_members: int, seed: int = 0
) -> Ensemble:
    """Draw members and stack them.

    The type of a member decides how it is differentiated: passes written out by hand for an `MLP`
    that is built as its constructor builds it, autograd for everything else, a subclass included.

    Parameters
    ----------
    make_member : callable or nn.Module
    n_members : int
    seed : int, default=0
        As in `Ensemble`.

    Returns
    -------
    Ensemble
        An `MLPEnsemble` where it knows the members.

    Examples
    --------
    >>> from functools import partial
    >>> from sklearn_fordes.networks import MLP
    >>> type(stack_members(partial(MLP, 3, 2), n_members=5)).__name__
    'MLPEnsemble'
    >>> type(stack_members(partial(nn.Linear, 3, 2), n_members=5)).__name__
    'Ensemble'
    """
    ensemble = Ensemble(make_member, n_members, seed)
    return MLPEnsemble.of(ensemble) if MLPEnsemble.knows(ensemble) else ensemble
