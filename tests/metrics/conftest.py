import pytest
import torch
from skimage import data


@pytest.fixture(scope="session")
def woman():
    """The astronaut's face `[1, 3, 256, 256]`, framed roughly as FFHQ frames faces."""
    photo = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)[None] / 255
    return photo[..., 10:266, 96:352]
