"""What a search minimises: named terms with one value a row, evaluated at a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.bilateral import noise_variance
from pulse_exp.compression import as_saved, cells, fits_blocks, qualities
from pulse_exp.generators.base import Generator
from pulse_exp.latents import Latent
from pulse_exp.noise import NoiseInputs
from pulse_exp.operators import Downscaler
from pulse_exp.operators.blurred import Blurred, blur_matrices
from pulse_exp.rows import Rows
from pulse_exp.starts import LinearEstimate, Regression, generator_draws


@dataclass
class Point:
    """One point of every row's search and what the terms may read of it.

    Attributes:
        variables: what the optimizer moves, each `[B, ...]`.
        coordinates: the latent in its own coordinates `[B, n, d]`, on which priors speak.
        ws: style vectors `[B, num_ws, w_dim]`, or None for a latent that has none.
        sr_lr: the downscaled image `[B, 3, h, w]`, as it compares with the low-res input `lr`, of
            the same shape.
        lr_mse: the downscaling error `[B]`, mean squared over pixels and channels.
        eps: the downscaling error of a solved row.
        is_image: whether `lr` is a picture, not measurements laid out as one.
        counts: what pixels count at this step of a search that attends to the face first, 1 on
            average; None if all count alike.
        terms: the weighted value of each term `[B]`, once evaluated.
    """

    variables: Mapping[str, Tensor]
    coordinates: Float[Tensor, "B n d"]
    ws: Tensor | None
    sr_lr: Float[Tensor, "B 3 h w"]
    lr: Float[Tensor, "B 3 h w"]
    lr_mse: Float[Tensor, " B"]
    eps: float
    is_image: bool = True
    counts: Float[Tensor, "B 1 h w"] | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Float[Tensor, " B"]:
        return sum(self.terms.values())  # type: ignore[return-value]

    @cached_property
    def noise(self) -> Float[Tensor, " B"]:
        """The variance of the white noise in what is left of a picture; 0 of measurements."""
        if not self.is_image:
            return torch.zeros_like(self.lr_mse.detach())
        return noise_variance((self.lr - self.sr_lr).detach())

    def detached(self) -> Point:
        """The same numbers without the graph behind them, which holds the generator's memory."""
        return replace(
            self,
            variables={name: value.detach() for name, value in self.variables.items()},
            coordinates=self.coordinates.detach(),
            ws=None if self.ws is None else self.ws.detach(),
            sr_lr=self.sr_lr.detach(),
            lr_mse=self.lr_mse.detach(),
            terms={name: value.detach() for name, value in self.terms.items()},
        )


class Term:
    """One term of the objective.

    Attributes:
        weight: factor on the value.
        reads_image: whether it looks at the picture (a loss) or at the latent alone (a prior).
        aim: the share of eps that it works towards.
        attended: the share of the steps in which a data term lets the face count for more.
    """

    weight: float = 1.0
    reads_image: bool = True
    aim: float = 1.0
    attended: float = 0.0

    def prepare(self, generator: Generator) -> None:
        """Reads what the term needs of the generator, once."""

    def start(self, variables: Mapping[str, Tensor]) -> Rows:
        """What the term remembers of each row that starts there; nothing unless it says so."""
        return {}

    def __call__(self, point: Point, state: Rows) -> Float[Tensor, " B"]:
        """The value of each row, before the weight."""
        raise NotImplementedError

    def update(self, point: Point, state: Rows) -> Rows:
        """What the term remembers after a step from `point`."""
        return state


class Objective:
    """Generator, latent, downscaler and terms as one function of the variables.

    Args:
        steps: of a search.
        estimates_blur: an input's blur, where the generator's draws tell of it, is assumed after
            the downscaler.
        estimates_compression: of an input that was saved as JPEG only what the file tells counts.

    Attributes:
        level: the downscaling error that the terms work towards, eps or less.
    """

    def __init__(
        self,
        generator: Generator,
        latent: Latent,
        noise: NoiseInputs,
        downscaler: Downscaler,
        terms: Mapping[str, Term],
        eps: float,
        steps: int,
        estimates_blur: bool = False,
        estimates_compression: bool = False,
    ) -> None:
        self.generator, self.latent, self.noise = generator, latent, noise
        self.downscaler, self.terms, self.eps = downscaler, dict(terms), eps
        self.estimates_blur, self.estimates_compression = estimates_blur, estimates_compression
        self.level = eps * min((term.aim for term in self.terms.values()), default=1.0)
        for term in self.terms.values():
            term.prepare(generator)
        self.estimate: LinearEstimate | None = None
        if latent.start_at == "estimate":
            draws = generator_draws(generator)
            self.estimate = LinearEstimate(draws, downscaler, generator.resolution)
        self.attended_steps = steps * max((t.attended for t in self.terms.values()), default=0.0)
        self.attention: Tensor | None = None
        if self.estimate is not None and downscaler.is_image and self.attended_steps:
            size = downscaler.output_size(generator.resolution, generator.resolution)
            self.attention = self.estimate.attention(size).to(latent.device, torch.float32)

    def observation(self, lr: Float[Tensor, "B 3 h w"]) -> Rows:
        """What a search has of its inputs: `lr`, and where they are estimated its `blurs` and what
        its `file` tells."""
        observation: Rows = {"lr": lr}
        told = self.told(lr)
        if self.estimates_blur and "lr_blur" in told:
            observation["blurs"] = blur_matrices(told["lr_blur"], lr.shape[-1])
        if self.estimates_compression and "lr_jpeg" in told:
            observation["file"] = cells(lr, told["lr_jpeg"])
        return observation

    def told(self, lr: Float[Tensor, "B 3 h w"]) -> dict[str, Tensor]:
        """What can be told of inputs beside the pixels, `[B]` each: `lr_jpeg`, their quality as
        JPEG, and `lr_blur`, their blur in pixels, 0 where they have none.

        What quantisation took for 0 is no blur: of a JPEG that is known none is told.
        """
        told: dict[str, Tensor] = {}
        if self.downscaler.is_image and self.downscaler.factor > 1 and fits_blocks(lr):
            told["lr_jpeg"] = qualities(lr)
        blur = None if self.estimate is None else self.estimate.blur(lr)
        if blur is not None:
            known = self.estimates_compression and "lr_jpeg" in told
            told["lr_blur"] = torch.where(told["lr_jpeg"] > 0, 0, blur) if known else blur
        return told

    def measurement(self, observation: Rows) -> Downscaler:
        """What is assumed to have made the inputs of an `observation` from the images."""
        if "blurs" in observation:
            return Blurred(self.downscaler, observation["blurs"])
        return self.downscaler

    def about(self, lr: Float[Tensor, "B 3 h w"]) -> list[Regression]:
        """What the starts of the inputs are estimated by: one for each, none without estimates."""
        return [] if self.estimate is None else self.estimate.about(lr)

    def distances(self, inputs: Sequence[Regression], point: Point) -> Float[Tensor, " B"]:
        """How far starts are from the inputs: those that are estimated, by what pixels count."""
        if self.estimate is None:
            return point.lr_mse
        return self.estimate.distances(inputs, point.sr_lr)

    def start_latent(
        self,
        inputs: Sequence[Regression],
        rngs: Sequence[torch.Generator],
        restarts: Sequence[int],
        number: int,
    ) -> dict[str, Tensor]:
        """The latent's first variables of a row for each low-res input.

        Args:
            inputs: what `about` says of them.
            number: which of the starts that a search chooses from.
        """
        if self.estimate is None:
            return self.latent.start(rngs, restarts)
        first = [restart == 0 and number == 0 for restart in restarts]
        return self.latent.between(self.estimate.styles, self.estimate(inputs, rngs, first))

    def corrected(
        self,
        variables: Mapping[str, Tensor],
        inputs: Sequence[Regression],
        sr_lr: Float[Tensor, "B 3 h w"],
    ) -> dict[str, Tensor]:
        """The variables of an estimated start, moved by what its downscaled image still lacks."""
        assert self.estimate is not None
        moved = self.latent.between(self.estimate.styles, self.estimate.correction(inputs, sr_lr))
        return {**variables, "latent": variables["latent"] + moved["latent"]}

    def counts(self, rows: Rows) -> Float[Tensor, "B 1 h w"] | None:
        """What pixels count at the rows' steps: at first the face for more, at last all alike."""
        if self.attention is None:
            return None
        alike = (rows["step"] / self.attended_steps).clamp(max=1)[:, None, None, None]
        return self.attention + alike * (1 - self.attention)

    def start(self, variables: Mapping[str, Tensor]) -> Rows:
        """The terms' memories of new rows."""
        return {name: term.start(variables) for name, term in self.terms.items()}

    def image(
        self, rows: Rows, variables: Mapping[str, Tensor], ws: Tensor | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        """The images of variables; `rows` gives what does not move, such as noise inputs.

        Args:
            ws: their style vectors, where they are known already.
        """
        known = {**rows["constants"], **variables}
        noise = self.noise.inputs(self.generator, variables, rows["constants"])
        ws = self.latent.ws(known) if ws is None else ws
        return self.latent.image_from(ws, self.generator, known, noise)

    def __call__(self, rows: Rows, variables: Mapping[str, Tensor]) -> Point:
        """The point of `variables` with every term evaluated."""
        ws = self.latent.ws({**rows["constants"], **variables})
        sr_lr = as_saved(self.measurement(rows)(self.image(rows, variables, ws)), rows)
        lr = rows["lr"]
        point = Point(
            variables=variables,
            coordinates=self.latent.coordinates(variables),
            ws=ws,
            sr_lr=sr_lr,
            lr=lr,
            lr_mse=(sr_lr - lr).square().flatten(1).mean(1),
            eps=self.eps,
            is_image=self.downscaler.is_image,
            counts=self.counts(rows),
        )
        for name, term in self.terms.items():
            point.terms[name] = term.weight * term(point, rows["terms"][name])
        return point

    def update(self, rows: Rows, point: Point) -> Rows:
        return {name: term.update(point, rows["terms"][name]) for name, term in self.terms.items()}

    def penalty(self, point: Point) -> Float[Tensor, " B"]:
        """The terms that do not look at the picture, summed: how far from the prior a row is."""
        values = [v for name, v in point.terms.items() if not self.terms[name].reads_image]
        return sum(values) if values else point.lr_mse  # type: ignore[return-value]
