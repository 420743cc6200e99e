"""Half of the code of a number tells its rank among the training rows."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import rankdata

from sklearn_fordes.preprocessing import TabularEncoder, encoder_from, encoder_state
from sklearn_fordes.preprocessing._ranks import rank_knots


def scores_of(values, **parameters):
    column = np.asarray(values, dtype=float)[:, None]
    return TabularEncoder(rank_share=1.0, **parameters).fit_transform(column)[:, 0]


def test_few_values_have_the_normal_scores_of_their_mean_ranks():
    values = np.array([3.0, 8, 8, 5, 5, 5, 13, 1])
    rank = (rankdata(values) - 0.5) / len(values)
    # The centre, which is the median, is one of the values and has a score of zero.
    center = (rankdata(values)[3] - 0.5) / len(values)
    np.testing.assert_allclose(scores_of(values), ndtri(rank) - ndtri(center), rtol=1e-6)


def test_scores_of_many_values_are_about_normal():
    values = np.random.default_rng(0).uniform(size=10_001)
    scores = scores_of(values)
    exact = ndtri((rankdata(values) - 0.5) / len(values)).clip(-3, 3)
    assert np.abs(scores - exact).max() < 0.1
    np.testing.assert_allclose([scores.min(), scores.max()], [-3, 3], atol=0.03)
    assert (np.diff(scores[np.argsort(values)]) >= 0).all()


def test_a_value_of_many_rows_has_about_the_score_of_its_mean_rank():
    values = np.random.default_rng(0).normal(size=2000)
    values[:200] = 1.0
    scores = scores_of(values)
    exact = ndtri((rankdata(values) - 0.5) / len(values)).clip(-3, 3)
    # Scores are less that of the centre, which has the rank 1 / 2 and is near zero.
    assert scores[0] == pytest.approx(exact[0], abs=0.2)
    assert (np.diff(scores[np.argsort(values)]) >= 0).all()


@pytest.mark.parametrize("n_rows", [18, 19, 200])
def test_the_code_of_negated_numbers_is_negated(n_rows):
    X = np.random.default_rng(0).normal(size=(n_rows, 3))
    codes = TabularEncoder().fit_transform(X)
    np.testing.assert_allclose(TabularEncoder().fit_transform(-X), -codes, atol=1e-5)


def test_missing_cells_do_not_move_ranks():
    values = np.random.default_rng(0).normal(size=101)
    with_gaps = np.append(values, np.full(57, np.nan))
    np.testing.assert_array_equal(scores_of(with_gaps)[:101], scores_of(values))


def test_a_code_is_the_mean_of_the_bounded_number_and_of_the_score_by_default():
    X = np.random.default_rng(0).gamma(2, size=(100, 3))
    X[:5, 1] = np.nan
    bounded, scores, codes = (
        TabularEncoder(rank_share=share).fit_transform(X) for share in (0, 1, 0.5)
    )
    np.testing.assert_allclose(codes, (bounded + scores) / 2, atol=1e-6)
    np.testing.assert_array_equal(codes, TabularEncoder().fit_transform(X))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_centre_and_missing_numbers_are_zero_exactly(share):
    X = np.random.default_rng(0).normal(size=(64, 1))
    X[::4] = np.nan
    encoder = TabularEncoder(rank_share=share).fit(X)
    rows = np.array([[encoder.center_[0]], [np.nan]])
    np.testing.assert_array_equal(encoder.transform(rows)[:, 0], 0.0)


def test_numbers_with_two_values_and_constants_have_no_score():
    X = np.array([[0.0, 5.0], [1.0, 5.0], [1.0, 5.0], [1.0, np.nan]])
    encoder = TabularEncoder(min_frequency=1)
    np.testing.assert_array_equal(
        encoder.fit_transform(X), encoder.set_params(rank_share=0).fit_transform(X)
    )


def test_numbers_with_a_common_value_or_long_tails_have_no_score():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    X[:80, 0] = 0.0
    X[:, 1] = np.exp(3 * X[:, 1])
    encoder = TabularEncoder().fit(X)
    codes = TabularEncoder(rank_share=0).fit_transform(X)
    np.testing.assert_array_equal(encoder.transform(X), codes)
    assert not encoder.rank_scores_.any()


def test_scores_are_constant_beyond_the_training_range():
    encoder = TabularEncoder(rank_share=1.0).fit(np.arange(9.0)[:, None])
    low, first, last, high = encoder.transform(np.array([[-1e300], [0.0], [8.0], [1e300]]))[:, 0]
    assert low == first == pytest.approx(ndtri(0.5 / 9), rel=1e-6)
    assert high == last == pytest.approx(ndtri(8.5 / 9), rel=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 5e-324, 1e-323, 1.0],
        [-1.7e308, 0.0, 1e-300, 1.7e308],
        [1.0, 1.0 + 2e-16, 1.0 + 4e-16, 2.0],
        [1e-320, 2e-320, 3e-320, 4e-320],
    ],
)
def test_numbers_of_any_size_and_distance_have_finite_scores_that_grow(values):
    scores = scores_of(values)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) >= 0).all()


def test_a_change_of_scale_and_place_leaves_scores_as_they_are():
    values = np.random.default_rng(0).exponential(size=200)
    np.testing.assert_allclose(scores_of(values), scores_of(7 * values - 1000), atol=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.1, np.nan, "half", None])
def test_wrong_shares(share):
    with pytest.raises(ValueError, match=r"Got rank_share=.* but expected a number in \[0, 1\]"):
        TabularEncoder(rank_share=share).fit([[0.0], [1.0]])


def test_scores_never_fall_by_rounding():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(2 * int(rng.integers(9, 40)), 3))
        numbers, scores = rank_knots(z - np.median(z, axis=0))
        assert (np.diff(numbers) > 0).all()
        assert (np.diff(scores) >= 0).all()
        assert (scores[numbers == 0] == 0).all()


def test_encoders_whose_scores_fall_by_rounding_are_read():
    encoder = TabularEncoder().fit(np.random.default_rng(0).normal(size=(50, 2)))
    state = encoder_state(encoder)
    state["rank_scores_"] = state["rank_scores_"].copy()
    state["rank_scores_"][1, 8] = np.nextafter(state["rank_scores_"][1, 7], -np.inf)
    np.testing.assert_array_equal(encoder_from(state).rank_scores_, state["rank_scores_"])
    state["rank_scores_"][1, 8] -= 0.1
    with pytest.raises(ValueError, match=r"whose \['rank_scores_'\] do not fit the others"):
        encoder_from(state)
