import numpy as np
import pytest
import torch
from PIL import Image

from pulse_exp.errors import UserError
from pulse_exp.operators.resize import KINDS, resize

PILLOW = dict(zip(KINDS, ("NEAREST", "BOX", "BILINEAR", "BICUBIC", "LANCZOS"), strict=True))


@pytest.mark.parametrize("size", [(28, 44), (33, 50), (5, 7), (7, 11), (1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_pillow_at_any_size(kind, size):
    image = torch.rand(7, 11, generator=torch.Generator().manual_seed(0))
    expected = Image.fromarray(image.numpy()).resize(size[::-1], Image.Resampling[PILLOW[kind]])
    found = resize(image.expand(2, 3, 7, 11), size, kind)
    assert found.shape == (2, 3, *size)
    np.testing.assert_allclose(found[1, 2].numpy(), np.asarray(expected), atol=2e-6)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="nearest, area, bilinear, bicubic, lanczos"):
        resize(torch.zeros(1, 3, 4, 4), (8, 8), "cubic")
