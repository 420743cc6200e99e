"""Members, or rows, of one fit on several processes."""

import copy
import os
import pickle
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback, Checkpoint, EpochScoring, GradientNormClipping
from torch import distributed, nn

from ranks import Ranks
from sklearn_fordes import (
    CellCorruption,
    FoRDEClassifier,
    FoRDERegressor,
    Repulsion,
    particles,
)
from sklearn_fordes.networks import MLP, stack_members
from sklearn_fordes.particles import (
    CategoricalLikelihood,
    ProcessGroups,
    accumulate_gradients,
)
from sklearn_fordes.streaming import Share

pytestmark = pytest.mark.filterwarnings("ignore:The best validation loss")
SMALL = {"hidden_layer_sizes": (32,), "max_epochs": 4, "n_members": 10, "random_state": 0}


@pytest.fixture(scope="module")
def started():
    """Return a function of a number of processes, which are started once."""
    known = {}

    def start(n):
        known[n] = known.get(n) or Ranks(n)
        return known[n]

    yield start
    for ranks in known.values():
        ranks.close()


@pytest.fixture(params=[2, 3])
def ranks(started, request):
    return started(request.param)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def table(kind, n_rows=700):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 6))
    if kind is FoRDEClassifier:
        return X, np.array(["no", "yes", "may"])[1 * (X[:, 0] > 0) + (X[:, 1] * X[:, 2] > 0.5)]
    return X, X[:, 0] * X[:, 1] + 0.1 * rng.normal(size=n_rows)


def fitted(kind, settings, n_rows=700, **named):
    model = kind(**{**SMALL, **settings}).fit(*table(kind, n_rows), **named)
    return what_was_learnt(model)


def what_was_learnt(model):
    weights = {k: v.numpy() for k, v in model.fitted_.members.state_dict().items()}
    history = [{k: v for k, v in e.items() if k != "dur"} for e in model.history_]
    moments = [
        {k: v.numpy() for k, v in state.items()}
        for state in model.net_.optimizer_.state_dict()["state"].values()
    ]
    return (
        weights,
        history,
        moments,
        model.feature_importances_,
        model.predict(table(type(model))[0]),
    )


def assert_same(one, other):
    np.testing.assert_equal(one, other)


FITS = {
    "classifier": (FoRDEClassifier, {}),
    "regressor": (FoRDERegressor, {}),
    "quantiles": (FoRDERegressor, {"noise": "quantile"}),
    "one noise": (FoRDERegressor, {"noise": "homoscedastic"}),
    "pca": (FoRDEClassifier, {"lengthscale": "pca"}),
    "lengthscales": (FoRDEClassifier, {"lengthscale": [1.0, 2.0, 3.0, 1.0, 1.0, 0.5]}),
    "variance": (FoRDERegressor, {"lengthscale": particles.tuned_lengthscale(0.5, "variance")}),
    "paper": (FoRDEClassifier, {"repulsion": Repulsion.paper(), "repulsion_strength": 1.0}),
    "paper's text": (FoRDEClassifier, {"repulsion": Repulsion(bandwidth="paper")}),
    "fixed bandwidth": (FoRDEClassifier, {"repulsion": Repulsion(bandwidth=0.5, warmup=2)}),
    "weights": (FoRDEClassifier, {"repulsion": "weight"}),
    "functions": (FoRDERegressor, {"repulsion": "function"}),
    "features": (FoRDEClassifier, {"repulsion": "feature"}),
    "none": (FoRDEClassifier, {"repulsion": "none"}),
    "lit": (FoRDEClassifier, {"repulsion": Repulsion(update="lit")}),
    "svgd of weights": (FoRDEClassifier, {"repulsion": Repulsion("weight", update="svgd")}),
    "svgd of functions": (FoRDEClassifier, {"repulsion": Repulsion("function", update="svgd")}),
    "own space": (FoRDEClassifier, {"repulsion": lambda ensemble, X, y: ensemble(X)}),
    "dropout": (FoRDEClassifier, {"module__dropout": 0.3, "hidden_layer_sizes": (32, 16)}),
    "no average": (FoRDEClassifier, {"ema_decay": 0.0}),
    "stops early": (FoRDEClassifier, {"n_iter_no_change": 1, "max_epochs": 12, "lr": 0.05}),
    "no early stopping": (FoRDEClassifier, {"early_stopping": False}),
    "folds": (FoRDEClassifier, {}, 300),
    "other folds": (FoRDEClassifier, {"n_members": 8}, 200),
    "folds of numbers": (FoRDERegressor, {"n_members": 4, "hidden_layer_sizes": (32, 32)}, 310),
    "weighed folds": (FoRDEClassifier, {"class_weight": {"no": 1.3, "yes": 0.7}}, 310),
    "odd batches of quantiles": (FoRDERegressor, {"noise": "quantile", "batch_size": 63}),
    "odd batches of one noise": (FoRDERegressor, {"noise": "homoscedastic", "batch_size": 63}),
    "odd batches": (FoRDEClassifier, {"batch_size": 63}),
    "versions of the user's": (
        FoRDEClassifier,
        {"augmentation": lambda X, rng: X + torch.arange(10.0).view(-1, 1, 1) / 10},
    ),
    "all exposed": (FoRDEClassifier, {"augmentation": CellCorruption(exposed=1.0)}),
    "no versions": (FoRDEClassifier, {"augmentation": None}),
    "momentum": (FoRDEClassifier, {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}),
    "class weights": (FoRDEClassifier, {"class_weight": "balanced"}),
}


FITS |= {
    f"three members, {name}": (kind, {**settings, "n_members": 3, "max_epochs": 2})
    for name, (kind, settings, *_) in FITS.items()
    if "svgd" in name or name in {"classifier", "regressor", "pca", "lit", "functions"}
}


# Three processes divide ten members unequally.
ON_TWO = ["classifier", "regressor", "weights", "svgd of functions", "folds", "stops early"]


@pytest.mark.parametrize(
    ("n", "name"), [*((3, name) for name in FITS), *((2, name) for name in ON_TWO)]
)
def test_members_on_processes_are_bitwise_those_of_one_process(started, n, name):
    kind, settings, *n_rows = FITS[name]
    expected = fitted(kind, settings, *n_rows)
    for found in started(n)(fitted, kind, {**settings, "distributed": "members"}, *n_rows):
        assert_same(found, expected)


def repelled_elsewhere(settings):
    X, y = table(FoRDEClassifier)
    extra = np.random.default_rng(5).normal(size=(50, 6))
    model = FoRDEClassifier(**{**SMALL, **settings}).fit(X, y, X_repulsion=extra)
    return what_was_learnt(model)


def test_all_members_guess_the_classes_of_rows_without_one(ranks):
    expected = repelled_elsewhere({})
    for found in ranks(repelled_elsewhere, {"distributed": "members"}):
        assert_same(found, expected)


class Named(nn.Sequential):
    """A module with a part whose name is that of an attribute of ours."""

    def __init__(self, n_features, n_outputs):
        super().__init__(nn.Linear(n_features, n_outputs))
        self.sequence = self.mask_sequence = nn.Identity()


def test_parts_of_a_module_may_have_any_name(ranks):
    settings = {"module": Named, "distributed": "rows"}
    assert set(ranks(error_of, settings)) == {"no error"}


def copied():
    group = ProcessGroups(4, distributed.group.WORLD)
    return pickle.loads(pickle.dumps(group)).n_processes, copy.deepcopy(group).n_processes


def test_a_copy_of_a_group_reaches_nobody(ranks):
    assert set(ranks(copied)) == {(1, 1)}


# ---- rows


def step(settings, n_rows, groups=None, *, weighted=False, extra=False, shared=True):
    """Return the gradients and the repulsion of one step, in this process's share of it."""
    settings = {**settings, "repulsion": settings["repulsion"].build(torch.zeros(1, 6).double())}
    make = partial(MLP, 6, 3, hidden_layer_sizes=(16,), embedded_features=[0, 2])
    whole = stack_members(make, 4).double().train()
    draw = torch.Generator().manual_seed(1)
    shape = (n_rows, 6) if shared else (4, n_rows, 6)
    X = torch.randn(shape, generator=draw, dtype=torch.float64)
    if not shared:
        X[1:, : n_rows // 2] = X[0, : n_rows // 2]
    y = torch.arange(n_rows) % 3
    weight = torch.rand(n_rows, generator=draw, dtype=torch.float64) if weighted else None
    rows = torch.randn(n_rows, 6, generator=draw, dtype=torch.float64) if extra else None
    communicator = groups() if groups else particles.ALONE
    part, members = communicator.rows, communicator.members
    own = whole.select(range(4)[members]).train()
    result = accumulate_gradients(
        own,
        X[part] if shared else X[members, part],
        y[part],
        None if weight is None else weight[part],
        likelihood=CategoricalLikelihood(3),
        extra_inputs=None if rows is None else rows[part],
        communicator=communicator,
        shared=shared,
        n_rows=n_rows,
        **settings,
    )
    return members, [p.grad for p in own.parameters()], result.repulsion


def spread_rows():
    return ProcessGroups(4, rows=distributed.group.WORLD)


REPULSIONS = {
    "input gradients": Repulsion(fraction=0.5),
    "text": Repulsion(bandwidth="paper", fraction=1.0),
    "lit": Repulsion(update="lit", fraction=0.5),
    "weights": Repulsion("weight"),
    "functions": Repulsion("function", fraction=0.5),
    "features": Repulsion("feature", fraction=0.5),
    "svgd of weights": Repulsion("weight", update="svgd"),
    "svgd of functions": Repulsion("function", update="svgd", fraction=0.5),
    "own space": Repulsion(lambda ensemble, X, y: ensemble(X), fraction=0.5),
}


@pytest.mark.parametrize("n_rows", [12, 13, 17])
@pytest.mark.parametrize("name", REPULSIONS)
def test_rows_on_processes_give_the_gradients_of_one_process(ranks, name, n_rows):
    settings = {"repulsion": REPULSIONS[name], "strength": 3.0}
    _, expected, repulsion = step(settings, n_rows)
    for _, gradients, found in ranks(step, settings, n_rows, spread_rows):
        torch.testing.assert_close(found, repulsion, atol=1e-10, rtol=0)
        for one, other in zip(gradients, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


@pytest.mark.parametrize("given", [{"weighted": True}, {"extra": True}, {"shared": False}])
def test_weights_extra_rows_and_versions_lie_with_their_rows(ranks, given):
    call = partial(step, {"repulsion": REPULSIONS["input gradients"], "strength": 3.0}, 13, **given)
    _, expected, _ = call()
    for _, gradients, _ in ranks(partial(call, spread_rows)):
        for one, other in zip(gradients, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def mesh():
    made = distributed.device_mesh.init_device_mesh(
        "cpu", (2, 2), mesh_dim_names=("members", "rows")
    )
    return ProcessGroups(4, made.get_group("members"), made.get_group("rows"))


@pytest.mark.slow
def test_members_and_rows_are_spread_together_over_a_device_mesh():
    four = Ranks(4)
    try:
        for name in ("input gradients", "weights", "svgd of functions"):
            settings = {"repulsion": REPULSIONS[name], "strength": 3.0}
            _, expected, repulsion = step(settings, 13)
            for members, gradients, found in four(step, settings, 13, mesh):
                torch.testing.assert_close(found, repulsion[members], atol=1e-10, rtol=0)
                for one, other in zip(gradients, expected, strict=True):
                    torch.testing.assert_close(one, other[members], atol=1e-10, rtol=0)
    finally:
        four.close()


def losses(kind, settings, n_rows=700):
    model = kind(**{**SMALL, **settings}).fit(*table(kind, n_rows))
    return [e["valid_loss"] for e in model.history_], what_was_learnt(model)[0]


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_a_fit_whose_rows_are_spread_is_close_to_that_of_one_process(ranks, kind):
    settings = {"module__dropout": 0.0, "max_epochs": 3}
    expected, _ = losses(kind, settings)
    answers = ranks(losses, kind, {**settings, "distributed": "rows"})
    for found, weights in answers:
        np.testing.assert_allclose(found, expected, rtol=1e-3)
        np.testing.assert_equal(weights, answers[0][1])  # The same in all processes.


def relative_losses(kind, settings, n_rows):
    model = kind(**{**SMALL, **settings}).fit(*table(kind, n_rows))
    return [epoch["relative_loss"] for epoch in model.history_]


@pytest.mark.parametrize("name", ["folds", "folds of numbers", "weighed folds"])
def test_weights_of_rows_count_in_the_relative_loss_of_all_processes(ranks, name):
    """The strength of the repulsion follows it, and so the whole fit."""
    kind, settings, n_rows = FITS[name]
    settings = {**settings, "module__dropout": 0.0, "module__mixed_precision": False}
    expected = relative_losses(kind, settings, n_rows)
    for found in ranks(relative_losses, kind, {**settings, "distributed": "rows"}, n_rows):
        np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_processes_that_share_rows_draw_other_masks(ranks):
    found, _ = ranks(losses, FoRDEClassifier, {"module__dropout": 0.5, "distributed": "rows"})[0]
    assert found[-1] < np.log(3)
    masks = []
    for sequence in range(2):
        ensemble = stack_members(partial(MLP, 3, 2, dropout=0.5), 2).train()
        ensemble.mask_sequence = sequence
        masks.append(ensemble(torch.ones(8, 3)))
    assert not torch.equal(*masks)
    # Autograd's engine draws the same.
    ensemble.__class__ = particles.Ensemble
    for buffer in ensemble.buffers():
        buffer[:, 1] = 0  # Calls so far.
    torch.testing.assert_close(ensemble(torch.ones(8, 3)), masks[1])


# ---- checkpoints


class Fault(Exception):
    """What breaks a fit off."""


class BreakOff(Callback):
    """Raise in an epoch, once it is set to."""

    at = None  # Not an attribute of the instance: it is no parameter of the fit.

    def on_batch_begin(self, net, **kwargs):
        if len(net.history) == self.at:
            raise Fault


def broken_off(settings, folder, at):
    """Fit until an epoch, with a checkpoint after each, and return what files there are."""
    from sklearn_fordes.persistence import _checkpoint

    before = _checkpoint._SECONDS_BETWEEN, _checkpoint._LARGEST_SHARE
    _checkpoint._SECONDS_BETWEEN, _checkpoint._LARGEST_SHARE, BreakOff.at = 0.0, 1e9, at
    try:
        resumed(settings, folder)
    except Fault:
        return sorted(os.listdir(folder))
    finally:
        _checkpoint._SECONDS_BETWEEN, _checkpoint._LARGEST_SHARE = before
        BreakOff.at = None
    raise AssertionError("nothing broke the fit off")


def resumed(settings, folder=None):
    model = FoRDEClassifier(**{**SMALL, **settings}, callbacks=[BreakOff()], checkpoint_dir=folder)
    return what_was_learnt(model.fit(*table(FoRDEClassifier)))


STOPPING = {"max_epochs": 6, "n_iter_no_change": 2, "module__dropout": 0.2}


def test_any_number_of_processes_goes_on_from_a_checkpoint(ranks, tmp_path):
    together = {**STOPPING, "distributed": "members"}
    expected = resumed(STOPPING)
    folder = str(tmp_path)
    files = ranks(broken_off, together, folder, 3)[0]
    n = len(ranks(os.getpid))
    assert len(files) == n + 1  # A shard of each, and the file that names them.
    assert len(ranks(broken_off, together, folder, 4)[0]) == n + 1
    # One process goes on from the shards of several, ...
    assert broken_off(STOPPING, folder, 5) == [min(files, key=len)]
    # ... and several from its file.
    for found in ranks(resumed, together, folder):
        assert_same(found, expected)
    assert len(os.listdir(folder)) == n + 1
    # It is finished, and known to one process.
    BreakOff.at = 1
    try:
        assert_same(resumed(STOPPING, folder), expected)
    finally:
        BreakOff.at = None


def test_rows_on_processes_go_on_from_a_checkpoint(ranks, tmp_path):
    settings = {"max_epochs": 4, "distributed": "rows"}
    expected = ranks(resumed, settings)[0]
    assert len(ranks(broken_off, settings, str(tmp_path), 3)[0]) == 1
    for found in ranks(resumed, settings, str(tmp_path)):
        np.testing.assert_equal(found, expected)


def test_parts_that_no_file_names_are_removed_when_they_are_old(ranks, tmp_path):
    together = {**STOPPING, "distributed": "members"}
    files = ranks(broken_off, together, str(tmp_path), 3)[0]
    index = min(files, key=len)
    name, extension = os.path.splitext(index)
    left = [
        tmp_path / f"{name}.0123abcd.0{extension}",
        tmp_path / f".{name}.0123abcd.0{extension}.1.tmp",
        tmp_path / f"{name}.89abcdef.5{extension}",
    ]
    for path in left:
        path.touch()
    for path in left[:2]:
        os.utime(path, (0, 0))
    ranks(resumed, together, str(tmp_path))
    found = {path.name for path in tmp_path.iterdir()}
    assert left[2].name in found  # It may be that of a fit that is about to name it.
    assert len(found) == len(files) + 1
    assert not found & set(files) - {index}


def test_shards_in_another_order_are_refused(ranks, tmp_path):
    together = {**STOPPING, "distributed": "members"}
    files = ranks(broken_off, together, str(tmp_path), 3)[0]
    first, second = sorted(files, key=len)[1:3]
    (tmp_path / first).replace(tmp_path / "other")
    (tmp_path / second).replace(tmp_path / first)
    (tmp_path / "other").replace(tmp_path / second)
    with pytest.raises(ValueError, match="expected that shard"):
        resumed(STOPPING, tmp_path)


def test_a_shard_that_is_missing_or_damaged_is_named(ranks, tmp_path):
    together = {**STOPPING, "distributed": "members"}
    files = ranks(broken_off, together, str(tmp_path), 3)[0]
    index = min(files, key=len)
    shard = next(name for name in files if name != index)
    (tmp_path / shard).write_bytes(b"no file of weights")
    with pytest.raises(ValueError, match=shard):
        resumed(STOPPING, tmp_path)
    (tmp_path / shard).unlink()
    with pytest.raises(ValueError, match=f"FileNotFoundError.*{shard}"):
        resumed(STOPPING, tmp_path)


def full_disk(settings, folder):
    import errno

    from sklearn_fordes.persistence import _checkpoint

    write = _checkpoint.write

    def fail(path, *arguments):
        if distributed.get_rank() == 1:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        write(path, *arguments)

    _checkpoint.write = fail
    try:
        resumed(settings, folder)
    except (OSError, RuntimeError) as error:
        return str(error)
    finally:
        _checkpoint.write = write
    return "written"


def test_a_first_shard_that_can_t_be_written_is_an_error_in_all_processes(ranks, tmp_path):
    answers = ranks(full_disk, {**STOPPING, "distributed": "members"}, str(tmp_path))
    assert all("No space left on device" in answer for answer in answers), answers
    assert "checkpoint_dir" in answers[1]
    assert not [name for name in os.listdir(tmp_path) if name.count(".") == 1]


# ---- what does not go together


def error_of(settings, **named):
    model = FoRDEClassifier(**{**SMALL, **settings})
    rows = table(FoRDEClassifier, named.pop("n_rows", 200))
    try:
        named.pop("method", FoRDEClassifier.fit)(model, *rows, **named)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def other_rows(settings):
    return error_of(settings, n_rows=200 + distributed.get_rank())


def test_errors_are_the_same_in_all_processes(ranks):
    members, rows = {"distributed": "members"}, {"distributed": "rows"}
    n = len(ranks(os.getpid))
    cases = [
        ({**members, "n_members": 1}, f"Got {n} processes for 1 members"),
        ({**rows, "batch_size": 1}, "or batch_size"),
        ({**rows, "repulsion": Repulsion(fraction=0.01)}, "at which members are compared"),
        ({**members, "optimizer": torch.optim.LBFGS, "weight_decay": 0}, "LBFGS"),
        ({**members, "lr": 1e30, "max_epochs": 2}, "of all members"),
        (
            {**rows, "module": NormalisedMLP, "encoder": None},
            "batch normalisation",
        ),
    ]
    for settings, words in cases:
        for answer in ranks(error_of, settings):
            assert words in answer, (settings, answer)
    for answer in ranks(other_rows, members):
        assert "other rows" in answer
    for answer in ranks(other_order, members):
        assert "in another order" in answer
    for name, values in DIFFERING.items():
        for mode in (members, rows):
            answers = ranks(other_parameters, mode, name, values)
            assert all(f"Got another value of {name} in process" in a for a in answers), answers
    first, *others = ranks(wrong_in_the_last, members)
    assert "InvalidParameterError" in others[-1]
    assert f"LostProcessError: Got an error in process {n - 1}" in first
    assert "parameter of FoRDEClassifier must be" in first


DIFFERING = {
    "lr": (1e-3, 1e-2),
    "max_epochs": (2, 3),
    "batch_size": (32, 64),
    "hidden_layer_sizes": ((8,), (16,)),
}


def other_parameters(settings, name, values):
    return error_of({**settings, name: values[distributed.get_rank() > 0]})


def wrong_in_the_last(settings):
    is_last = distributed.get_rank() == distributed.get_world_size() - 1
    return error_of({**settings, "lr": -1 if is_last else 0.1})


def other_order(settings):
    X, y = table(FoRDEClassifier)
    order = np.random.default_rng(distributed.get_rank()).permutation(len(y))
    try:
        FoRDEClassifier(**{**SMALL, **settings, "early_stopping": False}).fit(X[order], y[order])
    except ValueError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (Checkpoint(), "expected checkpoint_dir"),
        (GradientNormClipping(1.0), "ClipMemberGradients"),
        (EpochScoring("accuracy", on_train=True, name="a"), "use_caching=False"),
    ],
)
def test_callbacks_that_would_see_a_part_are_refused(ranks, callback, words):
    for answer in ranks(error_of, {"distributed": "rows", "callbacks": [callback]}):
        assert words in answer


class NormalisedMLP(nn.Sequential):
    """A module whose rows depend on each other in training."""

    def __init__(self, n_features, n_outputs):
        super().__init__(
            nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_outputs)
        )


def test_outside_of_a_group_there_is_an_error_and_without_the_parameter_no_notice(ranks):
    with pytest.raises(ValueError, match="outside of a process group"):
        FoRDEClassifier(distributed="members").fit(*table(FoRDEClassifier))
    with pytest.raises(ValueError, match="partial_fit, but expected None"):
        FoRDEClassifier(distributed="members").partial_fit(
            *table(FoRDEClassifier), classes=["may", "no", "yes"]
        )
    expected = fitted(FoRDEClassifier, {})
    for found in ranks(fitted, FoRDEClassifier, {}):
        assert_same(found, expected)


def drawn_without_a_seed():
    np.random.seed(distributed.get_rank())
    return fitted(FoRDEClassifier, {"random_state": None, "distributed": "members"})[0]


def test_without_a_random_state_the_first_process_draws_one_for_all(ranks):
    first, *others = ranks(drawn_without_a_seed)
    for other in others:
        assert_same(other, first)


def stopped_by_one():
    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            if distributed.get_rank() == 1 and len(net.history) == 2:
                raise KeyboardInterrupt

    model = FoRDEClassifier(**SMALL, callbacks=[Stop()], distributed="members")
    return model.fit(*table(FoRDEClassifier)).n_iter_


def test_a_callback_that_stops_one_process_stops_all(ranks):
    assert set(ranks(stopped_by_one)) == {2}


def timed(seconds):
    model = FoRDEClassifier(
        **{**SMALL, "max_epochs": 10_000},
        early_stopping=False,
        max_time=seconds + distributed.get_rank(),
        distributed="members",
    )
    with pytest.warns(ConvergenceWarning, match="max_time"):
        model.fit(*table(FoRDEClassifier))
    return model.n_iter_


def test_time_that_is_over_in_one_process_is_over_in_all(ranks):
    assert len(set(ranks(timed, 1.0))) == 1


def warm(distributed):
    model = FoRDEClassifier(**SMALL, warm_start=True, distributed=distributed)
    rows = table(FoRDEClassifier)
    return what_was_learnt(model.fit(*rows).fit(*rows))


def test_a_warm_start_goes_on_from_all_members(ranks):
    expected = warm(None)
    for found in ranks(warm, "members"):
        assert_same(found, expected)


class SpoilOnce(Callback):
    """Make a weight of the second member infinite, in the second epoch, once."""

    def initialize(self):
        self.n_left_ = 1
        return self

    def on_batch_begin(self, net, **kwargs):
        holds_it = not net.communicator.members.start
        if len(net.history) == 2 and self.n_left_:
            self.n_left_ = 0
            if holds_it:
                with torch.no_grad():
                    next(net.module_.parameters())[1] = torch.inf


def goes_back(settings):
    with pytest.warns(ConvergenceWarning, match="of member 1 of 10"):
        return fitted(FoRDEClassifier, {**settings, "callbacks": [SpoilOnce()]})


def test_a_member_that_diverges_takes_all_processes_back(ranks):
    expected = goes_back({})
    for found in ranks(goes_back, {"distributed": "members"}):
        assert_same(found, expected)


def scored():
    callbacks = [("score", EpochScoring("neg_log_loss", lower_is_better=False, name="nll"))]
    together = {} if not distributed.is_initialized() else {"distributed": "members"}
    return fitted(FoRDEClassifier, {"callbacks": callbacks, **together})


def test_callbacks_score_all_members(ranks):
    expected = scored()
    assert "nll" in expected[1][0]
    for found in ranks(scored):
        assert_same(found, expected)


# ---- sources that are read in blocks


def blocks_of(kind, n_rows=1100, n_parts=6):
    """Return pairs of tables and targets, of other sizes."""
    X, y = table(kind, n_rows)
    ends = np.linspace(0, n_rows, n_parts + 1).astype(int) + np.r_[0, [7, -5] * 3][: n_parts + 1]
    ends[-1] = n_rows
    return [(X[a:b], y[a:b]) for a, b in pairwise(ends)]


STREAMED = {"iterator_train__buffer_rows": 300, "iterator_train__rows_per_epoch": 600}


def streamed(kind, settings, folder=None, at=None):
    BreakOff.at = at
    model = kind(**{**SMALL, **STREAMED, **settings}, callbacks=[BreakOff()], checkpoint_dir=folder)
    try:
        return what_was_learnt(model.fit(blocks_of(kind)))
    except Fault:
        return None
    finally:
        BreakOff.at = None


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_members_on_processes_learn_from_a_source_what_one_process_learns(ranks, kind):
    expected = streamed(kind, {})
    for found in ranks(streamed, kind, {"distributed": "members"}):
        assert_same(found, expected)


def rows_read(kind):
    """Return the rows that this process trains on in a pass, and what validates."""
    seen = []

    class Note(Callback):
        def on_batch_begin(self, net, batch, training=False, **kwargs):
            if training:
                seen.append(batch[0]["X"].numpy().copy())

    settings = {**SMALL, **STREAMED, "augmentation": None, "max_epochs": 2}
    model = kind(**settings, distributed="rows", callbacks=[Note()]).fit(blocks_of(kind))
    return np.concatenate(seen), len(seen), what_was_learnt(model)


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_processes_that_share_rows_read_other_rows_of_a_source(ranks, kind):
    answers = ranks(rows_read, kind)
    rows, n_steps, learnt = zip(*answers, strict=True)
    assert len(set(n_steps)) == 1
    for other in learnt[1:]:
        np.testing.assert_equal(other, learnt[0])
    each = [{row.tobytes() for row in part} for part in rows]
    assert not set.intersection(*each)
    n_valid = 1100 - len(set.union(*each))
    assert 60 < n_valid < 160  # A tenth of them.


def test_processes_that_share_the_rows_of_a_source_go_on_from_a_checkpoint(ranks, tmp_path):
    settings = {"distributed": "rows"}
    expected = ranks(streamed, FoRDEClassifier, settings)
    assert ranks(streamed, FoRDEClassifier, settings, str(tmp_path), 3)[0] is None
    found = ranks(streamed, FoRDEClassifier, settings, str(tmp_path))
    np.testing.assert_equal(found, expected)


def learnt_from_shares(mode, has_access):
    rank, n = distributed.get_rank(), distributed.get_world_size()
    pairs = blocks_of(FoRDEClassifier)
    own = pairs[rank::n]
    model = FoRDEClassifier(**SMALL, **STREAMED, distributed=mode)
    model.fit(Share(own) if has_access else Share(lambda: iter(own)))
    whole = FoRDEClassifier(**SMALL, **STREAMED, distributed=mode).fit(
        pairs if has_access else lambda: iter(pairs)
    )
    return what_was_learnt(model), what_was_learnt(whole)


@pytest.mark.parametrize("has_access", [True, False])
def test_a_share_is_all_that_a_process_has(ranks, has_access):
    for model, whole in ranks(learnt_from_shares, "rows", has_access):
        np.testing.assert_equal(model, whole)
    with pytest.raises(ValueError, match="expected the whole source in each"):
        ranks(learnt_from_shares, "members", has_access)
    with pytest.raises(ValueError, match="Got a Share of a ndarray, but expected one of"):
        FoRDEClassifier().fit(Share(np.ones((5, 2))), np.arange(5))
    X, y = table(FoRDEClassifier)
    alone = FoRDEClassifier(**SMALL).fit(Share([(X, y)]))
    np.testing.assert_equal(
        what_was_learnt(alone), what_was_learnt(FoRDEClassifier(**SMALL).fit([(X, y)]))
    )


def too_few_parts():
    model = FoRDEClassifier(**SMALL, distributed="rows")
    with pytest.raises(ValueError, match="a part for each"):
        model.fit(blocks_of(FoRDEClassifier)[:1])
    return True


def test_each_process_needs_a_part_of_a_source(ranks):
    assert all(ranks(too_few_parts))
