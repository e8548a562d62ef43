from __future__ import annotations

import numpy as np
import pytest

from shared.batching import batches, filled

MOST = 512


@pytest.mark.parametrize(
    "lengths",
    [
        [],
        [0],
        [0, 0, 0],
        [3, 1, 2],
        [MOST * 2, 1],
        [100] * 500,
        np.random.default_rng(0).integers(2, 257, 300).tolist(),
    ],
)
def test_batches_hold_every_row_once_and_bound_their_size(lengths: list[int]) -> None:
    found = list(batches(lengths, MOST))
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= MOST


def test_rows_of_one_length_share_batches() -> None:
    assert [len(batch) for batch in batches([100] * 12, MOST)] == [5, 5, 2]
    assert list(batches([900, 2], MOST)) == [[1], [0]]


def test_filled_up_to_the_longest() -> None:
    assert filled([[1, 2, 3], [], np.asarray([4], np.int32)], -1).tolist() == [
        [1, 2, 3],
        [-1, -1, -1],
        [4, -1, -1],
    ]
    assert filled([], -1).shape == (0, 1)
    assert filled([[]], 7).tolist() == [[7]]
