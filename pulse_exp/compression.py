"""An input that was saved as JPEG: its quality, told from its pixels, and what that leaves open."""

from __future__ import annotations

import math
from functools import cache
from io import BytesIO
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pulse_exp.rows import Rows
from pulse_exp.sharpness import cosine_transform

BLOCK = 8
"""Pixels a side that JPEG transforms together."""

QUALITIES = torch.arange(5, 96)
"""Those that are told: above, the steps of quantisation are no longer than rounding's."""

ROUNDING = 0.4
"""Grey levels: standard deviation of a decoded coefficient, whose pixels were rounded twice."""

FARTHEST = 4.0
"""Standard deviations; a coefficient that is farther off speaks no louder against a quality, and
one within as many of 0 says nothing."""

EVIDENCE = 20.0
"""Log-likelihood ratio from which a quality is believed: of 61 portraits at 16 to 128 pixels a side
none reaches more than -440 and, once saved with a quality of 75 or more, none less than 100."""

TO_YCBCR = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]],
    dtype=torch.float64,
)
"""JFIF's luma and chromas of red, green and blue, without the offset of chroma."""


@cache
def quantisation_steps() -> Float[Tensor, "Q 2 8 8"]:
    """In grey levels, of each of `QUALITIES`, for luma and chroma by frequency; the encoder's."""
    from PIL import Image

    tables = []
    for quality in QUALITIES.tolist():
        buffer = BytesIO()
        Image.new("RGB", (BLOCK, BLOCK)).save(buffer, "JPEG", quality=quality)
        steps = Image.open(buffer).quantization  # type: ignore[attr-defined]
        tables.append([steps[0], steps[1]])
    return torch.tensor(tables, dtype=torch.float64).unflatten(-1, (BLOCK, BLOCK))


def transforms(side: int, decoded: bool) -> Float[Tensor, "3 side side"]:
    """What takes an axis of luma and of both chromas to a file's coefficients; orthonormal but for
    a decoded picture.

    Luma's are the cosine transforms of eight pixels each. A file keeps chroma of pairs of pixels:
    above are the transforms of the pairs' sums over √2, below the pairs' differences over √2, of
    which it knows nothing.

    Args:
        decoded: of a picture that comes from a file. To enlarge chroma its decoder takes three
            parts of the near pixel and one of the next, which makes of the pairs' sums means with
            the weights 1/8, 3/4 and 1/8; this is undone.
    """
    pairs = torch.eye(side // 2, dtype=torch.float64).repeat_interleave(2, dim=1) / math.sqrt(2)
    signs = torch.tensor([1, -1], dtype=torch.float64).repeat(side // 2)
    to_blocks = block_transform(side // 2)
    if decoded:
        next_ones = torch.ones(side // 2 - 1, dtype=torch.float64).diag(1)
        weights = (next_ones + next_ones.T) / 8
        weights += (1 - weights.sum(1)).diag()  # at the border the pixel itself is the next
        to_blocks = to_blocks @ torch.linalg.inv(weights)
    chroma = torch.cat([to_blocks @ pairs, pairs * signs])
    return torch.stack([block_transform(side), chroma, chroma])


def block_transform(side: int) -> Float[Tensor, "side side"]:
    """The cosine transform of each eight of an axis' pixels."""
    return torch.block_diag(*[cosine_transform(BLOCK)] * (side // BLOCK))


@cache
def at_hand(
    side: int, decoded: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "3 side side"], Float[Tensor, "3 3"], Float[Tensor, "3 3"]]:
    """`transforms`, `TO_YCBCR` and its inverse as images are: a search asks at every step."""
    kind: dict[str, Any] = {"dtype": dtype, "device": device}
    back = torch.linalg.inv(TO_YCBCR)
    return transforms(side, decoded).to(**kind), TO_YCBCR.to(**kind), back.to(**kind)


def coefficients(images: Float[Tensor, "B 3 n n"], decoded: bool) -> Float[Tensor, "B 3 n n"]:
    """Of luma and both chromas, in the images' units."""
    matrices, colours, _ = at_hand(images.shape[-1], decoded, images.dtype, images.device)
    return matrices @ torch.einsum("pc,bchw->bphw", colours, images) @ matrices.mT


def fits_blocks(images: Float[Tensor, "B 3 h w"]) -> bool:
    """Whether images are squares of whole blocks of chroma, the only ones looked at."""
    return images.shape[-2] == images.shape[-1] and images.shape[-1] % (2 * BLOCK) == 0


def qualities(images: Float[Tensor, "B 3 n n"]) -> Int[Tensor, " B"]:
    """The quality with which each picture was saved as JPEG, 0 where none is told.

    A decoded coefficient of luma lies, up to rounding, on the lattice of its step (Fan & de
    Queiroz, IEEE Transactions on Image Processing 2003): a Gaussian about it against a uniform
    distribution, by maximum likelihood over the qualities. Left out are coefficients near 0, since
    those of a smooth picture are so by themselves, and blocks in which something is black or white,
    as the decoder clipped there. The picture is taken for the whole of a file; of a large one some
    64 blocks are looked at.
    """
    levels = (255 * images.detach().double().cpu()).round()
    luma = blocks(coefficients(levels - 128, decoded=True)[:, 0])[:, None]
    clipped = blocks(((levels <= 0) | (levels >= 255)).any(1))[:, None].flatten(3).any(3)
    telling = (luma.abs() > FARTHEST * ROUNDING) & ~clipped[..., None, None]
    steps = quantisation_steps()[:, 0, None]
    off = ((luma - steps * (luma / steps).round()) / ROUNDING).abs().clamp(max=FARTHEST)
    gain = (steps / ROUNDING / math.sqrt(2 * math.pi)).log() - off.square() / 2
    best = (gain * telling).sum((2, 3, 4)).max(1)
    return torch.where(best.values > EVIDENCE, QUALITIES[best.indices], 0)


def blocks(plane: Tensor) -> Tensor:
    """`[B, n, n]` by blocks: `[B, k, 8, 8]`, some 64 of them at most."""
    apart = plane.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK))
    together = apart.transpose(2, 3).flatten(1, 2)
    return together[:, :: max(1, together.shape[1] // 64)]


def cells(lr: Float[Tensor, "B 3 n n"], found: Int[Tensor, " B"]) -> Rows:
    """What compression may have made the same as the inputs: where the file's coefficients lie and
    how far from there, half a step, those of what was saved may have been. 0 for a quality of 0.

    Returns:
        `centre` and `reach`, `[B, 3, n, n]` each, in the inputs' units. The differences of chroma
        within pairs of pixels may have been anything.
    """
    side = lr.shape[-1]
    saved = (found > 0)[:, None, None, None].to(lr.device)
    steps = quantisation_steps()[(found - QUALITIES[0]).clamp(min=0)].to(lr) / 255
    luma, chroma = (plane.tile(side // BLOCK, side // BLOCK) for plane in steps.unbind(1))
    kept = torch.full_like(luma, torch.inf)
    half = side // 2
    kept[:, :half, :half] = 2 * chroma[:, :half, :half]  # a sum of four over two is a mean twice
    reach = torch.stack([luma, kept, kept], dim=1) / 2
    centre = coefficients(lr, decoded=True)
    return {"centre": torch.where(saved, centre, 0), "reach": torch.where(saved, reach, 0)}


@torch.no_grad()
def told_part(sr_lr: Float[Tensor, "B 3 n n"], file: Rows) -> Float[Tensor, "B 3 n n"]:
    """What an input's file tells of its difference from an image: how far the coefficients of the
    image are outside the `cells` of the file, as a picture. 0 for an image that it may be of."""
    off = file["centre"] - coefficients(sr_lr, decoded=False)
    outside = off - torch.maximum(torch.minimum(off, file["reach"]), -file["reach"])
    matrices, _, colours = at_hand(sr_lr.shape[-1], False, sr_lr.dtype, sr_lr.device)
    return torch.einsum("cp,bphw->bchw", colours, matrices.mT @ outside @ matrices)


def as_saved(sr_lr: Float[Tensor, "B 3 h w"], observation: Rows) -> Float[Tensor, "B 3 h w"]:
    """Downscaled images as a search compares them with its inputs `lr`: of an input that has a
    `file` only what this tells is left as a difference. Its gradients are those of `sr_lr`: within
    a cell nothing differs any more."""
    if "file" not in observation:
        return sr_lr
    lr, file = observation["lr"], observation["file"]
    saved = file["reach"].flatten(1).amax(1)[:, None, None, None] > 0
    open_part = (lr - sr_lr).detach() - told_part(sr_lr, file)
    return sr_lr + torch.where(saved, open_part, 0)
