import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_exp.statistics import bootstrap_interval, holm, paired_p_value


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(3).lognormal(size=40)
    reference = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", random_state=5
    ).confidence_interval
    assert bootstrap_interval(values) == pytest.approx((reference.low, reference.high), rel=0.02)


def test_bootstrap_of_two_values_is_their_span():
    assert bootstrap_interval([1.0, 3.0]) == (1.0, 3.0)


@pytest.mark.parametrize("values", [[], [2.0], [2.0, 2.0, 2.0]])
def test_bootstrap_has_nothing_to_say_without_spread(values):
    assert all(map(math.isnan, bootstrap_interval(values)))


def test_bootstrap_repeats_itself():
    values = np.arange(7.0)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def _signed_rank_p_by_enumeration(differences):
    """Two-sided p-value over all assignments of signs to the ranks of the sizes."""
    ranks = scipy.stats.rankdata(np.abs(differences))
    total = ranks.sum()
    observed = abs(ranks[np.asarray(differences) > 0].sum() - total / 2)
    signs = itertools.product([0, 1], repeat=len(ranks))
    hits = [abs(np.dot(sign, ranks) - total / 2) >= observed - 1e-9 for sign in signs]
    return np.mean(hits)


@pytest.mark.parametrize(
    "differences", [[1.0], [1, 2], [1, -2, 3], [5, 1, -2, 4, 3, 6], [1, 1, 1, -1, 1, 1, 2]]
)
def test_paired_test_agrees_with_enumeration(differences):
    values = np.asarray(differences, dtype=float)
    expected = _signed_rank_p_by_enumeration(differences)
    assert paired_p_value(values + 10, np.full(len(values), 10)) == pytest.approx(expected)


def test_pairs_without_difference_are_dropped():
    few = paired_p_value([1, 2, 3, 4, 5, 6], [0] * 6)
    assert paired_p_value([1, 2, 3, 4, 5, 6, 7, 7], [0] * 6 + [7, 7]) == few
    assert paired_p_value([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert math.isnan(paired_p_value([], []))


def test_holm_by_hand():
    # Sorted: 0.01·4, 0.02·3, 0.03·2, 0.5·1; each at least the one before.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_step_down_procedure(p_values):
    adjusted = holm(p_values)
    for alpha in (0.01, 0.05, 0.2):
        rejected = np.zeros(len(p_values), dtype=bool)
        for rank, index in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[index] * (len(p_values) - rank) > alpha:
                break
            rejected[index] = True
        assert ((adjusted <= alpha) == rejected).all()


def test_holm_leaves_out_what_was_not_tested():
    adjusted = holm([math.nan, 0.04, 0.01])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.02])
