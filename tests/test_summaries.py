"""Summaries of the benchmarks on results that are not complete yet."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.summaries import (
    against_peers,
    average_ranks,
    log_ratios,
    regret,
    relative_to,
    write_generated,
)


def scores(**methods):
    """Series of scores from dicts {(set, seed): score}."""
    parts = {method: pd.Series(cells) for method, cells in methods.items()}
    return pd.concat(parts, names=["method", "set", "seed"]).reorder_levels([1, 2, 0])


def test_ranks_are_over_the_seeds_that_all_have():
    """A method that lacks the hardest seed does not win by it."""
    full = {("s", seed): 0.3 + 0.2 * seed for seed in range(3)}
    partial = {cell: full[cell] + 0.01 for cell in list(full)[:2]}
    ranks = average_ranks(scores(base=full, other=partial))
    assert ranks.to_dict() == {"base": 1, "other": 2}
    assert average_ranks(scores(base=full, other=partial), larger_is_better=True)["other"] == 1


def test_methods_that_lack_a_set_are_left_out():
    full = {("s", 0): 0.5, ("t", 0): 0.4}
    result = scores(base=full, half={("s", 0): 0.1}, twice={k: 2 * v for k, v in full.items()})
    assert list(average_ranks(result).index) == ["base", "twice"]
    np.testing.assert_allclose(log_ratios(result, "base")["twice"], np.log(2))
    assert "half" not in log_ratios(result, "base")


def test_ratios_are_over_the_sets_and_seeds_of_the_base():
    base = {("s", 0): 0.5, ("s", 1): 0.5}
    other = {("s", 0): 0.25, ("s", 2): 9.0, ("t", 0): 9.0}
    summary = relative_to(scores(base=base, other=other), "base")
    assert summary.loc["other", ["ratio", "sets below 1", "worst set"]].tolist() == [0.5, 1, 0.5]


def test_a_regret_is_the_ratio_to_the_best_of_each_set():
    one = {("s", 0): 1.0, ("t", 0): 4.0}
    other = {("s", 0): 2.0, ("t", 0): 1.0}
    found = np.exp(regret(scores(one=one, other=other)))
    np.testing.assert_allclose(found[["one", "other"]], [2, 2**0.5])  # (1 · 4)^½, (2 · 1)^½


def test_peers_are_compared_without_ensembles_of_ours():
    ours = {("s", 0): 1.0, ("t", 0): 1.0, ("u", 0): 1.0}
    peer = {("s", 0): 2.0, ("t", 0): 4.0, ("u", 0): 0.5}
    best = dict.fromkeys(ours, 0.1)
    parts = {"FoRDE": ours, "CatBoost": peer, "deep ensemble": best, "deep ensemble, 30": best}
    nll = scores(**parts)
    # By the Brier score the order is the other one.
    table = against_peers(pd.DataFrame({"nll": nll, "brier": -nll}))
    assert sorted(table.index) == ["CatBoost", "FoRDE"]
    peer = table.loc["CatBoost"]
    assert peer["ratio"] == pytest.approx((1 / 2 * 1 / 4 * 2) ** (1 / 3), abs=1e-3)
    assert peer["sets below 1"] == pytest.approx(2 / 3, abs=1e-3)
    assert table["rank, NLL"].to_dict() == pytest.approx(
        {"FoRDE": 4 / 3, "CatBoost": 5 / 3}, abs=1e-3
    )
    ranks = {"FoRDE": 5 / 3, "CatBoost": 4 / 3}
    assert table["rank, Brier"].to_dict() == pytest.approx(ranks, abs=1e-3)
    error = np.std(np.log([2, 4, 0.5]), ddof=1) / 3**0.5
    assert peer["standard error"] == pytest.approx(error, abs=1e-3)
    assert table.loc["FoRDE", "regret"] == pytest.approx(2 ** (1 / 3), abs=1e-3)


def test_a_peer_that_lacks_a_seed_has_a_ratio_and_no_rank():
    ours = {("s", seed): 1.0 for seed in range(3)}
    nll = scores(FoRDE=ours, CatBoost=dict.fromkeys(ours, 2.0), slow={("s", 0): 0.5})
    table = against_peers(pd.DataFrame({"nll": nll, "brier": nll}))
    assert table.loc["slow", "ratio"] == 2
    assert table.loc["slow", ["rank, NLL", "rank, Brier", "regret"]].isna().all()
    assert table.loc["FoRDE", "rank, NLL"] == 1


def test_generated_text_stands_between_its_marks_alone(tmp_path):
    page = tmp_path / "page.md"
    mark = "<!-- generated: a -->"
    page.write_text(f"before\n{mark}\nold\n{mark}\nafter")
    write_generated(page, "a", r"new \1")
    assert page.read_text() == f"before\n{mark}\nnew \\1\n{mark}\nafter"
    with pytest.raises(ValueError, match=r"Got 0 marks .*, but expected two"):
        write_generated(page, "b", "new")
