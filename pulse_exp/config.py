"""The whole job: what it is composed of, what of it determines a result, and its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from pulse_exp.schemas import SCHEMAS

SIZES = ("smoke", "small", "full")


@dataclass
class Search:
    """`steps` a row; `restarts` an image; `batch_size`: rows at a time, null = chosen by the
    program; `eps`: the downscaling error (mean squared, images in [0, 1]) of a solved row;
    `stop`: "all_solved" ends a row at its first point within eps, "never" runs all its steps;
    `blur`: "estimated" adds to the downscaler the blur that an input has beside the generator's
    own images, where the search starts from an estimate, "ignored" does not; `compression`:
    "estimated" leaves open what an input has lost that was saved as JPEG, "ignored" takes it as it
    is."""

    steps: int = 100
    restarts: int = 1
    batch_size: int | None = None
    eps: float = 1e-3
    stop: str = "never"
    blur: str = "ignored"
    compression: str = "ignored"


@dataclass
class Samples:
    """`truncation`: 1 draws from the whole distribution, less pulls towards the mean."""

    count: int = 16
    truncation: float = 0.7


@dataclass
class Config:
    """The whole job. Group nodes are filled by the chosen options.

    `task`: "search"; "align", which shows the faces of data=photos; "measure" and "report", which
    work on the finished runs in the folder `results`; "convert", which writes the generator to
    the file `output`; "sample", which draws `samples` of it. `size`: of a study, "smoke", "small"
    or "full". `mode`: in "evaluate" a photo is the truth, in "restore" the low-res input.
    `paste_back`: also writes each photo with the results blended in. `optimize`: a key of the
    records, such as "lr_mse"; a sweeper that tunes numbers is told its mean."""

    task: str = "search"
    results: str | None = None
    output: str | None = None
    samples: Samples = field(default_factory=Samples)
    optimize: str | None = None
    size: str = "small"
    mode: str = "evaluate"
    paste_back: bool = False
    seed: int = 0
    dry_run: bool = False
    debug: bool = False
    search: Search = field(default_factory=Search)
    generator: Any = MISSING
    noise: Any = MISSING
    latent: Any = MISSING
    prior: dict[str, Any] = field(default_factory=dict)
    downscaler: Any = MISSING
    degradation: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    optimizer: Any = MISSING
    schedule: Any = MISSING
    phases: Any = MISSING
    refine: dict[str, Any] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)
    data: Any = MISSING
    metrics: list[str] = field(default_factory=lambda: ["psnr", "lr_psnr", "ssim", "niqe"])
    logger: Any = MISSING
    trainer: Any = MISSING


CHOICES = [
    *("method", "generator", "noise", "latent", "prior", "downscaler", "degradation", "loss"),
    *("optimizer", "schedule", "phases", "refine", "baseline", "data"),
]
"""The groups whose chosen words every record carries."""

DETERMINING = [
    *(group for group in CHOICES if group != "method"),
    "seed",
    "search",
]
"""Keys of the configuration that determine the result of a row."""

IRRELEVANT = {
    "search": ("batch_size", "restarts"),
    "data": ("shard", "limit", "count", "facts"),
}
"""Keys among them that only say which rows there are, or how many at a time."""


def register() -> None:
    """Puts every schema where conf/*.yaml find it."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, options in SCHEMAS.items():
        for name, schema in options.items():
            store.store(group=f"schema/{group}", name=name, node=schema)


def choices(config: DictConfig, chosen: dict[str, Any]) -> dict[str, str]:
    """The word chosen in each group; several options of one group are joined by `+`.

    Args:
        config: the composed job.
        chosen: Hydra's `runtime.choices`, which leaves out groups chosen by a list.
    """
    words = {}
    for group in CHOICES:
        word = chosen.get(group)
        if not isinstance(word, str):
            word = "+".join(config.get(group) or {}) or "none"
        words[group] = word
    return words


def config_hash(config: DictConfig) -> str:
    """12 hex digits of everything that determines a row's result, and nothing else."""
    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    relevant: dict[str, Any] = {key: plain.get(key) for key in DETERMINING}
    for group, irrelevant in IRRELEVANT.items():
        relevant[group] = {k: v for k, v in relevant[group].items() if k not in irrelevant}
    if plain["trainer"]["precision"] != "float32":
        relevant["precision"] = plain["trainer"]["precision"]
    text = json.dumps(relevant, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
