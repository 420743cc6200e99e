"""`sklearn_fordes.distributed.fit`, mostly with an estimator that fits in an instant, or fails."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, clone
from skorch.callbacks import Callback

import sklearn_fordes
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.distributed import _pickling as pickling
from sklearn_fordes.distributed import fit
from sklearn_fordes.distributed._launch import _adopt, _advice
from sklearn_fordes.distributed._outcomes import Died, Failed, RemoteError, how_ended, raise_cause
from sklearn_fordes.distributed._parcel import Parcel
from sklearn_fordes.distributed._processes import _environment

SECONDS = 10  # In which an error of a worker reaches the caller.
X = np.random.default_rng(0).normal(size=(1000, 7))
# What the stand-in is, for scripts and notebooks too.
SOURCE = '''
import os, signal, sys, time, warnings
from sklearn.base import BaseEstimator

class StandIn(BaseEstimator):
    """Sums ranks; one of them raises, dies or sleeps between two exchanges if it is asked to."""

    def __init__(self, distributed=None, do="", call=None, verbose=0, notes=None):
        self.distributed, self.do, self.call = distributed, do, call
        self.verbose, self.notes = verbose, notes

    def fit(self, X, y=None, scale=1.0):
        import torch
        from torch import distributed

        rank = distributed.get_rank()
        if self.verbose:
            print(f"rank {rank} fits", file=sys.stderr)
        warnings.warn(f"rank {rank} warns", RuntimeWarning)
        total = torch.tensor([scale * (rank + 1)], dtype=torch.float64)
        distributed.all_reduce(total)
        if self.do.endswith(f" {rank}"):
            self.fail(self.do.split()[0])
        distributed.all_reduce(total)
        self.total_, self.mode_, self.pid_ = total.item(), self.distributed, os.getpid()
        self.n_threads_ = torch.get_num_threads()
        self.called_ = self.call and self.call(X)
        return self

    def fail(self, how):
        if self.notes:
            with open(self.notes, "w") as file:
                print(time.time(), file=file)
        if how == "raise":
            raise KeyError("the cause")
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
'''
# A class that no worker can import is pickled by value, wherever the worker is.
_namespace = {"__name__": "of_no_file"}
exec(SOURCE, _namespace)
StandIn = _namespace["StandIn"]


def fitted(estimator, backend="processes", n_workers=2, **params):
    with pytest.warns(RuntimeWarning, match="rank 0 warns") as caught:
        found = fit(estimator, X, X[:, 0], n_workers=n_workers, backend=backend, **params)
    assert [str(one.message) for one in caught] == ["rank 0 warns"]
    assert caught[0].filename == __file__.replace(".pyc", ".py")
    return found


def check_fit(backend, **params):
    def call(table):
        return table.mean(), table.ctypes.data % 16

    estimator = StandIn(call=call)
    estimator.of_the_user = mark = object.__new__(type("Mark", (), {}))
    found = fitted(estimator, backend, scale=2.0, **params)
    assert found is estimator
    assert estimator.total_ == 12.0
    assert estimator.mode_ == "members"
    assert estimator.distributed is None
    assert estimator.call is call
    assert estimator.of_the_user is mark
    assert estimator.pid_ != os.getpid()
    # The same memory layout, so the same bits.
    assert estimator.called_ == (X.mean(), 0)


def check_error(backend, do, error, match, tmp_path):
    estimator = StandIn(do=do, notes=str(tmp_path / "notes"))
    estimator.total_ = before = object.__new__(type("Mark", (), {}))
    then = dict(vars(estimator))
    with pytest.raises(error, match=match) as caught:
        fit(estimator, X, backend=backend)
    assert time.time() - float((tmp_path / "notes").read_text()) < SECONDS
    assert vars(estimator) == then
    assert estimator.total_ is before
    return caught.value


def check_raises(backend, tmp_path):
    error = check_error(backend, "raise 1", KeyError, "the cause", tmp_path)
    assert isinstance(error.__cause__, RemoteError)
    assert re.search(r"rank 1 of 2:\nTraceback.*KeyError: 'the cause'", str(error.__cause__), re.S)


def check_dies(backend, rank, tmp_path):
    check_error(backend, f"kill {rank}", RuntimeError, f"rank {rank} of 2 died", tmp_path)


@pytest.fixture
def own_tmp(tmp_path, monkeypatch):
    """Where this process and those that it starts put temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def children():
    """Return the processes that this one has started and not yet ended."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


class TestProcesses:
    @pytest.fixture(autouse=True)
    def _nothing_left(self, own_tmp):
        before = children() if sys.platform == "linux" else []
        yield
        assert list(own_tmp.iterdir()) == []
        if sys.platform == "linux":
            assert set(children()) <= set(before)

    def test_the_estimator_itself_is_fitted(self):
        check_fit("processes")

    def test_rank_0_speaks(self, capsys, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)  # Dask sets it.
        estimator = fitted(StandIn(verbose=1), n_workers=3, mode="rows")
        assert capsys.readouterr().err == "rank 0 fits\n"
        assert estimator.mode_ == "rows"
        assert estimator.total_ == 18.0
        assert estimator.n_threads_ == min(2, os.cpu_count())

    def test_an_error_keeps_its_type(self, tmp_path):
        check_raises("processes", tmp_path)

    def test_a_death_is_an_error(self, tmp_path):
        check_dies("processes", 0, tmp_path)

    def test_what_can_not_be_pickled(self):
        with pytest.raises(TypeError, match="generator"):
            fit(StandIn(), (row for row in X), n_workers=1)


SCRIPT = (
    SOURCE
    + """
from sklearn_fordes.distributed import fit

class Source:  # No worker can import it.
    rows = [1, 2]

warnings.simplefilter("ignore")
model = StandIn(call=lambda source: sum(source.rows), do=DO)
fit(model, Source())
print(type(model) is StandIn, model.total_, model.called_, flush=True)
"""
)


def started(*arguments, **params):
    env = {**os.environ, "PYTHONPATH": str(Path(sklearn_fordes.__file__).parents[1])}
    return subprocess.Popen([sys.executable, *arguments], env=env, text=True, **params)


class TestScripts:
    """None of them has `if __name__ == "__main__"`."""

    def test_standard_input(self):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        script = started("-", **pipes)
        assert script.communicate(SCRIPT.replace("DO", "''")) == ("True 6.0 3\n", "")

    def test_notebook(self):
        nbformat = pytest.importorskip("nbformat")
        nbclient = pytest.importorskip("nbclient")
        pytest.importorskip("ipykernel")
        notebook = nbformat.v4.new_notebook()
        cell = SCRIPT.replace("do=DO", "verbose=1")
        notebook.cells = [nbformat.v4.new_code_cell(cell)]
        nbclient.NotebookClient(notebook, kernel_name="python3").execute()
        written = {one.name: one.text for one in notebook.cells[0].outputs}
        assert written == {"stderr": "rank 0 fits\n", "stdout": "True 6.0 3\n"}

    @pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
    @pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])  # Windows has no SIGKILL.
    def test_workers_end_with_the_script(self, own_tmp, tmp_path, name):
        path = tmp_path / "script.py"
        path.write_text(SCRIPT.replace("DO", "'sleep 1'"))
        script = started(str(path), stderr=subprocess.PIPE)
        workers = self.workers_of(script)
        script.send_signal(getattr(signal, name))
        began = time.monotonic()
        _, error = script.communicate()
        if name == "SIGINT":
            assert error.rstrip().endswith("KeyboardInterrupt")
        while any(Path(f"/proc/{pid}").exists() for pid in workers) or [*own_tmp.iterdir()]:
            assert time.monotonic() - began < 30  # One may be busy with an import.
            time.sleep(0.1)

    @staticmethod
    def workers_of(script):
        """Wait until the workers of a script have met."""
        path = Path(f"/proc/{script.pid}/task/{script.pid}/children")
        while len(found := path.read_text().split()) < 2:
            time.sleep(0.1)
        while any("libtorch" not in Path(f"/proc/{pid}/maps").read_text() for pid in found):
            time.sleep(0.1)
        return found


class TestArguments:
    @pytest.mark.parametrize("n_workers", [0, -1, 1.5, True, "2"])
    def test_n_workers(self, n_workers):
        with pytest.raises(ValueError, match=r"Got n_workers=.* at least 1"):
            fit(StandIn(), X, n_workers=n_workers)

    @pytest.mark.parametrize("backend", ["dask", "threads", None, 3, X])
    def test_backend(self, backend):
        with pytest.raises(ValueError, match="but expected 'processes', 'ray' or a Client of"):
            fit(StandIn(), X, backend=backend)

    @pytest.mark.parametrize("timeout", [0, -1, np.inf, np.nan])
    def test_timeout(self, timeout):
        with pytest.raises(ValueError, match="Got timeout="):
            fit(StandIn(), X, timeout=timeout)

    def test_mode(self):
        with pytest.raises(ValueError, match="Got mode='columns', but expected 'members', 'rows'"):
            fit(StandIn(), X, mode="columns")

    @pytest.mark.parametrize(
        ("model", "given", "error", "match"),
        [
            ({}, {"n_jobs": 2}, TypeError, r"argument of fit 'n_jobs', .* mean n_workers\?"),
            (
                {},
                {"eval_set": 2},
                TypeError,
                r"argument of fit 'eval_set', .* Did you mean X_val\?",
            ),
            ({}, {"n_workers": 3}, ValueError, "Got n_workers=3 and n_members=2, but expected"),
            ({"lr": -1}, {}, ValueError, "'lr' parameter"),
        ],
    )
    def test_those_of_the_fit_are_checked_before_processes_start(
        self, monkeypatch, model, given, error, match
    ):
        monkeypatch.setattr("sklearn_fordes.distributed._launch._started", None)
        with pytest.raises(error, match=match):
            fit(FoRDEClassifier(2, **model), X, np.arange(len(X)) % 2, **given)

    def test_the_fit_of_a_subclass_may_take_any_name(self, monkeypatch):
        class Sub(FoRDEClassifier):
            def fit(self, X, y=None, **notes):
                return super().fit(X, y)

        started = []
        monkeypatch.setattr(
            "sklearn_fordes.distributed._launch._started",
            lambda backend, content, *others: started.append(content[3]) or 1 / 0,
        )
        with pytest.raises(ZeroDivisionError):
            fit(Sub(1), X, np.arange(len(X)) % 2, note=3)
        assert started == [{"note": 3}]

    @pytest.mark.parametrize("estimator", [BaseEstimator(), None, StandIn])
    def test_estimator(self, estimator):
        with pytest.raises(TypeError, match="expected one with the parameter distributed"):
            fit(estimator, X)


@pytest.mark.parametrize(
    "table",
    [
        X,
        np.empty((0, 3)),
        pd.DataFrame({"a": [1.0, np.nan], "b": ["x", None]}),
        csr_array(np.eye(3)),
        [[1], [2]],
    ],
    ids=["array", "empty", "frame", "sparse", "list"],
)
def test_tables_arrive_as_they_are(table, tmp_path):
    parcel = Parcel.of((table, table))
    for sent in (pickle.loads(pickle.dumps(parcel)), parcel.write(tmp_path / "arrays")):
        got, again = sent.open()
        assert again is got
        assert type(got) is type(table)
        as_array = [one.toarray() if isinstance(one, csr_array) else one for one in (got, table)]
        pd.testing.assert_frame_equal(*map(pd.DataFrame, as_array))


def test_arrays_are_in_the_file_and_not_in_the_pickle(tmp_path):
    sent = Parcel.of((X, pd.DataFrame(X))).write(tmp_path / "arrays")
    assert len(sent.pickled) < 2000
    got, frame = sent.open()
    got[:] = 0.0  # It is this process's own now.
    assert np.array_equal(sent.open()[0], X)
    assert np.array_equal(frame, X)


def test_the_cause_is_raised():
    lost = Failed(0, "RuntimeError: Connection closed by peer", is_consequence=True)
    dead = Died(2, how_ended(-signal.SIGABRT))
    own = Failed(1, "ValueError: x", pickled=pickle.dumps(ValueError("x")))
    with pytest.raises(ValueError, match="x"):
        raise_cause([lost, dead, own], 3, "")
    with pytest.raises(RuntimeError, match=r"rank 2 of 3 died \(signal 6, SIGABRT\)\. Again\."):
        raise_cause([lost, dead], 3, "Again.")
    with pytest.raises(RuntimeError, match="rank 0 of 3 raised RuntimeError: Connection"):
        raise_cause([lost], 3, "")


def test_an_exit_ends_the_worker_alone():
    from sklearn_fordes.distributed._worker import failure

    with pytest.raises(RuntimeError, match="rank 0 of 2 raised SystemExit: 3"):
        raise_cause([failure(0, SystemExit(3))], 2, "")


@pytest.mark.filterwarnings("error")
def test_a_warning_may_be_an_error():
    learnt = StandIn()
    learnt.total_ = 1
    handed_back = pickling.dumps((learnt, set(), [("rank 0 warns", RuntimeWarning)]))
    with pytest.raises(RuntimeWarning, match="rank 0 warns"):
        _adopt(estimator := StandIn(), handed_back)
    assert not hasattr(estimator, "total_")


def test_an_error_that_can_not_be_pickled_is_told():
    from sklearn_fordes.distributed._worker import failure

    class NeedsTwoError(Exception):
        def __init__(self, one, two):
            super().__init__(one)

    failed = failure(1, NeedsTwoError("a", "b"))
    assert failed.pickled is None
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 raised .*NeedsTwoError: a"):
        raise_cause([failed], 2, "")


def test_a_lost_exchange_is_seen_behind_other_errors():
    from sklearn_fordes.distributed._worker import failure

    error = ValueError("Training failed.")
    assert not failure(0, error).is_consequence
    error.__cause__ = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    assert failure(0, error).is_consequence
    assert not failure(0, ConnectionResetError("Connection reset by peer")).is_consequence


def test_no_worker_waits_for_a_folder_that_is_gone(tmp_path):
    """Torch would, with no other thread of Python running, so none could see that its parent is."""
    code = (
        "import sys; from pathlib import Path; from sklearn_fordes.distributed import _processes;"
        "_processes._SECONDS_TO_OPEN = 0.5; _processes._store(Path(sys.argv[1]), 2)"
    )
    worker = started("-c", code, str(tmp_path / "gone"), stderr=subprocess.PIPE)
    assert "Timeout" in worker.communicate(timeout=60)[1]
    assert worker.returncode == 1


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert _environment(3)["OMP_NUM_THREADS"] == "2"
    assert _environment(20)["OMP_NUM_THREADS"] == "1"
    # What the caller has limited stays limited.
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    assert _environment(2)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert _environment(2)["OMP_NUM_THREADS"] == "5"


def test_the_import_is_light():
    code = (
        "import sys, sklearn_fordes, sklearn_fordes.distributed as d; d.fit;"
        "print([n for n in ('torch', 'ray', 'dask', 'distributed') if n in sys.modules])"
    )
    assert started("-c", code, stdout=subprocess.PIPE).communicate()[0] == "[]\n"


@pytest.fixture
def one_thread(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
class TestClassifier:
    def test_it_is_the_one_of_one_process(self, multiclass):
        table, y = multiclass
        model = FoRDEClassifier(5, hidden_layer_sizes=(32,), max_epochs=4, random_state=0)
        alone = clone(model).fit(table, y)
        repulsion = model.repulsion
        assert fit(model, table, y) is model
        assert model.distributed is None
        assert model.repulsion is repulsion
        assert np.array_equal(model.predict_proba(table), alone.predict_proba(table))
        # It goes on as one that was fitted here.
        one, other = (m.partial_fit(table, y).predict_proba(table) for m in (model, alone))
        assert np.array_equal(one, other)

    def test_another_number_of_workers_goes_on_when_one_was_killed(
        self, multiclass, tmp_path, monkeypatch
    ):
        table, y = multiclass
        settings = {"hidden_layer_sizes": (32,), "max_epochs": 5, "random_state": 0}
        model = FoRDEClassifier(5, **settings, callbacks=[Die()])
        expected = clone(model).fit(table, y).predict_proba(table)
        folder, died = tmp_path / "states", tmp_path / "died"
        model.set_params(checkpoint_dir=folder)
        monkeypatch.setenv("DIES_IN", str(died))
        with pytest.raises(RuntimeError, match=r"rank 1 of 2 died \(signal 9.*checkpoint_dir='"):
            fit(model, table, y, n_workers=2)
        assert time.time() - died.stat().st_mtime < SECONDS
        assert not hasattr(model, "classes_")
        assert len([*folder.iterdir()]) == 3  # Two shards, and the file that names them.
        monkeypatch.delenv("DIES_IN")
        for n_workers in (3, 1):  # The last one finds a fit that is finished.
            found = fit(clone(model), table, y, n_workers=n_workers)
            assert np.array_equal(found.predict_proba(table), expected)


class Die(Callback):
    """Write a checkpoint after each epoch, and kill the second worker in the third one."""

    def on_epoch_begin(self, net, **kwargs):
        from sklearn_fordes.persistence import _checkpoint

        path = os.environ.get("DIES_IN")
        if path and torch.distributed.is_initialized():
            _checkpoint._SECONDS_BETWEEN, _checkpoint._LARGEST_SHARE = 0.0, 1e9
            if len(net.history) == 3 and torch.distributed.get_rank() == 1:
                Path(path).touch()
                os.kill(os.getpid(), signal.SIGKILL)


def test_a_death_leads_to_the_checkpoint():
    estimator = StandIn()
    assert "as it was before" in _advice(estimator)
    assert "With checkpoint_dir the same call goes on" in _advice(FoRDEClassifier())
    assert "checkpoint_dir='there'" in _advice(FoRDEClassifier(checkpoint_dir="there"))


def check_classifier(backend, table, y):
    model = FoRDEClassifier(4, hidden_layer_sizes=(32,), max_epochs=3, random_state=0)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = clone(model).fit(table, y)
    torch.set_num_threads(n_threads)
    found = fit(model, table, y, backend=backend)
    assert np.array_equal(found.predict_proba(table), alone.predict_proba(table))


@pytest.fixture(scope="module")
def ray_cluster():
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("PYTHONPATH", str(Path(sklearn_fordes.__file__).parents[1]))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.mark.usefixtures("ray_cluster")
class TestRay:
    def test_the_estimator_itself_is_fitted(self):
        check_fit("ray")

    def test_a_classifier_is_the_one_of_one_process(self, binary):
        check_classifier("ray", *binary)

    def test_an_error_keeps_its_type(self, tmp_path):
        check_raises("ray", tmp_path)

    def test_a_death_is_an_error(self, tmp_path):
        check_dies("ray", 1, tmp_path)

    def test_too_few_cpus(self):
        with pytest.raises(ValueError, match="n_workers=3, but expected at most 2, the number of"):
            fit(StandIn(), X, n_workers=3, backend="ray")


class TestDask:
    def test_the_estimator_itself_is_fitted(self, client):
        check_fit(client)

    def test_processes_are_left_as_they_were(self, client, capsys):
        def threads():
            import torch

            return torch.distributed.is_initialized(), torch.get_num_threads()

        before = client.run(threads)
        fitted(StandIn(verbose=1), client)
        assert client.run(threads) == before
        assert {is_in_group for is_in_group, _ in before.values()} == {False}
        assert "rank 0 fits\n" in capsys.readouterr().err

    def test_a_classifier_is_the_one_of_one_process(self, client, binary):
        check_classifier(client, *binary)

    def test_an_error_keeps_its_type(self, client, tmp_path):
        check_raises(client, tmp_path)
        fitted(StandIn(), client)

    def test_a_death_is_an_error(self, client, tmp_path):
        check_dies(client, 1, tmp_path)
        client.wait_for_workers(2, timeout=30)
        fitted(StandIn(), client)

    def test_too_few_workers(self, client):
        with pytest.raises(ValueError, match="n_workers=9, but expected at most 2, the number of"):
            fit(StandIn(), X, n_workers=9, backend=client)

    def test_one_process_has_one_rank(self):
        distributed = pytest.importorskip("distributed")
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=False, dashboard_address=":0"
        )
        with (
            cluster,
            distributed.Client(cluster) as client,
            pytest.raises(ValueError, match="at most 1, the number of processes of the 2 workers"),
        ):
            fit(StandIn(), X, backend=client)

    def test_devices_and_threads(self):
        pytest.importorskip("distributed")
        from sklearn_fordes.distributed._dask import Home, gpus_of, threads_of

        def homes(*devices, n_gpus=2):
            return [Home(f"{i}", f"{i}", "m", one, n_gpus, 8) for i, one in enumerate(devices)]

        assert gpus_of(homes("", "")) == [0, 1]
        assert gpus_of(homes("0,1", "1,0")) == [0, 0]
        assert gpus_of(homes("", "", "")) == [None] * 3
        assert threads_of(homes("", "", "")) == [2] * 3
