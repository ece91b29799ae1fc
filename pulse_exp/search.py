"""The search: rows of latent variables moved until their images downscale to their inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import DeviceMemoryError
from pulse_exp.objective import Objective, Point
from pulse_exp.optimizers import Optimizer
from pulse_exp.priors import Prior
from pulse_exp.problem import Candidate
from pulse_exp.rows import Rows, join, move, select, where
from pulse_exp.schedules import Phases, Schedule
from pulse_exp.seeding import RandomGenerators, random_generator
from pulse_exp.start_race import race
from pulse_exp.starts import Regression


@dataclass
class Start:
    """A search to be run: one restart on one low-res image `[3, h, w]`."""

    image: str
    restart: int
    lr: Float[Tensor, "3 h w"]


@dataclass
class Slot:
    """The host's side of a row: whose search it is, its age and its time so far.

    `age` counts the points that were evaluated; a full search has `steps + 1` of them.
    """

    image: str
    restart: int
    age: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, start: Start) -> Slot:
        return cls(start.image, start.restart)


@dataclass
class Settings:
    """The numbers of a search; see `pulse_exp.config.Search`."""

    steps: int
    eps: float
    stop: str
    seed: int


class LatentSearch(pl.LightningModule):
    """Searches as one Lightning `fit`: a batch of rows, refilled from those that wait.

    A row that is done (all its steps, or within eps with `stop="all_solved"`, or not finite)
    leaves and the next waiting one takes its place. Rows never talk to one another, so a row's
    result does not depend on the batch it was in. Where the device's memory does not hold the
    batch, half of its rows are set aside on the host, to come back when others have left.

    Args:
        objective: what is minimised.
        optimizer, schedule, phases: how the variables move.
        settings: steps, eps, stop rule, seed.
        waiting: the searches to run.
        batch_size: rows at a time.
        finished: called with each Candidate, its variables and curves included.
        steps_per_call: steps in one `training_step`.
        shrunk: called with the new size when the batch had to be halved.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Schedule,
        phases: Phases,
        settings: Settings,
        waiting: Iterator[Start],
        batch_size: int,
        finished: Callable[[Candidate], None],
        steps_per_call: int = 1,
        shrunk: Callable[[int], None] = lambda size: None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.objective, self.optimizer = objective, optimizer
        self.schedule, self.phases, self.settings = schedule, phases, settings
        self.waiting, self.batch_size = waiting, batch_size
        self.finished, self.shrunk = finished, shrunk
        self.steps_per_call = steps_per_call
        self.rows: Rows = {}
        self.slots: list[Slot] = []
        self.aside: list[tuple[Slot, Rows]] = []
        self.resumed: set[tuple[str, int]] = set()
        self.rates: dict[str, Tensor] = {}
        self.point: Point | None = None
        self.drained = False

    # --- Lightning's side ---------------------------------------------------------------------

    def configure_optimizers(self) -> None:
        return None

    def train_dataloader(self) -> Iterator[int]:
        """Ticks until no search is left."""
        tick = 0
        while not self.drained:
            yield tick
            tick += 1

    def on_fit_start(self) -> None:
        self.refill()

    def training_step(self, batch: int, batch_idx: int) -> None:
        if not self.slots:
            self.drained = True
            return
        began = time.perf_counter()
        for _ in range(self.steps_per_call):
            while not fits(self.advance):
                self.shrink(len(self.slots))
        done = self.rows["done"].tolist()  # the only wait for the device
        share = (time.perf_counter() - began) / len(self.slots)
        for slot in self.slots:
            slot.seconds += share
        if any(done):
            self.leave(done)
            self.refill()
        self.drained = not self.slots

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        pairs = [*self.aside, *((slot, self.row(i)) for i, slot in enumerate(self.slots))]
        checkpoint["search"] = [
            {"slot": vars(slot), "row": move(row, "cpu")} for slot, row in pairs
        ]

    def load(self, checkpoint: dict[str, Any], wanted: Collection[tuple[str, int]]) -> None:
        """Takes up the saved searches that are still wanted, as (image, restart)."""
        pairs = [(Slot(**saved["slot"]), saved["row"]) for saved in checkpoint["search"]]
        self.aside = [(s, row) for s, row in pairs if (s.image, s.restart) in wanted]
        self.resumed = {(slot.image, slot.restart) for slot, _ in self.aside}

    # --- rows come and go ---------------------------------------------------------------------

    def refill(self) -> None:
        """Lets rows that were set aside, then waiting searches, into the free slots."""
        room = self.batch_size - len(self.slots)
        back, self.aside = self.aside[:room], self.aside[room:]
        for slot, row in back:
            self.enter([slot], move(row, self.objective.latent.device))
        fresh: list[Start] = []
        while len(self.slots) + len(fresh) < self.batch_size:
            start = next(self.waiting, None)
            if start is None:
                break
            if (start.image, start.restart) not in self.resumed:
                fresh.append(start)
        if fresh and not fits(lambda: self.enter(map(Slot.of, fresh), self.begin(fresh))):
            self.waiting = chain(fresh, self.waiting)
            self.shrink(len(self.slots) + len(fresh))
            self.refill()
        if self.rows and not self.rates:
            rates = self.phases.learning_rates(
                list(self.rows["variables"]), self.schedule, self.settings.steps
            )
            rates = self.objective.noise.held(self.objective.latent.held(rates))
            self.rates = {k: v.to(self.rows["step"].device) for k, v in rates.items()}

    def row(self, index: int) -> Rows:
        """One running row, as a batch of one."""
        return select(self.rows, torch.tensor([index]))

    def enter(self, slots: Iterable[Slot], rows: Rows) -> None:
        self.rows = join(self.rows, rows) if self.slots else rows
        self.slots = [*self.slots, *slots]

    def shrink(self, tried: int) -> None:
        """Halves a batch of `tried` rows; running rows beyond it are set aside on the host.

        Raises:
            DeviceMemoryError: not even one row fits.
        """
        if tried == 1:
            raise DeviceMemoryError
        self.batch_size = tried // 2
        leaving = range(self.batch_size, len(self.slots))
        self.aside = [(self.slots[i], move(self.row(i), "cpu")) for i in leaving] + self.aside
        self.slots = self.slots[: self.batch_size]
        self.rows = select(self.rows, torch.arange(len(self.slots)))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.shrunk(self.batch_size)

    def begin(self, starts: Sequence[Start]) -> Rows:
        """The rows of new searches, each drawn from its own random generator."""
        latent, batch = self.objective.latent, len(starts)
        rows = self.first_points(starts)
        variables = rows["variables"]
        never = torch.full((batch,), -1)
        worst = torch.full((batch,), torch.inf)
        curve = torch.full((batch, self.settings.steps + 1), torch.nan)
        names = [*self.objective.terms, "lr_mse"]
        state: Rows = {
            "done": torch.zeros(batch, dtype=torch.bool),
            "solved_step": never,
            "failed_step": never.clone(),
            "best": {"lr_mse": worst, "penalty": worst.clone(), "step": rows["step"].clone()},
            "curves": {name: curve.clone() for name in names},
        }
        state = move(state, latent.device)
        state["best"]["variables"] = {k: v.clone() for k, v in variables.items()}
        rows = {**rows, **state, "optimizer": self.optimizer.start(variables)}
        self.resample([Slot.of(start) for start in starts], rows)  # so that all rows are alike
        return rows

    @torch.no_grad()
    def first_points(self, starts: Sequence[Start]) -> Rows:
        """Where each search begins: at its only start, or at the winner of a race of them."""
        objective, latent = self.objective, self.objective.latent
        lr = torch.stack([start.lr for start in starts])
        inputs, observation = objective.about(lr), objective.observation(lr)
        draws = [self.draw(starts, inputs, observation, n) for n in range(latent.draws)]
        if len(draws) == 1 and not latent.corrections:
            return draws[0]

        def measured(rows: Rows) -> Rows:
            point = objective(rows, rows["variables"])
            distance = objective.distances(inputs, point)
            return {**rows, "distance": distance, "sr_lr": point.sr_lr}

        def corrected(rows: Rows) -> Rows:
            variables = objective.corrected(rows["variables"], inputs, rows["sr_lr"])
            return {**rows, **self.placed(variables)}

        best = race(draws, measured, corrected, latent.corrections)
        return {key: value for key, value in best.items() if key in draws[0]}

    def draw(
        self,
        starts: Sequence[Start],
        inputs: Sequence[Regression],
        observation: Rows,
        number: int,
    ) -> Rows:
        """Start number `number` of each search: variables, constants, input, terms' memories."""
        objective = self.objective
        rngs = [
            random_generator(self.settings.seed, start.image, start.restart, "start", number)
            for start in starts
        ]
        latent = objective.start_latent(inputs, rngs, [start.restart for start in starts], number)
        noise, constants = objective.noise.start(objective.generator, rngs)
        variables = move({**latent, **noise}, objective.latent.device)
        rows = {
            "step": torch.zeros(len(starts), dtype=torch.long),
            "constants": constants,
            **observation,
            **self.placed(variables),
        }
        rows = move(rows, objective.latent.device)
        self.resample([Slot(start.image, start.restart) for start in starts], rows)
        return rows

    def placed(self, variables: dict[str, Tensor]) -> Rows:
        """Variables to start from as the priors allow them, and the terms' memories of these.

        A prior that remembers the start means the one that the others have projected.
        """
        variables = self.project(variables, self.objective.start(variables))
        return {"variables": variables, "terms": self.objective.start(variables)}

    def project(self, variables: dict[str, Tensor], terms: Rows) -> dict[str, Tensor]:
        """The variables that every prior allows; `terms` are the terms' memories."""
        for name, term in self.objective.terms.items():
            if isinstance(term, Prior):
                variables = dict(term.project(variables, terms[name]))
        return variables

    def leave(self, done: Sequence[bool]) -> None:
        """Hands the done rows' candidates on and keeps the others."""
        for index, slot in enumerate(self.slots):
            if done[index]:
                self.finished(self.candidate(self.row(index), slot))
        staying = [index for index in range(len(done)) if not done[index]]
        self.slots = [self.slots[index] for index in staying]
        self.rows = select(self.rows, torch.tensor(staying, dtype=torch.long))

    @torch.no_grad()
    def candidate(self, row: Rows, slot: Slot) -> Candidate:
        """What a row of one came back with, its best image made anew from its best variables."""
        best, step = row["best"], int(row["step"])
        solved, failed = int(row["solved_step"]), int(row["failed_step"])
        curves = {name: curve[0, : step + 1].tolist() for name, curve in row["curves"].items()}
        candidate = Candidate(
            image=slot.image,
            restart=slot.restart,
            status="solved" if float(best["lr_mse"]) <= self.settings.eps else "unsolved",
            steps=step,
            seconds=slot.seconds,
            curves=curves,
        )
        if failed >= 0:
            candidate.status = "failed"
            candidate.reason = (
                f"the objective was not finite at step {failed}; lower optimizer.learning_rate"
            )
            return candidate
        self.resample([slot], row, int(best["step"]))
        candidate.constants = move(row["constants"], "cpu")
        candidate.sr = self.objective.image(row, best["variables"])[0].float().cpu()
        candidate.variables = {name: v[0].cpu() for name, v in best["variables"].items()}
        candidate.lr_mse, candidate.best_step = float(best["lr_mse"]), int(best["step"])
        candidate.solved_step = solved if solved >= 0 else None
        return candidate

    # --- one step -----------------------------------------------------------------------------

    def advance(self) -> None:
        """Evaluates every row's point, then moves the rows that have steps left."""
        rows, steps = self.rows, self.settings.steps
        self.resample(self.slots, rows)
        moving = any(slot.age < steps for slot in self.slots)
        variables = {k: v.detach().requires_grad_(moving) for k, v in rows["variables"].items()}
        with torch.set_grad_enabled(moving):
            point = self.objective(rows, variables)
        if moving:  # first what may not fit the memory: a step that failed leaves no trace
            gradients = torch.autograd.grad(
                point.total.sum(), list(variables.values()), materialize_grads=True
            )
        self.observe(rows, point)
        if moving:
            progress = [min(slot.age, steps - 1) / steps for slot in self.slots]
            rngs = self.rngs("sampler", self.slots)
            rows["optimizer"] = self.optimizer.redraw(rows["optimizer"], rngs, progress)
            self.move_rows(rows, point, dict(zip(variables, gradients, strict=True)))
        self.point = point.detached()
        for slot in self.slots:
            slot.age = min(slot.age + 1, steps + 1)

    @torch.no_grad()
    def observe(self, rows: Rows, point: Point) -> None:
        """Keeps the best point, marks rows that are solved, done or not finite, writes curves."""
        step, awake = rows["step"], ~rows["done"]
        error, penalty = point.lr_mse.detach(), self.objective.penalty(point).detach()
        finite = torch.isfinite(point.total.detach()) & torch.isfinite(error)
        solved, level = error <= self.settings.eps, self.objective.level
        inside, best = error <= level, rows["best"]
        # Within the level the point nearest to the prior is best; outside, the one nearest to it.
        best_inside = best["lr_mse"] <= level
        closer = torch.where(inside, penalty < best["penalty"], error < best["lr_mse"])
        better = awake & finite & torch.where(inside == best_inside, closer, inside)
        if self.optimizer.samples:  # the newest: the best of a chain is no draw
            better = awake & finite
        now = {"lr_mse": error, "penalty": penalty, "step": step}
        now["variables"] = {k: v.detach() for k, v in point.variables.items()}
        rows["best"] = where(better, now, best)
        first = awake & finite & solved & (rows["solved_step"] < 0)
        rows["solved_step"] = torch.where(first, step, rows["solved_step"])
        rows["failed_step"] = torch.where(awake & ~finite, step, rows["failed_step"])
        for name, value in [*point.terms.items(), ("lr_mse", error)]:
            curve, at = rows["curves"][name], step[:, None]
            new = torch.where(awake, value.detach(), curve.gather(1, at)[:, 0])
            curve.scatter_(1, at, new.to(curve.dtype)[:, None])
        ended = ~finite | (step >= self.settings.steps)
        if self.settings.stop == "all_solved":
            ended = ended | solved
        rows["done"] = rows["done"] | ended

    @torch.no_grad()
    def move_rows(self, rows: Rows, point: Point, gradients: dict[str, Tensor]) -> None:
        """One optimizer step and projection.

        A row that is done moves too until it leaves: of its point nobody asks any more.
        """
        variables = {name: v.detach() for name, v in point.variables.items()}
        at = rows["step"].clamp(max=self.settings.steps - 1)
        rates = {name: self.rates[name][at] for name in variables}
        moved, memory = self.optimizer.step(
            variables, gradients, rows["optimizer"], rates, self.objective.latent.units
        )
        terms = self.objective.update(rows, point)
        rows["variables"], rows["optimizer"] = self.project(moved, terms), memory
        rows["terms"], rows["step"] = terms, rows["step"] + ~rows["done"]

    def resample(self, slots: Sequence[Slot], rows: Rows, step: int | None = None) -> None:
        """Fresh constants of every row where noise inputs or the latent are redrawn each step.

        Args:
            step: of the draw; None is each row's own.
        """
        objective, steps = self.objective, self.settings.steps
        progress = [(slot.age if step is None else step) / steps for slot in slots]
        fresh = {
            **objective.noise.redraw(objective.generator, self.rngs("noise", slots, step)),
            **objective.latent.redraw(self.rngs("latent", slots, step), progress),
        }
        rows["constants"].update(move(fresh, objective.latent.device))

    def rngs(
        self, purpose: str, slots: Sequence[Slot], step: int | None = None
    ) -> Sequence[torch.Generator]:
        """A random generator of each row's own for one purpose at one step."""
        return RandomGenerators(
            (self.settings.seed, s.image, s.restart, purpose, s.age if step is None else step)
            for s in slots
        )


def fits(work: Callable[[], None]) -> bool:
    """Does the work; False if the device's memory was not enough.

    It returns before anything is tried again, so that the failed attempt's tensors are freed.
    """
    try:
        work()
    except torch.cuda.OutOfMemoryError:
        return False
    return True
