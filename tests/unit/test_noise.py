"""Bounds know the size of the day: true of one entity, unchanged for many."""

import numpy as np
import pytest

from feature_store.embeddings.noise import lowered, mean_error, rank_bound, share_error
from feature_store.embeddings.stability import pooled_effective_rank


def test_a_mean_of_many_has_the_error_of_the_textbook() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.1, 20_000)
    squares = float(((values - values.mean()) ** 2).sum())
    found = mean_error(len(values), squares, 1.0)
    assert found == pytest.approx(values.std() / np.sqrt(len(values)), rel=0.01)
    assert share_error(10_000, 0.5) == pytest.approx(0.005, rel=0.001)


def test_a_number_of_one_entity_breaks_no_bound() -> None:
    assert lowered(0.2, mean_error(1, 0.0, 1.0)) < -1
    assert lowered(0.5, share_error(1, 0.5)) < 0
    assert lowered(0.5, None) is None


@pytest.mark.parametrize("count", [1, 2, 3, 10, 64, 500])
def test_few_vectors_are_not_a_collapse_and_equal_ones_are(count: int) -> None:
    bound, dim = 1.2, 64
    vectors = np.random.default_rng(count).standard_normal((count, dim)) + 5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    least = rank_bound(bound, count, dim)
    assert pooled_effective_rank([vectors.astype(np.float32)]) >= least
    collapsed = pooled_effective_rank([np.repeat(vectors[:1], count, axis=0).astype(np.float32)])
    assert (collapsed >= least) == (count == 1)
    assert least == pytest.approx(bound) if count >= dim else least < bound
