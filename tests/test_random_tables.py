"""Some of the random cases of `fuzz`, which runs more of them."""

import pytest

from fuzz import run_case

N_CASES = 200


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Each case judges the warnings of its own.
def test_random_tables_are_fitted_or_refused_by_name():
    outcomes, failed = [], {}
    for index in range(N_CASES):
        outcome, _, problems = run_case(0, index)
        outcomes.append(outcome)
        if problems:
            failed[index] = problems
    assert failed == {}
    assert outcomes.count("fitted") >= 0.4 * N_CASES
