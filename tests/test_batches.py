"""Rows on a device, and batches of them by slicing."""

import numpy as np
import pytest
import torch

from sklearn_fordes.training import BatchIterator, DeviceDataset


def make_rows(n_rows, **settings):
    return DeviceDataset(np.arange(float(n_rows))[:, None], np.arange(n_rows), **settings)


def make_batches(n_rows, batch_size, seed=0, **settings):
    rng = np.random.default_rng(seed)
    return BatchIterator(make_rows(n_rows, **settings), batch_size, shuffle=True, rng=rng)


@pytest.mark.parametrize("n_rows", [1, 5, 20, 23, 24])
@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_shuffled_batches_have_one_shape_and_each_row(n_rows, batch_size):
    iterator = make_batches(n_rows, batch_size)
    batches = [y for _, y in iterator]
    assert len(batches) == len(iterator)
    size = -(-n_rows // len(batches))
    assert {len(y) for y in batches} == {size}
    assert size <= batch_size
    rows = torch.cat(batches)
    assert sorted(rows[:n_rows].tolist()) == list(range(n_rows))
    # Rows of the first batch fill the last one up.
    assert torch.equal(rows[n_rows:], rows[: len(rows) - n_rows])


def test_the_parts_of_a_batch_belong_to_the_same_rows():
    for inputs, y in make_batches(23, 5, sample_weight=np.arange(23.0)):
        assert torch.equal(inputs["X"][:, 0], y.float())
        assert torch.equal(inputs["sample_weight"], y.float())
        assert "extra_inputs" not in inputs


def test_the_generator_determines_the_order_of_each_epoch():
    one, same, other = (make_batches(23, 5, seed) for seed in (0, 0, 1))
    epochs = [[torch.cat([y for _, y in it]).tolist() for _ in range(2)] for it in (one, same)]
    assert epochs[0] == epochs[1]
    assert epochs[0][0] != epochs[0][1]
    assert epochs[0][0] != torch.cat([y for _, y in other]).tolist()
    assert epochs[0][0][:23] != list(range(23))


def test_batches_without_shuffling_are_slices_in_order():
    iterator = BatchIterator(make_rows(7), 3)
    assert [y.tolist() for _, y in iterator] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(iterator) == 3


def test_extra_inputs_are_drawn_for_each_row_of_a_batch():
    extra = torch.arange(100.0, 150.0)[:, None]
    iterators = [make_batches(23, 5, seed=s, extra_inputs=extra) for s in (0, 0)]
    epochs = [[i["extra_inputs"][:, 0] for _ in range(30) for i, _ in it] for it in iterators]
    assert {len(drawn) for drawn in epochs[0]} == {5}
    assert torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    assert torch.cat(epochs[0]).unique().tolist() == extra[:, 0].tolist()


def test_rows_are_copies_in_the_types_of_the_network():
    X = np.ones((3, 2), dtype=np.float32)
    rows = DeviceDataset(X, [0.5, 1.0, 2.0], [1, 2, 3], dtype=torch.float64)
    rows.X.zero_()
    assert X.all()
    assert {rows.X.dtype, rows.y.dtype, rows.sample_weight.dtype} == {torch.float64}
    assert DeviceDataset(X, np.array([1, 0, 2], dtype=np.int8)).y.dtype == torch.int64
    assert rows[:2][1].tolist() == [0.5, 1.0]
    assert DeviceDataset(X)[0][1] is None


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, None, "all"])
def test_wrong_batch_sizes(batch_size):
    with pytest.raises(ValueError, match=r"Got batch_size=.* expected an integer >= 1"):
        BatchIterator(make_rows(3), batch_size)
