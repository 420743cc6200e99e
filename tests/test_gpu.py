"""Training and prediction on a CUDA device; deselected where there is none."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from sklearn_fordes import FoRDERegressor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def device_of(model):
    return next(model.net_.module_.parameters()).device.type


def test_auto_takes_the_gpu(small, binary):
    assert device_of(small(device="auto").fit(*binary)) == "cuda"


@pytest.mark.parametrize("repulsion", ["input_gradient", "none"])
def test_gpu_and_cpu_fits_agree(small, binary, repulsion):
    # Rounding differs between devices and grows with each step: six epochs stay within 1e-3.
    X, y = binary
    on_cpu, on_gpu = (
        small(device=device, repulsion=repulsion, lengthscale="pca").fit(X, y)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(on_cpu.predict_proba(X), on_gpu.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize(
    "system",
    [
        {"repulsion": "weight"},
        {"repulsion": "weight", "update": "svgd"},
        {"repulsion": "function", "update": "svgd"},
        {"repulsion": "feature"},
        {"update": "lit"},
        {"lengthscale": 0.5},
        {"lengthscale": np.linspace(1, 2, 6)},
    ],
    ids=str,
)
def test_every_system_agrees(small, binary, system):
    X, y = binary
    models = [small(device=device, **system).fit(X, y) for device in ("cpu", "cuda")]
    probabilities, gradients = zip(
        *((model.predict_proba(X), model.input_gradients(X)) for model in models), strict=True
    )
    np.testing.assert_allclose(*probabilities, atol=2e-3)
    np.testing.assert_allclose(*gradients, atol=5e-2)


@pytest.mark.parametrize("noise", ["heteroscedastic", "homoscedastic"])
def test_regressors_agree_and_take_points(binary, noise):
    X, y = binary
    models = [
        FoRDERegressor(3, max_epochs=5, noise=noise, device=device, random_state=0).fit(X, y)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(*(model.predict(X) for model in models), atol=2e-3)
    away = models[1].fit(X, y, X_repulsion=X + 5)
    assert np.isfinite(away.predict(X, return_std=True)).all()
    assert device_of(away.estimators_[0]) == "cuda"


def test_generators_of_the_gpu_are_left_as_they_were(small, binary):
    before = torch.cuda.get_rng_state()
    small(device="cuda", module__dropout=0.3).fit(*binary)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_fitted_on_gpu_predicts_without_one(small, binary, tmp_path):
    X, y = binary
    model = small(device="auto", lengthscale="pca").fit(X, y)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "X.npy", X)
    code = (
        "import pickle, torch, numpy as np; assert not torch.cuda.is_available();"
        "model = pickle.load(open('model.pkl', 'rb'));"
        "np.save('p.npy', model.predict_proba(np.load('X.npy')))"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
    )
    assert run.stderr == b""
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), model.predict_proba(X), atol=1e-4)
    assert device_of(model) == "cuda"
    assert device_of(pickle.loads(pickle.dumps(model))) == "cuda"
    assert model.partial_fit(X, y).n_iter_ > 6
