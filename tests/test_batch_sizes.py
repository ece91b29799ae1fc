import torch

from pulse_exp.batch_sizes import bytes_a_row, default_batch_size, rows_that_fit, saved_bytes
from pulse_exp.benchmark.networks import build


def test_one_row_at_1024_and_more_of_small_ones_on_a_cpu():
    cpu = torch.device("cpu")
    assert default_batch_size(build("toy", 1024), cpu) == 1
    assert default_batch_size(build("toy", 512), cpu) == 4
    assert default_batch_size(build("toy", 64), cpu) == 16


def test_a_row_counts_what_grows_with_the_batch():
    generator = build("toy", 64)
    row = bytes_a_row(generator)
    assert saved_bytes(generator, 4) - saved_bytes(generator, 2) == 2 * row, "real tensors agree"
    activations = sum(4 * 16 * side**2 for side in (4, 8, 16, 32, 64))
    assert activations < row < 8 * activations


def test_rows_fill_two_thirds_of_the_memory_within_limits():
    assert rows_that_fit(30 * 2**30, 2**30) == 20
    assert rows_that_fit(2**20, 2**30) == 1
    assert rows_that_fit(2**50, 2**30) == 64


def test_a_mode_that_keeps_nothing_has_only_its_image():
    generator = build("toy", 32)
    with torch.no_grad():
        assert saved_bytes(generator, 2) == 2 * 3 * 32 * 32 * 4
