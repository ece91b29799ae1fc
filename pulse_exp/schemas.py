"""The schema of every option: what may be set, of which type, with which default.

`conf/<group>/<option>.yaml` starts from `schema/<group>/<option>`, its dataclass here, so that an
unknown key or a wrong type fails while the configuration is composed. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Union

from omegaconf import II, MISSING

SCHEMAS: dict[str, dict[str, type]] = {}
"""group -> option -> its dataclass."""


def option(group: str, *names: str) -> Any:
    """Registers a dataclass as the schema of `conf/<group>/<name>.yaml` for each of the names."""

    def register(schema: type) -> type:
        schema = dataclass(schema)
        for name in names:
            SCHEMAS.setdefault(group, {})[name] = schema
        return schema

    return register


# --- generators -----------------------------------------------------------------------------


@option("generator", "mobile_stylegan")
class MobileStyleGAN:
    """`weights`: a training checkpoint of the upstream repository instead of the published file."""

    _target_: str = "pulse_exp.generators.load"
    source: str = "mobile_stylegan"
    weights: str | None = None


@option("generator", "stylegan1")
class StyleGAN1:
    """`weights`: synthesis.pt, mapping.pt or the folder of both; `mapping`: a mapping.pt that lies
    elsewhere."""

    _target_: str = "pulse_exp.generators.load"
    source: str = "stylegan1"
    weights: str | None = None
    mapping: str | None = None


@option("generator", "file", "stylegan2", "stylegan3")
class ConditionalGenerator:
    """`weights`: the file; `class_index`: which class to draw, where the file knows classes."""

    _target_: str = "pulse_exp.generators.load"
    source: str = MISSING
    weights: str | None = None
    class_index: int | None = None


@option("generator", "progan", "dcgan")
class PlainGenerator:
    """`weights`: the file; dcgan without one is a published face generator."""

    _target_: str = "pulse_exp.generators.load"
    source: str = MISSING
    weights: str | None = None


@option("generator", "toy")
class Toy:
    _target_: str = "pulse_exp.generators.load"
    source: str = "toy"
    resolution: int = 64
    seed: int = 0


# --- noise inputs of the generator ----------------------------------------------------------


@option("noise", "fixed", "random", "resampled", "trainable", "all_trained", "visible_trained")
class Noise:
    """`source`: the generator's own maps, one random draw a row, or a fresh draw at every step.
    The first `trained` noise inputs, or the `visible` ones of no more pixels a side than the
    low-res image, are search variables that begin there, move after a share of `released` of the
    steps and, with a `weight`, pay it for a squared change of one pixel and keep their norms; the
    last `zeroed` are zero."""

    _target_: str = "pulse_exp.noise.NoiseInputs"
    source: str = "own"
    trained: Union[int, str] = 0  # noqa: UP007
    zeroed: int = 0
    released: float = 0.0
    weight: float = 0.0


# --- latents --------------------------------------------------------------------------------


@dataclass
class Start:
    """`start`: "random"; "mean" for an image's first search; or "estimate", from the low-res input
    by some of the generator's own images. Of `draws` > 1 starts the one with the lowest
    downscaling error is taken, of estimates with the face counted for more. `corrections`: so many
    times the nearer half of the estimates is rendered and corrected by what its image still
    lacks."""

    start: str = "random"
    draws: int = 1
    corrections: int = 0


@option("latent", "z")
class Z(Start):
    _target_: str = "pulse_exp.latents.Z"


@option("latent", "w")
class W(Start):
    _target_: str = "pulse_exp.latents.W"
    statistics_draws: int = 250_000


@option("latent", "w_plus")
class WPlus(Start):
    _target_: str = "pulse_exp.latents.WPlus"
    statistics_draws: int = 250_000


@option("latent", "gaussianized_w_plus")
class GaussianizedWPlus(Start):
    _target_: str = "pulse_exp.latents.GaussianizedWPlus"
    statistics_draws: int = 1_000_000


@option("latent", "whitened_w")
class WhitenedW(Start):
    _target_: str = "pulse_exp.latents.WhitenedW"
    statistics_draws: int = 250_000


@option("latent", "whitened_w_plus", "estimated_w_plus")
class WhitenedWPlus(Start):
    """One shared vector and an offset for each layer, all in whitened coordinates. `released`: the
    share of the steps after which the offsets of the last five eighths of the layers move; their
    steps grow for half as many more, those of the other layers from the first step on."""

    _target_: str = "pulse_exp.latents.WhitenedWPlus"
    start: str = "mean"
    statistics_draws: int = 250_000
    released: float = 0.0


@option("latent", "preconditioned_w_plus")
class PreconditionedWPlus(WhitenedWPlus):
    """`sensitivity_draws`: images of the generator, once, from which it is worked out which
    directions the low-res image sees; `resolved`: the mean square change of a low-res pixel, by a
    unit step along a direction, above which the steps there are shorter."""

    _target_: str = "pulse_exp.latents.PreconditionedWPlus"
    sensitivity_draws: int = 128
    resolved: float = 0.0016


@option("latent", "preconditioned_w_plus_plus")
class PreconditionedWPlusPlus(PreconditionedWPlus):
    """`filter_spread`: the unit of a filter's departure from its style, as a share of the standard
    deviation that the generator gives it."""

    _target_: str = "pulse_exp.latents.PreconditionedWPlusPlus"
    filter_spread: float = 0.6


@option("latent", "perturbed_w")
class PerturbedW(Start):
    """`perturbation`: first standard deviation of the noise on w, in units of w's own;
    `fading`: the share of the steps after which it is gone."""

    _target_: str = "pulse_exp.latents.PerturbedW"
    start: str = "mean"
    statistics_draws: int = 250_000
    perturbation: float = 0.05
    fading: float = 0.75


@option("latent", "w_plus_plus")
class WPlusPlus(Start):
    _target_: str = "pulse_exp.latents.WPlusPlus"
    start: str = "mean"
    statistics_draws: int = 250_000


@option("latent", "intermediate_layers")
class IntermediateLayers(Start):
    """`layers`: after which of the generator's layers features are variables; 0 is the coarsest."""

    _target_: str = "pulse_exp.latents.IntermediateLayers"
    statistics_draws: int = 1_000_000
    layers: list[int] = field(default_factory=lambda: [1, 2, 3])


# --- priors ---------------------------------------------------------------------------------


@option("prior", "sphere")
class Sphere:
    """`radius`: null is sqrt(d), right for Gaussian coordinates only."""

    _target_: str = "pulse_exp.priors.Sphere"
    radius: float | None = None


@option("prior", "l1_ball")
class L1Ball:
    """`of`: names of the variables, `features` for all of `features_<layer>`; `radius`: the
    largest sum of absolute changes from the start, of each (1000: ILO's released value)."""

    _target_: str = "pulse_exp.priors.L1Ball"
    of: list[str] = field(default_factory=lambda: ["features"])
    radius: float = 1000.0


@option("prior", "gaussian", "normal")
class Gaussian:
    _target_: str = "pulse_exp.priors.Gaussian"
    weight: float = 0.001


@option("prior", "layered_gaussian")
class LayeredGaussian:
    """`vector`: weight of the shared vector's square; `coarse`, `fine`: of the offsets' in the
    first three eighths of the layers and in the others."""

    _target_: str = "pulse_exp.priors.LayeredGaussian"
    weight: float = 1.0
    vector: float = 0.2
    coarse: float = 12.0
    fine: float = 190.0


@option("prior", "cross")
class Cross:
    """`of`: "coordinates", or "styles": which vectors of the layers are compared."""

    _target_: str = "pulse_exp.priors.Geocross"
    weight: float = 0.05
    of: str = "coordinates"


@option("prior", "pairwise_cosine")
class PairwiseCosine:
    """`of`: "coordinates", or "styles": which vectors of the layers are compared. `weight`: BRGM's
    released 3 beside 0.001 times the squared error in 8-bit units, for loss=l2."""

    _target_: str = "pulse_exp.priors.PairwiseCosine"
    weight: float = 4.4
    of: str = "styles"


@option("prior", "p_norm")
class PNorm:
    """`weight`: for loss=l2, 32×32 pixels and noise of variance 1e-3 that of the exact posterior
    of one vector of 512, 100 · 1e-3 · 512 / 3072."""

    _target_: str = "pulse_exp.priors.PNorm"
    weight: float = 0.017
    statistics_draws: int = 250_000


@option("prior", "style_gaussian")
class StyleGaussian:
    """`weight`: BRGM's released 100 beside 0.001 times the squared error in 8-bit units, for
    loss=l2; its unit is the norm of 512 standard deviations, here it is one."""

    _target_: str = "pulse_exp.priors.StyleGaussian"
    weight: float = 0.3


@option("prior", "truncation")
class Truncation:
    """`psi`: the allowed distance from the mean style vector, in units of a typical draw's; at
    weight 1 such a draw pays 0.09, as for an error of 9e-4 at loss=l2."""

    _target_: str = "pulse_exp.priors.Truncation"
    weight: float = 1.0
    psi: float = 0.7


@option("prior", "noise_autocorrelation")
class NoiseAutocorrelation:
    _target_: str = "pulse_exp.priors.NoiseAutocorrelation"
    weight: float = 100_000.0


# --- losses ---------------------------------------------------------------------------------


@dataclass
class PixelLoss:
    """`floor`: "none", or "eps": the loss is constant, without a gradient, below the value it has
    for differences of sqrt(eps)."""

    weight: float = 1.0
    floor: str = "none"


@option("loss", "l2", "l2_eps")
class L2(PixelLoss):
    _target_: str = "pulse_exp.losses.L2"
    weight: float = 100.0


@option("loss", "l1", "l1_eps")
class L1(PixelLoss):
    _target_: str = "pulse_exp.losses.L1"
    weight: float = 10.0


@option("loss", "huber")
class Huber(PixelLoss):
    """`delta`: where the square ends and the straight line begins; images are in [0, 1]."""

    _target_: str = "pulse_exp.losses.Huber"
    weight: float = 100.0
    delta: float = 0.05


@option("loss", "lp")
class Lp(PixelLoss):
    """`p`: the power, above 0."""

    _target_: str = "pulse_exp.losses.Lp"
    weight: float = 10.0
    p: float = 1.5


@option("loss", "multi_scale")
class MultiScale:
    """`scales`: the image and its means over blocks of 2, 4, ... pixels, so many in all."""

    _target_: str = "pulse_exp.losses.MultiScale"
    weight: float = 100.0
    scales: int = 4


@option("loss", "gaussian_likelihood")
class GaussianLikelihood:
    """`std`: of the noise in the low-res image, in 8-bit units."""

    _target_: str = "pulse_exp.losses.GaussianLikelihood"
    std: float = 8.0


@option("loss", "lpips")
class Lpips:
    _target_: str = "pulse_exp.losses.Lpips"
    weight: float = 1.0


@option("loss", "geocross")
class GeocrossLoss(Cross):
    """GEOCROSS as a part of loss=pulse."""


@option("loss", "constrained_l2")
class ConstrainedL2:
    """`start`: the multiplier's first value; `rate`: how far its logarithm moves in a step, up
    above the level, down within it; `aim`: the level as a share of eps; `attended`: the share of
    the steps in which pixels of the face count for more, where starts are estimated."""

    _target_: str = "pulse_exp.losses.ConstrainedL2"
    start: float = 0.05
    rate: float = 0.08
    aim: float = 0.5
    attended: float = 0.3


# --- optimizers and schedules ---------------------------------------------------------------


@option("optimizer", "adam", "spherical_adam", "plain_adam")
class Adam:
    _target_: str = "pulse_exp.optimizers.Adam"
    learning_rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    sphere: bool = False


@option("optimizer", "adamax")
class Adamax(Adam):
    _target_: str = "pulse_exp.optimizers.Adamax"


@option("optimizer", "sgd", "momentum")
class SGD:
    _target_: str = "pulse_exp.optimizers.SGD"
    learning_rate: float = 0.1
    momentum: float = 0.0
    sphere: bool = False


@option("optimizer", "normalised_gradient")
class NormalisedGradientDescent:
    _target_: str = "pulse_exp.optimizers.NormalisedGradientDescent"
    learning_rate: float = 0.08
    sphere: bool = False


@option("optimizer", "lbfgs")
class LBFGS:
    """`history`: past steps that shape the next one."""

    _target_: str = "pulse_exp.optimizers.LBFGS"
    learning_rate: float = 0.5
    history: int = 10
    sphere: bool = False


@option("optimizer", "langevin", "annealed_langevin")
class Langevin:
    """`learning_rate`: the step, stable below 2 / the objective's largest curvature;
    `temperature`: 1 samples exp(-objective); annealing begins at `hot` times that and ends after
    the share `cooling` of the steps."""

    _target_: str = "pulse_exp.optimizers.Langevin"
    learning_rate: float = 1e-5
    temperature: float = 1.0
    hot: float = 1.0
    cooling: float = 0.0
    sphere: bool = False


@option("schedule", "fixed")
class Fixed:
    _target_: str = "pulse_exp.schedules.Fixed"


@option("schedule", "linear1cycle")
class Linear1Cycle:
    _target_: str = "pulse_exp.schedules.Linear1Cycle"


@option("schedule", "cosine")
class Cosine:
    _target_: str = "pulse_exp.schedules.Cosine"


@option("schedule", "linear1cycledrop")
class Linear1CycleDrop:
    _target_: str = "pulse_exp.schedules.Linear1CycleDrop"


@option("schedule", "ramped")
class Ramped:
    """`warm_up`, `ramp_down`: shares of the steps at the beginning and at the end."""

    _target_: str = "pulse_exp.schedules.Ramped"
    warm_up: float = 0.05
    ramp_down: float = 0.25


@option("schedule", "cosine_ramped")
class CosineRamped(Ramped):
    _target_: str = "pulse_exp.schedules.CosineRamped"


# --- phases ---------------------------------------------------------------------------------


@dataclass
class Phase:
    """A stretch of the search. `share` of the steps; `free`: the variables that move, or ["all"];
    `learning_rate`: factor on the optimizer's."""

    share: float = 1.0
    free: list[str] = field(default_factory=lambda: ["all"])
    learning_rate: float = 1.0


@option("phases", "single", "w_w_plus", "w_w_plus_filters", "w_w_plus_noise", "layer_by_layer")
class Phases:
    _target_: str = "pulse_exp.schedules.Phases"
    _convert_: str = "all"
    sequence: list[Phase] = field(default_factory=lambda: [Phase()])


# --- downscalers (what the search assumes) ---------------------------------------------------


@option("downscaler", "bicubic")
class Bicubic:
    _target_: str = "pulse_exp.operators.downscalers.Bicubic"
    factor: int = 32


@option("downscaler", "bicubic_pil")
class BicubicPil:
    _target_: str = "pulse_exp.operators.downscalers.BicubicPil"
    factor: int = 32


@option("downscaler", "bilinear")
class Bilinear:
    _target_: str = "pulse_exp.operators.downscalers.Bilinear"
    factor: int = 32


@option("downscaler", "area")
class Area:
    _target_: str = "pulse_exp.operators.downscalers.Area"
    factor: int = 32


@option("downscaler", "lanczos")
class Lanczos:
    _target_: str = "pulse_exp.operators.downscalers.Lanczos"
    factor: int = 32


@option("downscaler", "nearest")
class Nearest:
    _target_: str = "pulse_exp.operators.downscalers.Nearest"
    factor: int = 32


@option("downscaler", "gaussian")
class GaussianStride:
    """`sigma`: in low-res pixels."""

    _target_: str = "pulse_exp.operators.downscalers.Gaussian"
    factor: int = 32
    sigma: float = 0.5


@option("downscaler", "identity")
class Identity:
    _target_: str = "pulse_exp.operators.measurements.Identity"
    factor: int = 1


@option("downscaler", "block_mask")
class KnownBlock:
    """The hidden rectangle in parts of the image's sides, from 0 to 1."""

    _target_: str = "pulse_exp.operators.measurements.BlockMask"
    factor: int = 1
    top: float = 0.25
    left: float = 0.25
    height: float = 0.5
    width: float = 0.5


@option("downscaler", "random_mask")
class KnownPixels:
    """`rate`: the part of the pixels that is hidden."""

    _target_: str = "pulse_exp.operators.measurements.RandomMask"
    factor: int = 1
    rate: float = 0.5
    seed: int = 0


@option("downscaler", "gaussian_measurements")
class GaussianMeasurements:
    """`factor`: the square root of pixels for one measurement."""

    _target_: str = "pulse_exp.operators.measurements.GaussianMeasurements"
    factor: int = 2
    seed: int = 0


@option("downscaler", "composed")
class Composed:
    """`factor`: of both together; `first` reduces by what `then` leaves of it."""

    _target_: str = "pulse_exp.operators.measurements.Composed"
    factor: int = 32
    first: Any = MISSING
    then: Any = MISSING


# --- degradations (what really happened) ------------------------------------------------------


@option("degradation", "gaussian_noise")
class GaussianNoise:
    """`std`: in 8-bit levels."""

    _target_: str = "pulse_exp.operators.degradations.GaussianNoise"
    std: float = 25.0


@option("degradation", "poisson")
class Poisson:
    """`photons`: the mean count at a value of 1."""

    _target_: str = "pulse_exp.operators.degradations.Poisson"
    photons: float = 30.0


@option("degradation", "salt_and_pepper")
class SaltAndPepper:
    """`rate`: the part of the pixels that turns white or black."""

    _target_: str = "pulse_exp.operators.degradations.SaltAndPepper"
    rate: float = 0.05


@option("degradation", "motion_blur")
class MotionBlur:
    """`length`: in high-res pixels; `angle`: in degrees anticlockwise from the horizontal, null =
    one drawn for each image."""

    _target_: str = "pulse_exp.operators.blurs.MotionBlur"
    length: float = 100.0
    angle: float | None = None


@option("degradation", "gaussian_blur")
class GaussianBlur:
    """`sigma`: in high-res pixels."""

    _target_: str = "pulse_exp.operators.blurs.GaussianBlur"
    sigma: float = 32.0


@option("degradation", "defocus")
class Defocus:
    """`radius`: of the circle of confusion, in high-res pixels."""

    _target_: str = "pulse_exp.operators.blurs.Defocus"
    radius: float = 48.0


@option("degradation", "jpeg")
class Jpeg:
    """`quality`: from 1 to 95."""

    _target_: str = "pulse_exp.operators.degradations.Jpeg"
    quality: int = 30


@option("degradation", "colour_cast")
class ColourCast:
    """`strength`: each channel's factor lies within 1 ± strength."""

    _target_: str = "pulse_exp.operators.degradations.ColourCast"
    strength: float = 0.3


@option("degradation", "grey")
class Grey:
    _target_: str = "pulse_exp.operators.degradations.Grey"


@option("degradation", "block_mask")
class HiddenBlock:
    """`side`: the square's side as a part of the image's."""

    _target_: str = "pulse_exp.operators.degradations.HiddenBlock"
    side: float = 0.25


@option("degradation", "random_mask")
class HiddenPixels:
    """`rate`: the part of the pixels that turns black."""

    _target_: str = "pulse_exp.operators.degradations.HiddenPixels"
    rate: float = 0.25


@option("degradation", "wrong_downscaler")
class WrongDownscaler:
    """`kind`: bicubic, bicubic_pil, bilinear, area, lanczos, nearest or gaussian."""

    _target_: str = "pulse_exp.operators.degradations.WrongDownscaler"
    kind: str = "area"
    factor: int = II("downscaler.factor")


@option("degradation", "second_order")
class SecondOrder:
    _target_: str = "pulse_exp.operators.second_order.SecondOrder"
    factor: int = II("downscaler.factor")


# --- refinements after the search -------------------------------------------------------------


@option("refine", "back_projection")
class BackProjection:
    _target_: str = "pulse_exp.refine.BackProjection"


@option("refine", "bilateral_back_projection")
class BilateralBackProjection:
    """`colour_spread`: the distance in RGB that counts as another colour; `edges`: the contrast at
    which half of a difference is believed; `far`: the difference in RGB from which it counts
    little."""

    _target_: str = "pulse_exp.refine.BilateralBackProjection"
    colour_spread: float = 0.1
    edges: float = 0.5
    far: float = 0.5


@option("refine", "pivotal_tuning")
class PivotalTuning:
    """`steps`, `learning_rate`: of Adam on a copy of the generator's weights; `locality`: weight
    of the change to nearby images; `reach`: how far away those are, 1 = any random draw."""

    _target_: str = "pulse_exp.refine.PivotalTuning"
    steps: int = 50
    learning_rate: float = 3e-4
    locality: float = 0.1
    reach: float = 0.5


# --- baselines (no search) -------------------------------------------------------------------


@option("baseline", "nearest", "bicubic", "lanczos")
class Enlarge:
    _target_: str = "pulse_exp.baselines.Enlarge"
    kind: str = MISSING


@option("baseline", "truth")
class Truth:
    _target_: str = "pulse_exp.baselines.Truth"


@option("baseline", "precomputed")
class Precomputed:
    """`root`: a folder with one image file named by each image's id."""

    _target_: str = "pulse_exp.baselines.Precomputed"
    root: str = MISSING


# --- data -----------------------------------------------------------------------------------


@option("data", "portrait")
class Portrait:
    """`centre`, `axis`: the FFHQ crop in pixels of the 512×512 original: the middle of the square
    and the vector from there to the middle of its right edge, (x, y) each."""

    _target_: str = "pulse_exp.data.Portrait"
    centre: tuple[float, float] = MISSING
    axis: tuple[float, float] = MISSING


@option("data", "folder")
class Folder:
    """`facts`: a csv beside the images whose column `id` names the file; its other columns travel
    into the records as note_*. `shard`: "i/n" takes every n-th image from the i-th on, i < n."""

    _target_: str = "pulse_exp.data.Folder"
    root: str = MISSING
    limit: int | None = None
    shard: str = "0/1"
    facts: str | None = None


@option("data", "photos")
class Photos:
    """`min_face`: side of the smallest face used, in pixels of the photo; `max_faces` of a photo,
    the largest, null = all; `order`: how its faces are numbered, "size" or "left_to_right"."""

    _target_: str = "pulse_exp.photos.Photos"
    root: str = MISSING
    mode: str = II("mode")
    factor: int = II("downscaler.factor")
    min_face: float = 0
    max_faces: int | None = None
    order: str = "size"
    limit: int | None = None
    shard: str = "0/1"


@option("data", "low_res")
class LowRes:
    _target_: str = "pulse_exp.data.LowResFolder"
    root: str = MISSING
    limit: int | None = None
    shard: str = "0/1"
    facts: str | None = None


@option("data", "generated")
class Generated:
    _target_: str = "pulse_exp.data.Generated"
    count: int = 4
    limit: int | None = None
    shard: str = "0/1"


# --- logger, trainer ------------------------------------------------------------------------


@option("logger", "wandb")
class Wandb:
    """`mode`: "auto" is online when an account is set up on this machine, offline otherwise."""

    name: str = "wandb"
    project: str = "pulse-exp"
    entity: str | None = None
    mode: str = "auto"
    every_steps: int = 5
    images_every_steps: int = 50


@option("logger", "csv", "tensorboard", "none")
class OtherLogger:
    name: str = MISSING
    every_steps: int = 5
    images_every_steps: int = 50


@option("trainer", "auto", "cpu", "gpu")
class Trainer:
    """`accelerator`: "auto" (a GPU where there is one), "cpu" or "gpu"; `checkpoint_seconds`: how
    often a running search is saved, 0 = never; `steps_per_call`: optimiser steps in one
    training_step, null = 1 on a CPU and 10 on a GPU; `precision` of the generator: "float32" or
    "bf16" (loss and downscaling error are in float32 always); `compile`: torch.compile it."""

    accelerator: str = "auto"
    checkpoint_seconds: float = 60.0
    steps_per_call: int | None = None
    threads: int | None = None
    precision: str = "float32"
    compile: bool = False


def fields_of(schema: type) -> list[str]:
    """The names of the values that a user may set in an option."""
    return [f.name for f in dataclasses.fields(schema) if not f.name.startswith("_")]
