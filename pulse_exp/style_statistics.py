"""What a generator's mapping network does to standard normal latents, measured once and kept."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_exp.generators.base import Generator
from pulse_exp.seeding import random_generator


@dataclass
class StyleStatistics:
    """What the mapping network does to standard normal latents, estimated from many draws.

    v is the style vector with the mapping's last LeakyReLU undone, which makes it nearly Gaussian
    (Menon et al. 2020, appendix; Zhu et al. 2020).

    Attributes:
        mean, std: of v, `[w_dim]`.
        variances, directions: eigenvalues `[w_dim]`, descending, and eigenvectors as columns
            `[w_dim, w_dim]` of v's covariance.
        w_mean: of the style vectors themselves `[w_dim]`.
    """

    mean: Tensor
    std: Tensor
    variances: Tensor
    directions: Tensor
    w_mean: Tensor


def fingerprint(generator: Generator) -> str:
    """16 hex digits of a generator's architecture and mapping network."""
    digest = hashlib.blake2b(f"{generator.architecture}{generator.config}".encode(), digest_size=8)
    probe = torch.randn(4, generator.z_dim, generator=random_generator("fingerprint"))
    with torch.no_grad():
        w = generator.mapping(probe.to(next(generator.parameters()).device))[:, 0]
    # Rounded: the last bits differ between machines, the network does not.
    digest.update(str([f"{x:.3e}" for x in w.float().flatten()[:64].tolist()]).encode())
    return digest.hexdigest()


@torch.no_grad()
def synthesis_fingerprint(generator: Generator) -> str:
    """8 hex digits of all weights: two generators may share their mapping network."""
    # Rounded: the last bits differ between machines, the network does not.
    sizes = [f"{float(p.float().abs().mean()):.2e}" for p in generator.parameters()]
    return hashlib.blake2b(" ".join(sizes).encode(), digest_size=4).hexdigest()


def kept(
    generator: Generator, name: str, make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What `make` gives, on the generator's device: made once, then read from the cache.

    Args:
        name: tells apart what is kept of one generator.
    """
    from filelock import FileLock
    from safetensors.torch import load_file, save_file

    from pulse_exp.generators.weights import cache_folder

    folder = cache_folder() / "statistics"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{generator.architecture}-{fingerprint(generator)}-{name}.safetensors"
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            part = path.with_suffix(".part")
            save_file({key: t.contiguous() for key, t in make().items()}, part)
            part.replace(path)
        tensors = load_file(path)
    device = next(generator.parameters()).device
    return {key: tensor.to(device) for key, tensor in tensors.items()}


def tracked(items: Sequence[int], description: str, quick: bool) -> Iterable[int]:
    """The items with a progress bar, or a line where no terminal shows one; nothing if quick."""
    from rich.progress import track

    if not quick and not sys.stdout.isatty():
        print(f"working out {description}", file=sys.stderr)
    return track(items, description, transient=True, disable=quick)


def style_statistics(generator: Generator, draws: int) -> StyleStatistics:
    """Statistics of `draws` style vectors."""
    tensors = kept(generator, str(draws), lambda: vars(estimate_statistics(generator, draws)))
    return StyleStatistics(**tensors)


@torch.no_grad()
def estimate_statistics(generator: Generator, draws: int, chunk: int = 8192) -> StyleStatistics:
    """The statistics from seeded draws; sums are kept in float64."""
    device = next(generator.parameters()).device
    rng = random_generator("style statistics")
    d = generator.w_dim
    total, w_total = torch.zeros(2, d, dtype=torch.float64)
    products = torch.zeros(d, d, dtype=torch.float64)
    chunks = [min(chunk, draws - start) for start in range(0, draws, chunk)]
    description = f"statistics of {draws:,} style vectors (once)"
    for size in tracked(chunks, description, quick=draws * d < 2e7):
        z = torch.randn(size, generator.z_dim, generator=rng)
        w = generator.mapping(z.to(device))[:, 0]
        v = F.leaky_relu(w, 1 / generator.mapping_slope).double().cpu()
        w_total += w.double().cpu().sum(0)
        total += v.sum(0)
        products += v.T @ v
    mean = total / draws
    covariance = (products - draws * torch.outer(mean, mean)) / (draws - 1)
    variances, directions = torch.linalg.eigh(covariance)
    return StyleStatistics(
        mean=mean.float(),
        std=covariance.diagonal().clamp(min=1e-12).sqrt().float(),
        variances=variances.flip(0).clamp(min=1e-12).float(),
        directions=directions.flip(1).float(),
        w_mean=(w_total / draws).float(),
    )


@torch.no_grad()
def style_moments(generator: Generator, draws: int = 10_000) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[w_dim]` of the style vectors, from seeded draws."""
    device = next(generator.parameters()).device
    z = torch.randn(draws, generator.z_dim, generator=random_generator("style moments"))
    w = generator.mapping(z.to(device))[:, 0]
    return w.mean(0), w.std(0).clamp(min=1e-6)


@torch.no_grad()
def style_spreads(generator: Generator, draws: int = 10_000) -> list[Tensor]:
    """Standard deviation `[C]` of what each style layer gives, from seeded draws."""
    device = next(generator.parameters()).device
    z = torch.randn(draws, generator.z_dim, generator=random_generator("style spreads"))
    w = generator.mapping(z.to(device))[:, 0]
    return [layer(w).std(0) for layer in generator.style_layers()]
