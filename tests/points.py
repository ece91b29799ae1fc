"""Points of a search without a search, for tests of terms."""

import torch
from torch import Tensor

from pulse_exp.objective import Point


def point(
    sr_lr: Tensor | None = None,
    lr: Tensor | None = None,
    coordinates: Tensor | None = None,
    ws: Tensor | None = None,
    eps: float = 1e-3,
    **variables: Tensor,
) -> Point:
    """A point whose missing parts are zeros."""
    some = next(t for t in (sr_lr, coordinates, ws, *variables.values()) if t is not None)
    zeros = torch.zeros(len(some), 3, 2, 2, dtype=some.dtype)
    sr_lr, lr = zeros if sr_lr is None else sr_lr, zeros if lr is None else lr
    return Point(
        variables={"latent": coordinates, **variables} if coordinates is not None else variables,
        coordinates=zeros if coordinates is None else coordinates,
        ws=ws,
        sr_lr=sr_lr,
        lr=lr,
        lr_mse=(sr_lr - lr).square().flatten(1).mean(1),
        eps=eps,
    )
