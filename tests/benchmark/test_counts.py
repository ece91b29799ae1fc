import pytest
import torch
from torch import nn

from pulse_exp.benchmark.counts import Traffic, count
from pulse_exp.benchmark.networks import build
from pulse_exp.generators.base import Generator, freeze


class OneConvolution(Generator):
    """Nothing but a 3×3 convolution of a 4×4 constant scaled by the style."""

    architecture = "one"

    def __init__(self):
        super().__init__()
        self.num_ws, self.w_dim, self.resolution = 1, 8, 4
        self.constant = nn.Parameter(torch.ones(1, 8, 4, 4))
        self.conv = nn.Conv2d(8, 3, 3, padding=1)

    def synthesis(self, ws, noise=None):
        return self.conv(self.constant * ws[:, 0, :, None, None])


def test_counts_of_one_convolution_by_hand():
    counts = count(freeze(OneConvolution()), batch=2)
    flop = 2 * 2 * 3 * 8 * 9 * 16  # two a multiplication and addition
    assert counts.forward_flop == flop
    assert counts.backward_flop == flop, "of the input only, not of the weights"
    assert counts.activations == 2 * 3 * 16 * 4
    assert counts.weights == 4 * (3 * 8 * 9 + 8 * 16)
    assert counts.least == 2 * (counts.activations + counts.weights)
    assert counts.moved > counts.least


def test_traffic_counts_reads_and_writes_but_no_views():
    x = torch.zeros(10, 10)
    with Traffic() as traffic:
        y = x.T.reshape(100)[:50] + 1  # a copy of 100, then 50 read and written
        y.add_(1)
    assert traffic.moved == 4 * (2 * 100 + 2 * 50 + 2 * 50)


def test_the_published_networks_have_the_operations_that_are_known_of_them():
    """14.6 GFLOP forward for MobileStyleGAN, 64.5 for the released StyleGAN, at 1024²."""
    assert count(build("mobile_stylegan", 1024)).forward_flop == pytest.approx(14.6e9, rel=0.01)
    assert count(build("plain", 1024)).forward_flop == pytest.approx(64.5e9, rel=0.01)
