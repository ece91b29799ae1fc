"""What is wrong with a composed job: every impossible value or combination, all at once.

Each complaint is one line that names the value and the remedy, before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from pulse_exp.combinations import class_of, senseless
from pulse_exp.config import SIZES

ONE_OF = {
    "search.stop": ("all_solved", "never"),
    "search.blur": ("ignored", "estimated"),
    "search.compression": ("ignored", "estimated"),
    "size": SIZES,
    "data.order": ("size", "left_to_right"),
    "latent.start": ("random", "mean", "estimate"),
    "noise.source": ("own", "random", "resampled"),
    "trainer.accelerator": ("auto", "cpu", "gpu"),
    "trainer.precision": ("float32", "bf16"),
    "logger.mode": ("auto", "online", "offline"),
}
"""The words that a value may be, where it is set."""

AT_LEAST = {
    "noise.zeroed": 0,
    "noise.released": 0,
    "noise.weight": 0,
    "search.steps": 1,
    "search.restarts": 1,
    "search.batch_size": 1,
    "latent.draws": 1,
    "latent.corrections": 0,
    "downscaler.factor": 1,
    "data.limit": 1,
    "data.count": 1,
    "data.min_face": 0,
    "data.max_faces": 1,
    "refine.bilateral_back_projection.edges": 0,
    "trainer.steps_per_call": 1,
    "samples.count": 1,
    "samples.truncation": 0,
}
"""The least that a value may be, where it is set."""

POSITIVE = [
    *("search.eps", "optimizer.learning_rate", "optimizer.history", "optimizer.hot"),
    *("loss.lp.p", "loss.huber.delta", "loss.gaussian_likelihood.std", "loss.multi_scale.scales"),
    *("prior.sphere.radius", "prior.l1_ball.radius", "latent.fading"),
    "latent.filter_spread",
    *(f"refine.bilateral_back_projection.{key}" for key in ("colour_spread", "far")),
]
"""What must be above 0, where they are set."""

RESOLUTIONS = {"mobile_stylegan": 1024, "dcgan": 64}
"""Of the generators whose files are always the same; the others' are read from the file."""


def complaints(config: DictConfig) -> list[str]:
    """Every impossible value or combination in a composed job, each a line with its remedy."""
    checks = (_values, _unset, _factor, _data, _task)
    return [*(line for check in checks for line in check(config)), *senseless(config)]


def _values(config: DictConfig) -> Iterator[str]:
    """Single values."""
    one_of, at_least = dict(ONE_OF), dict(AT_LEAST)
    one_of["data.mode" if _photos(config) else "mode"] = ("evaluate", "restore")
    for term in config.loss:
        one_of[f"loss.{term}.floor"] = ("none", "eps")
        one_of[f"loss.{term}.of"] = ("coordinates", "styles")
        at_least[f"loss.{term}.attended"] = 0
    for term in config.prior:
        if class_of(config.prior[term]) != "L1Ball":
            one_of[f"prior.{term}.of"] = ("coordinates", "styles")
    if isinstance(OmegaConf.select(config, "noise.trained"), str):
        one_of["noise.trained"] = ("a number", "visible")
    else:
        at_least["noise.trained"] = 0
    for key, allowed in one_of.items():
        if (value := OmegaConf.select(config, key)) is not None and value not in allowed:
            yield f"{key}={value}: choose one of {', '.join(allowed)}"
    for key, least in at_least.items():
        if (value := OmegaConf.select(config, key)) is not None and value < least:
            yield f"{key}={value}: must be at least {least:g}"
    for key in POSITIVE:
        if (value := OmegaConf.select(config, key)) is not None and not value > 0:
            yield f"{key}={value}: must be above 0"


def _unset(config: DictConfig) -> Iterator[str]:
    """What must be set and is not."""
    for path in sorted(map(str, OmegaConf.missing_keys(config))):
        yield f"{path} is not set: add {path}=... to the command"
    if not config.loss and not config.baseline:
        yield "loss: choose at least one term, such as loss=l2"


def _factor(config: DictConfig) -> Iterator[str]:
    given = OmegaConf.select(config, "generator.weights")
    resolution = OmegaConf.select(config, "generator.resolution") or RESOLUTIONS.get(
        "" if given else str(OmegaConf.select(config, "generator.source"))
    )
    factor = OmegaConf.select(config, "downscaler.factor")
    if resolution and factor and resolution % factor:
        yield (
            f"downscaler.factor={factor} does not divide the generator's resolution {resolution}; "
            f"choose one of {', '.join(str(f) for f in (4, 8, 16, 32, 64) if f < resolution)}"
        )


def _data(config: DictConfig) -> Iterator[str]:
    shard = str(OmegaConf.select(config, "data.shard", default="0/1"))
    index, _, count = shard.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        yield f"data.shard={shard}: write i/n with 0 <= i < n, such as 0/4"
    if not _photos(config):
        for key, value in {"task": "align", "mode": "restore", "paste_back": True}.items():
            if config[key] == value:
                yield f"{key}={str(value).lower()} needs data=photos data.root=DIR"
    if config.degradation and config.data._target_.endswith("LowResFolder"):
        yield "data=low_res has no truth that could be degraded; set degradation=none"


def _task(config: DictConfig) -> Iterator[str]:
    """Folders and files that a task needs, or does not know."""
    if config.task in ("measure", "report") and not config.results:
        yield f"task={config.task} needs results=DIR, the folder of finished runs"
    elif config.results and config.task not in ("measure", "report"):
        yield (
            f"results={config.results}: only task=measure and task=report read finished runs; "
            "hydra.run.dir=DIR says where a run goes"
        )
    if config.task == "convert" and not config.output:
        yield "task=convert needs output=FILE.safetensors, the file to write"
    elif config.output and config.task not in ("convert", "sample"):
        yield (
            f"output={config.output}: only task=convert and task=sample write one file; "
            "hydra.run.dir=DIR says where a run goes"
        )


def _photos(config: DictConfig) -> bool:
    return str(config.data.get("_target_")).endswith(".Photos")
