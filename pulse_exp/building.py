"""From a composed configuration to the objects it names."""

from __future__ import annotations

from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from pulse_exp.batch_sizes import default_batch_size, key, remembered
from pulse_exp.data import Dataset
from pulse_exp.errors import UserError
from pulse_exp.generators.acceleration import accelerate
from pulse_exp.generators.base import Generator
from pulse_exp.noise import NoiseInputs
from pulse_exp.objective import Objective, Term
from pulse_exp.operators import Downscaler
from pulse_exp.operators.degradations import Chain
from pulse_exp.priors import NoiseDistance


def build(node: DictConfig, **arguments: Any) -> Any:
    """The object that a node's `_target_` names; a UserError raised inside comes out as it is."""
    try:
        return instantiate(node, _convert_="all", **arguments)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__
        raise


def pick_device(accelerator: str) -> torch.device:
    """The device for `trainer.accelerator`.

    Raises:
        UserError: a GPU was asked for and there is none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer=gpu: no CUDA device is visible here; use trainer=auto or cpu")
    gpu = accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def build_generator(config: DictConfig, device: torch.device) -> Generator:
    """The generator on its device, as `trainer.precision` and `trainer.compile` want it."""
    generator = build(config.generator).to(device)
    return accelerate(generator, config.trainer.precision, config.trainer.compile)


def build_dataset(config: DictConfig, generator: Generator) -> Dataset:
    return build(config.data, generator=generator, seed=config.seed)


def build_downscaler(config: DictConfig, factor: int, resolution: int) -> Downscaler:
    """The downscaler that the search assumes, for one factor.

    Raises:
        UserError: it cannot be applied to an image of the generator's resolution.
    """
    downscaler: Downscaler = build(config.downscaler, factor=factor)
    downscaler.output_size(resolution, resolution)
    return downscaler


def build_degradation(config: DictConfig, downscaler: Downscaler) -> Chain:
    steps = {name: build(node) for name, node in config.degradation.items()}
    return Chain(steps, downscaler)


def build_objective(config: DictConfig, generator: Generator, downscaler: Downscaler) -> Objective:
    """What a search minimises: the data terms of `loss`, the priors, what noise inputs pay."""
    terms: dict[str, Term] = {str(name): build(node) for name, node in config.loss.items()}
    for name, node in config.prior.items():
        terms[str(name) if name not in terms else f"prior_{name}"] = build(node)
    low_res_side = max(downscaler.output_size(generator.resolution, generator.resolution))
    noise: NoiseInputs = build(config.noise, low_res_side=low_res_side)
    if noise.weight:
        terms["noise_distance"] = NoiseDistance(noise.weight)
    return Objective(
        generator=generator,
        latent=build(config.latent, generator=generator),
        noise=noise,
        downscaler=downscaler,
        terms=terms,
        eps=config.search.eps,
        steps=config.search.steps,
        estimates_blur=config.search.blur == "estimated",
        estimates_compression=config.search.compression == "estimated",
    )


def batch_size_for(config: DictConfig, generator: Generator, device: torch.device) -> int:
    """`search.batch_size`, or the size last found to fit, or what should fit."""
    if config.search.batch_size:
        return int(config.search.batch_size)
    return remembered(batch_key(generator, device)) or default_batch_size(generator, device)


def batch_key(generator: Generator, device: torch.device) -> str:
    """What the batch size that fits is remembered under."""
    return key(generator.architecture, device, generator.resolution)
