"""NIQE: how far an image's statistics are from those of undistorted photos.

Mittal, Soundararajan & Bovik, "Making a 'completely blind' image quality analyzer", IEEE Signal
Processing Letters 2013, with the parameters of its official release.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.metrics.base import MetricUnavailable, Restoration

BLOCK = 96
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Neighbours whose products are modelled: right, below and the two diagonals (down, right)."""

LUMA = (0.298936021293775, 0.587043074451121, 0.114020904255103)
"""MATLAB's rgb2gray."""

SHAPES = np.arange(200, 10001) / 1000
"""Shape parameters α that a fit chooses from."""


def niqe(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """NIQE of RGB images in [0, 1]; 0 and up, lower is more natural.

    The images are rounded to 8 bits, made grey and rounded again, and cropped at the right and
    bottom to whole 96×96 blocks. All arithmetic is in float64 on the images' device. A row with
    fewer than two blocks that are not flat scores NaN.

    Differs from the official code in one point: filters sum differences, so flat areas are exact
    zeros instead of rounding noise, and the score does not depend on the order of summation.

    Raises:
        UserError: not `[B, 3, H, W]` of floats in [0, 1], or fewer than two blocks.
    """
    refusal = _refusal(images)
    if refusal:
        raise UserError(f"NIQE: {refusal}")
    return torch.stack([_score(_features(gray)) for gray in _gray(images)])


class Niqe:
    """NIQE of the results."""

    keys: tuple[str, ...] = ("niqe",)
    needs_truth: ClassVar[bool] = False

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        return {"niqe": _niqe_if_large(restoration.sr)}


class TruthNiqe:
    """NIQE of the truths."""

    keys: tuple[str, ...] = ("niqe_hr",)
    needs_truth: ClassVar[bool] = True

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        return {"niqe_hr": _niqe_if_large(restoration.truth)}


def _niqe_if_large(images: Tensor) -> Tensor:
    refusal = _refusal(images)
    if refusal:
        raise MetricUnavailable(refusal)
    return niqe(images)


def _refusal(images: Tensor) -> str:
    """Why these images have no score; empty if they have one."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        return f"expected float images [B, 3, H, W], got {images.dtype} {list(images.shape)}"
    height, width = images.shape[2:]
    if (height // BLOCK) * (width // BLOCK) < 2:
        return (
            f"images of {height}×{width} pixels are too small: it needs two whole "
            f"{BLOCK}×{BLOCK} blocks, at least {BLOCK}×{2 * BLOCK} pixels"
        )
    if images.numel() and (images.amin() < -1e-3 or images.amax() > 1 + 1e-3):
        low, high = images.amin().item(), images.amax().item()
        return f"expected images in [0, 1], got values from {low:.3g} to {high:.3g}"
    return ""


def _gray(images: Tensor) -> Float[Tensor, "B 1 H W"]:
    """Grey levels, whole numbers from 0 to 255 in float64, cropped to whole blocks."""
    height, width = (side // BLOCK * BLOCK for side in images.shape[2:])
    if images.device.type == "mps":  # has no float64
        images = images.cpu()
    levels = (images[..., :height, :width].double().clamp(0, 1) * 255).round()
    weights = levels.new_tensor(LUMA).view(3, 1, 1)
    return (levels * weights).sum(dim=1, keepdim=True).round()


def _features(gray: Float[Tensor, "1 H W"]) -> Float[Tensor, "N 36"]:
    """18 features of each block at full and at half size."""
    half = _halve(_halve(gray, -2), -1)
    return torch.cat(
        [_block_features(_normalise(gray), BLOCK), _block_features(_normalise(half), BLOCK // 2)],
        dim=1,
    )


def _normalise(gray: Float[Tensor, "1 H W"]) -> Float[Tensor, "1 H W"]:
    """Mean-subtracted, contrast-normalised coefficients, eq. 1 to 3."""
    mean = _blur(gray)
    deviation = (_blur(gray.square()) - mean.square()).abs().sqrt()
    return (gray - mean) / (deviation + 1)


def _blur(x: Float[Tensor, "1 H W"]) -> Float[Tensor, "1 H W"]:
    """7×7 Gaussian of standard deviation 7/6; the borders repeat the edge pixels."""
    window = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    window /= window.sum()
    x = _filter(F.pad(x, (3, 3), mode="replicate"), window, dim=2)
    x = x.transpose(1, 2)
    return _filter(F.pad(x, (3, 3), mode="replicate"), window, dim=2).transpose(1, 2)


def _halve(x: Float[Tensor, "1 H W"], dim: int) -> Tensor:
    """MATLAB's `imresize(x, 0.5)` along one dimension: antialiased bicubic, a = -0.5, symmetric.

    An output pixel lies between two input pixels; its eight taps are 0.25, 0.75, 1.25 and 1.75
    output pixels away on either side.
    """
    distance = np.abs(np.arange(8) - 3.5) / 2
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance <= 1, near, far)
    weights /= weights.sum()
    length = x.shape[dim]
    mirrored = [x.narrow(dim, 0, 3).flip(dim), x, x.narrow(dim, length - 3, 3).flip(dim)]
    return _filter(torch.cat(mirrored, dim), weights, dim, step=2)


def _filter(padded: Tensor, weights: np.ndarray, dim: int, step: int = 1) -> Tensor:
    """Σ weight·tap along one dimension, for weights of sum one, at every `step`-th place.

    Sums what the taps differ by from the middle one: where all are equal the result is that
    value, exactly.
    """
    taps = padded.unfold(dim, len(weights), step).unbind(-1)
    middle = taps[len(weights) // 2]
    total = torch.zeros_like(middle)
    for tap, weight in zip(taps, weights.tolist(), strict=True):
        total = total + weight * (tap - middle)
    return middle + total


def _block_features(coefficients: Float[Tensor, "1 H W"], side: int) -> Float[Tensor, "N 18"]:
    """Shape and spread of the coefficients; shape, mean and spreads of their paired products."""
    height, width = coefficients.shape[1:]
    blocks = (
        coefficients.view(height // side, side, width // side, side)
        .transpose(1, 2)
        .reshape(-1, side, side)
    )
    shape, left, right = _fit(blocks)
    features = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = _fit(blocks * blocks.roll(shift, dims=(1, 2)))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        features += [shape, mean, left, right]
    return torch.stack(features, dim=1)


def _fit(
    blocks: Float[Tensor, "N h w"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Shape α and scales β of an asymmetric generalised Gaussian, by matching moments (eq. 4-7).

    Scales are NaN, and the shape the smallest, where a block has no value on one side of zero.
    """
    values = blocks.flatten(1)
    squares = values.square()
    left = _root_mean(squares, values < 0)
    right = _root_mean(squares, values > 0)
    ratio = left / right
    moments = values.abs().mean(dim=1).square() / squares.mean(dim=1)
    target = moments * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    shapes, ratios = (torch.from_numpy(table).to(values.device) for table in _shape_table())
    nearest = torch.searchsorted((ratios[1:] + ratios[:-1]) / 2, target)
    shape = shapes[torch.where(target.isnan(), 0, nearest)]
    scale = (0.5 * (torch.lgamma(1 / shape) - torch.lgamma(3 / shape))).exp()
    return shape, left * scale, right * scale


def _root_mean(squares: Tensor, where: Tensor) -> Tensor:
    return ((squares * where).sum(dim=1) / where.sum(dim=1)).sqrt()


@lru_cache(maxsize=1)
def _shape_table() -> tuple[np.ndarray, np.ndarray]:
    """Every α, and Γ(2/α)² / (Γ(1/α)·Γ(3/α)), which grows with it."""
    from scipy.special import gammaln

    log_ratio = 2 * gammaln(2 / SHAPES) - gammaln(1 / SHAPES) - gammaln(3 / SHAPES)
    return SHAPES, np.exp(log_ratio)


@lru_cache(maxsize=1)
def _pristine() -> tuple[np.ndarray, np.ndarray]:
    """Mean `[36]` and covariance `[36, 36]` of the features of undistorted photos."""
    path = files("pulse_exp.metrics") / "niqe_pris_params.npz"
    with path.open("rb") as file, np.load(file) as parameters:
        return parameters["mu_pris_param"].reshape(36), parameters["cov_pris_param"]


def _score(features: Float[Tensor, "N 36"]) -> Float[Tensor, ""]:
    """Distance of the block features' Gaussian from the pristine one, eq. 10.

    As in the official code, means skip missing values one by one, the covariance whole blocks.
    """
    mean, covariance = (torch.from_numpy(p).to(features.device) for p in _pristine())
    whole = features[~features.isnan().any(dim=1)]
    if len(whole) < 2:
        return features.new_tensor(float("nan"))
    difference = mean - features.nanmean(dim=0)
    pooled = (covariance + torch.cov(whole.T)) / 2
    return (difference @ torch.linalg.pinv(pooled) @ difference).sqrt()
