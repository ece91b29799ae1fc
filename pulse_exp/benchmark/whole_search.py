"""What a search costs: its own share of a step, and faces a second from start to end."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from pulse_exp.benchmark.ceilings import wait_for
from pulse_exp.benchmark.steps import Timing, interleave, step_of
from pulse_exp.building import build, build_downscaler, build_objective
from pulse_exp.callbacks import SearchCurves
from pulse_exp.generators.base import Generator, freeze
from pulse_exp.pipeline import quiet_lightning
from pulse_exp.problem import Candidate
from pulse_exp.search import LatentSearch, Settings, Start


class NoGenerator(Generator):
    """A flat image of the mean style: a step with it costs what is not the generator's."""

    architecture = "none"

    def __init__(self, resolution: int, num_ws: int, w_dim: int) -> None:
        super().__init__()
        self.config = {"resolution": resolution, "num_ws": num_ws, "w_dim": w_dim}
        self.resolution, self.num_ws = resolution, num_ws
        self.z_dim = self.w_dim = w_dim
        self.scale = torch.nn.Parameter(torch.full((3,), 0.1))

    def mapping(self, z: Float[Tensor, "B z_dim"]) -> Float[Tensor, "B num_ws w_dim"]:
        return torch.nn.functional.leaky_relu(z, 0.2).unsqueeze(1).expand(-1, self.num_ws, -1)

    def synthesis(
        self, ws: Float[Tensor, "B num_ws w_dim"], noise: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        level = ws.mean(dim=(1, 2))[:, None, None, None] * self.scale[:, None, None]
        return level.expand(-1, -1, self.resolution, self.resolution)


@dataclass
class Overhead:
    """Seconds of a step without a generator: in a search, and image, downscaling and error alone.

    What is between them is the latent, the priors, the optimizer, the best so far, the curves and
    Lightning.
    """

    resolution: int
    search: Timing
    bare: Timing

    @property
    def seconds(self) -> float:
        return self.search.median - self.bare.median


def measure_overhead(resolution: int, steps: int, device: torch.device) -> Overhead:
    """A search of the default method over a generator that does nothing, styles as at 1024²."""
    generator = freeze(NoGenerator(resolution, 16, 512)).to(device)
    ticks: list[tuple[float, float]] = []

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            wait_for(device)
            ticks.append((time.perf_counter(), time.process_time()))

    search_faces(generator, 1, 1, steps, device, [Clock()])
    search = Timing()
    for before, after in pairwise(ticks):
        search.wall.append(after[0] - before[0])
        search.cpu.append(after[1] - before[1])
    bare = interleave({"bare": step_of(generator, 1, device)}, steps, device)["bare"]
    return Overhead(resolution, search, bare)


def search_faces(
    generator: Generator,
    faces: int,
    batch: int,
    steps: int,
    device: torch.device,
    callbacks: Sequence[pl.Callback] = (),
    steps_per_call: int = 1,
) -> tuple[float, list[Candidate]]:
    """Seconds of a search of so many images by the default method, and what it found."""
    quiet_lightning()
    with style_statistics_in_a_scratch_folder():
        config = default_job(generator.resolution, steps)
        downscaler = build_downscaler(config, config.downscaler.factor, generator.resolution)
        objective = build_objective(config, generator, downscaler)
    side = generator.resolution // config.downscaler.factor
    rng = torch.Generator().manual_seed(0)
    inputs = torch.rand(faces, 3, side, side, generator=rng)
    found: list[Candidate] = []
    search = LatentSearch(
        objective=objective,
        optimizer=build(config.optimizer),
        schedule=build(config.schedule),
        phases=build(config.phases),
        settings=Settings(steps, config.search.eps, "never", 0),
        waiting=iter([Start(str(number), 0, lr) for number, lr in enumerate(inputs)]),
        batch_size=batch,
        finished=found.append,
        steps_per_call=steps_per_call,
    )
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        callbacks=[SearchCurves(5, 50), *callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )
    began = time.perf_counter()
    trainer.fit(search)
    wait_for(device)
    return time.perf_counter() - began, found


def default_job(resolution: int, steps: int) -> DictConfig:
    """The default configuration: what it says of the generator is not used."""
    from hydra import compose, initialize_config_dir

    from pulse_exp.command import CONF
    from pulse_exp.config import register

    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(
            "config",
            overrides=[
                *("generator=toy", f"generator.resolution={resolution}", "logger=none"),
                *(f"search.steps={steps}", f"downscaler.factor={max(4, resolution // 32)}"),
                "latent.statistics_draws=2000",
            ],
        )


@contextmanager
def style_statistics_in_a_scratch_folder() -> Iterator[None]:
    """Random networks leave nothing in the user's cache."""
    before = os.environ.get("PULSE_EXP_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PULSE_EXP_CACHE"] = str(Path(folder))
        try:
            yield
        finally:
            if before is None:
                del os.environ["PULSE_EXP_CACHE"]
            else:
                os.environ["PULSE_EXP_CACHE"] = before
