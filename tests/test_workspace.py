"""Memory that steps of training share: nothing that was computed before may change."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch

from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.particles import (
    CATEGORICAL,
    SPACES,
    Repulsion,
    accumulate_gradients,
    wasserstein,
)
from sklearn_fordes.particles import _kernel as kernel_module
from sklearn_fordes.tabular import MLP, MLPEnsemble
from sklearn_fordes.tabular._workspace import Workspace


def make_ensemble():
    return MLPEnsemble(
        lambda: MLP(5, 3, hidden_layer_sizes=(7, 4), embedded_features=[0, 2]), 4, seed=3
    )


def make_batch(n_rows=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_rows, 5, generator=generator), torch.randint(
        3, (n_rows,), generator=generator
    )


def gradients_of(ensemble, X, y):
    ensemble.zero_grad()
    step = accumulate_gradients(ensemble, X, y, repulsion=Repulsion(fraction=0.5))
    return [*step, *(p.grad.clone() for p in ensemble.parameters())]


def test_steps_with_batches_of_all_sizes_are_those_of_a_fresh_ensemble():
    ensemble = make_ensemble()
    for n_rows in (12, 12, 7, 12, 20, 20, 3):
        X, y = make_batch(n_rows, seed=n_rows)
        torch.testing.assert_close(
            gradients_of(ensemble, X, y), gradients_of(make_ensemble(), X, y), rtol=0, atol=0
        )


def test_what_a_step_returned_is_not_changed_by_the_next():
    ensemble = make_ensemble()
    for _ in range(2):
        step = accumulate_gradients(ensemble, *make_batch(), repulsion=Repulsion())
        before = [part.clone() for part in step]
        accumulate_gradients(ensemble, *make_batch(seed=1), repulsion=Repulsion())
        torch.testing.assert_close(list(step), before, rtol=0, atol=0)


def test_interleaved_evaluations_do_not_share_memory():
    ensemble = make_ensemble()
    space = SPACES["input_gradient"]
    batches = [make_batch(seed=seed) for seed in (0, 1)]
    for X, y in [*batches, *batches]:  # so that there is memory from before
        accumulate_gradients(ensemble, X, y, repulsion=Repulsion())
    ensemble.zero_grad()

    def pulled_back(evaluation):
        cotangents = torch.ones_like(evaluation.outputs), evaluation.representation
        return [gradient.clone() for gradient in evaluation.pullback(*cotangents)]

    apart = [pulled_back(space.evaluate(ensemble, X, y, 6, CATEGORICAL)) for X, y in batches]
    both = [space.evaluate(ensemble, X, y, 6, CATEGORICAL) for X, y in batches]
    together = [pulled_back(evaluation) for evaluation in both]
    torch.testing.assert_close(together, apart, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="second pullback"):
        pulled_back(both[0])


def test_gradients_add_up_over_batches_of_different_sizes():
    ensemble = make_ensemble()
    parts = [gradients_of(ensemble, *make_batch(n, seed=n))[3:] for n in (12, 9)]
    ensemble.zero_grad()
    for n_rows in (12, 9):
        accumulate_gradients(
            ensemble, *make_batch(n_rows, seed=n_rows), repulsion=Repulsion(fraction=0.5)
        )
    for parameter, *both in zip(ensemble.parameters(), *parts, strict=True):
        torch.testing.assert_close(parameter.grad, sum(both))


def test_a_workspace_lends_its_block_once_and_grows():
    workspace, like = Workspace(), torch.empty(0)
    first = workspace.lease(like)
    first.empty(400)
    del first
    second = workspace.lease(like)
    a = second.empty(50)
    b = second.empty(50)
    assert a.data_ptr() != b.data_ptr()
    scratch = second.scratch_like(torch.empty(5, 5))
    assert second.empty(5).data_ptr() == scratch.data_ptr()
    c = workspace.lease(like).empty(50)  # while the second lives
    assert c.data_ptr() not in (a.data_ptr(), b.data_ptr())
    address = a.data_ptr()
    del second
    assert workspace.lease(like).empty(50).data_ptr() == address
    assert workspace.lease(like.double()).empty(50).dtype == torch.float64


def test_threads_have_memory_of_their_own(binary):
    X, y = binary
    model = FoRDEClassifier(2, hidden_layer_sizes=8, max_epochs=2, random_state=0).fit(X, y)
    expected = model.input_gradients(X)
    found = [None] * 8

    def run(index):
        found[index] = model.input_gradients(X)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for gradients in found:
        np.testing.assert_array_equal(gradients, expected)


def test_memory_is_given_back_after_a_fit_and_not_copied(binary):
    model = FoRDEClassifier(2, hidden_layer_sizes=8, max_epochs=2).fit(*binary)
    ensemble = model.net_.module_
    assert not len(ensemble._workspace._block)
    assert not ensemble._workspace._gradients
    ensemble.train()
    for _ in range(2):
        X = torch.randn(9, binary[0].shape[1])
        accumulate_gradients(ensemble, X, torch.zeros(9, dtype=torch.int64))
    assert len(ensemble._workspace._block)
    for copied in (copy.deepcopy(ensemble), pickle.loads(pickle.dumps(model)).net_.module_):
        assert not len(copied._workspace._block)


@pytest.mark.parametrize("pairs", [1, 60, 100])
def test_kernels_are_the_same_however_many_rows_are_compared_at_a_time(monkeypatch, pairs):
    representation = torch.randn(5, 11, 3, dtype=torch.float64)
    expected = wasserstein(representation)
    monkeypatch.setattr(kernel_module, "_PAIRS_AT_A_TIME", pairs)
    actual = wasserstein(representation)
    torch.testing.assert_close(actual.potential, expected.potential)
    torch.testing.assert_close(actual.force, expected.force)
