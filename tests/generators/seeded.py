"""Seeded stand-ins for published weights, and the comparison with what the originals computed.

A reference file holds, for each case, the original's tensor names and shapes (`layout`) and what
its code computed with the tensors that `seeded_state` makes of them. The weights themselves are
made again in the test.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

REFERENCES = Path(__file__).parent / "references"


def seeded(name: str, *shape: int) -> torch.Tensor:
    """Standard normal numbers that depend on the name alone."""
    rng = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=rng)


def seeded_state(
    layout: dict[str, list[int]], rules: dict[str, tuple[float, float]], kink: float = 0.0
) -> dict[str, torch.Tensor]:
    """A state dict: each tensor is `offset + scale · normal` by the first rule its name ends in.

    `kink` keeps the activations that far from the kink of LeakyReLU, on either side: it moves what
    the last rule makes, the biases, up or down layer by layer, and takes the mean over the inputs
    out of the kernels so that this shift does not travel on. Without it the gradient of a 1024²
    network is only defined to some 1e-3: rounding flips the slope of one activation in a million,
    and the original in float32 differs from itself in float64 as much. At 256² it is the same on
    some processors.
    """
    state = {}
    for name, shape in layout.items():
        end = next((end for end in rules if name.endswith(end)), None)
        scale, offset = rules[end] if end else (1.0, 0.0)
        state[name] = offset + scale * seeded(name, *shape)
        if kink and end == list(rules)[-1]:
            state[name] += kink * state[name].flatten()[0].sign()
        if kink and name.endswith("weight") and len(shape) >= 4:
            state[name] -= state[name].mean(dim=-3, keepdim=True)
    return state


def reference(architecture: str, case: str) -> dict:
    """The arrays of one case, and its `layout`."""
    with np.load(REFERENCES / f"{architecture}.npz") as file:
        names = [name for name in file.files if name.startswith(f"{case}.")]
        arrays = {name.removeprefix(f"{case}."): file[name] for name in names}
    return {**arrays, "layout": json.loads(str(arrays["layout"]))}


def thinned(image: torch.Tensor, grad: torch.Tensor) -> dict[str, np.ndarray]:
    """The parts of an image in [-1, 1] and of a latent gradient that the references keep."""
    stride = max(1, image.shape[-1] // 16)
    return {
        "image": image.detach()[..., stride // 2 :: stride, stride // 3 :: stride].numpy(),
        "grad": grad[..., :: max(1, grad.shape[-1] // 32)].numpy(),
    }


def image_and_grad(synthesis, ws: torch.Tensor, probe_side: int = 8) -> dict[str, np.ndarray]:
    """`thinned` image of `synthesis(ws)` and gradient of its product with a seeded probe.

    The probe is small and enlarged, as in a search from a small image; with white noise the
    gradients of StyleGAN2's last layers would be small differences of large sums. (With instance
    norm it is the other way round, and StyleGAN1 is given white noise.)
    """
    ws = ws.clone().requires_grad_()
    image = synthesis(ws)
    small = seeded("probe", len(ws), 3, probe_side, probe_side)
    probe = torch.nn.functional.interpolate(small, image.shape[-2:])
    (grad,) = torch.autograd.grad((image * probe).mean(), ws)
    return thinned(image, grad)


def relative_error(ours, theirs) -> float:
    """Largest difference over the largest value."""
    ours, theirs = (np.asarray(a, dtype=np.float64) for a in (ours, theirs))
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
