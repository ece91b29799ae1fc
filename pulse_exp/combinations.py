"""Which options of a search make no sense together, found before anything is loaded.

Options are known by the class that their `_target_` names, so that a user's own yaml on the same
class is judged alike. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

GAUSSIAN = {
    "Z",
    "GaussianizedWPlus",
    "IntermediateLayers",
    "WhitenedW",
    "WhitenedWPlus",
    "PreconditionedWPlus",
    "PreconditionedWPlusPlus",
}
"""Latents whose coordinates are near to a unit Gaussian: mean 0, norm sqrt(d)."""

ONE_VECTOR = {"Z", "W", "PerturbedW", "WhitenedW"}
"""Latents with one vector for all layers."""

OFFSETS = {
    "WhitenedWPlus": {"offset_coarse", "offset_fine"},
    "PreconditionedWPlus": {"offset_coarse", "offset_fine"},
    "PreconditionedWPlusPlus": {"offset_coarse", "offset_fine", "filters"},
    "WPlusPlus": {"offset", "filters"},
    "IntermediateLayers": {"features"},
}
"""Variables beside `latent`; all of them start at 0."""

REACHING = {"PreconditionedWPlusPlus", "WPlusPlus", "IntermediateLayers"}
"""Latents that are more than style vectors: they change what is in the generator's layers."""

NO_LAYERS = {"dcgan", "progan"}
"""Generators whose styles and features cannot be reached."""

PICTURES = {"Photos", "LowResFolder"}
"""Data whose inputs may be pictures as they are, not reduced by the downscaler."""


def senseless(config: DictConfig) -> Iterator[str]:
    """A line with its remedy for each combination that makes no sense."""
    yield from of_measurements(config)
    if config.baseline:
        yield from of_baseline(config)
        return
    yield from of_latent(config)
    yield from of_sphere(config)
    yield from of_terms(config)
    yield from of_phases(config)
    if class_of(config.optimizer) == "Langevin":
        yield from of_sampler(config)


def of_baseline(config: DictConfig) -> Iterator[str]:
    if len(config.baseline) > 1:
        yield f"baseline={list(config.baseline)}: choose one"
    if config.search.restarts > 1:
        yield "search.restarts: a baseline gives one result an image; set it to 1"
    if "PivotalTuning" in classes(config.refine):
        yield "refine=pivotal_tuning tunes the search's generator; a baseline has none"
    if measures(config) and "Precomputed" not in classes(config.baseline):
        yield "baseline: random measurements are no picture to enlarge; choose a search"


def of_measurements(config: DictConfig) -> Iterator[str]:
    if measures(config) and class_of(config.data) in PICTURES:
        yield (
            "downscaler: random measurements are taken of a known image, and this data gives "
            "pictures to restore; choose data=folder or another downscaler"
        )


def of_latent(config: DictConfig) -> Iterator[str]:
    latent, source = class_of(config.latent), config.generator.get("source")
    if latent in ("WPlusPlus", "IntermediateLayers") and source in NO_LAYERS:
        yield f"latent: generator={source} has no layers to reach into; choose another latent"
    if latent in REACHING and source not in NO_LAYERS and config.trainer.compile:
        yield (
            "trainer.compile: this latent reaches into the generator, which a compiled one does "
            "not let it; choose latent=preconditioned_w_plus, or trainer.compile=false"
        )
    if config.latent.draws > 1 and config.latent.start == "mean" and config.search.restarts == 1:
        yield "latent.draws: there is only one mean to start from; set latent.start=random"
    if config.latent.corrections and config.latent.start != "estimate":
        yield "latent.corrections: only estimates can be corrected; set latent.corrections=0"
    if latent == "Z" and config.latent.start == "estimate":
        yield (
            "latent.start=estimate: which z makes a face is hardly linear in the face; choose "
            "latent=w or latent.start=random"
        )


def of_sphere(config: DictConfig) -> Iterator[str]:
    latent, at_mean = class_of(config.latent), config.latent.start == "mean"
    for prior in config.prior.values():
        if class_of(prior) != "Sphere" or prior.radius is not None:
            continue
        if latent not in GAUSSIAN:
            yield (
                "prior=sphere: these coordinates have no natural radius; set prior.sphere.radius, "
                "or choose latent=gaussianized_w_plus"
            )
        elif at_mean:
            yield "prior=sphere: the mean is the sphere's centre; set latent.start=random"
    if config.optimizer.get("sphere"):
        zero = sorted(OFFSETS.get(latent, ()))
        if at_mean and latent in GAUSSIAN:
            zero.append("the mean")
        if zero:
            yield (
                f"optimizer.sphere=true keeps first norms, and {' and '.join(zero)} starts at 0: "
                "it would never move; choose prior=sphere, or another latent"
            )


def of_terms(config: DictConfig) -> Iterator[str]:
    latent = class_of(config.latent)
    terms = classes(config.prior) | classes(config.loss)
    if {"Geocross", "PairwiseCosine"} & terms and latent in ONE_VECTOR:
        yield (
            "a cross term compares the layers' vectors, and this latent has one for all; choose "
            "latent=w_plus or latent=gaussianized_w_plus, or drop the term"
        )
    if "LayeredGaussian" in terms and "offset_coarse" not in OFFSETS.get(latent, ()):
        yield (
            "prior=layered_gaussian needs a vector and offsets: choose "
            "latent=preconditioned_w_plus_plus, preconditioned_w_plus or whitened_w_plus"
        )
    if "NoiseAutocorrelation" in terms and not config.noise.trained:
        yield "prior=noise_autocorrelation: no noise input moves; set noise=all_trained"
    for prior in config.prior.values():
        if class_of(prior) == "L1Ball" and not freed(prior.of, variables(config)):
            yield (
                f"prior.l1_ball.of={list(prior.of)}: the search has none of them; it has "
                f"{', '.join(sorted(variables(config)))}"
            )


def of_phases(config: DictConfig) -> Iterator[str]:
    for number, phase in enumerate(config.phases.sequence):
        if not freed(phase.free, variables(config)):
            yield (
                f"phases: stretch {number + 1} frees {', '.join(phase.free)}, and the search has "
                f"{', '.join(sorted(variables(config)))}; choose another latent, noise or phases"
            )
        if phase.share <= 0 or phase.learning_rate <= 0:
            yield f"phases: share and learning_rate of stretch {number + 1} must be above 0"


def of_sampler(config: DictConfig) -> Iterator[str]:
    if config.search.stop == "all_solved":
        yield "optimizer=langevin: a chain that stops within eps is no draw; set search.stop=never"
    if "ConstrainedL2" in classes(config.loss):
        yield (
            "loss=constrained_l2 changes at every step and is no density to sample; choose "
            "loss=gaussian_likelihood prior=normal"
        )


def measures(config: DictConfig) -> bool:
    """Whether the low-res input is random measurements, no picture."""
    downscaler = config.downscaler
    return "GaussianMeasurements" in (class_of(downscaler), class_of(downscaler.get("then")))


def variables(config: DictConfig) -> set[str]:
    """What the optimizer may move."""
    latent = class_of(config.latent)
    found = {"latent", *OFFSETS.get(latent, ())}
    if "features" in found:
        found = found - {"features"} | {f"features_{layer}" for layer in config.latent.layers}
    return found | ({"noise"} if config.noise.trained else set())


def freed(names: list[str], available: set[str]) -> set[str]:
    """The variables that `names` mean; a name stands for all that begin with it before a `_`."""
    return {v for v in available if {"all", v, v.split("_")[0]} & set(names)}


def class_of(node: DictConfig | None) -> str:
    """The name of the class behind an option; empty if there is none."""
    return str(node.get("_target_", "")).rsplit(".", 1)[-1] if node else ""


def classes(group: DictConfig) -> set[str]:
    """Of a group that takes several options."""
    return {class_of(node) for node in group.values()}
