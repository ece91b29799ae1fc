import pytest
import torch

from pulse_exp.operators.downscalers import Bicubic
from pulse_exp.operators.measurements import BlockMask, Composed
from pulse_exp.problem import Candidate
from pulse_exp.refine import BackProjection

RNG = torch.Generator().manual_seed(0)
SR, TRUTH = (torch.rand(1, 3, 24, 32, generator=RNG, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("down", [Bicubic(4), BlockMask(), Composed(4, Bicubic, BlockMask())])
def test_back_projection_meets_the_input(down):
    lr = down(TRUTH)
    refined = BackProjection()(SR, lr, Candidate("a", 0, "unsolved"), down, None)
    assert (down(refined) - lr).abs().max() < 1e-9


@pytest.mark.parametrize("down", [Bicubic(4), BlockMask()])
def test_back_projection_changes_only_what_the_downscaler_sees(down):
    refined = BackProjection()(SR, down(TRUTH), Candidate("a", 0, "unsolved"), down, None)
    unseen = TRUTH - down.pseudo_inverse(down(TRUTH))
    assert down(unseen).abs().max() < 1e-9
    assert float(((refined - SR) * unseen).sum().abs()) < 1e-9
