import itertools
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from pulse_exp.building import build, build_downscaler, build_objective
from pulse_exp.generators import load
from pulse_exp.objective import Point
from pulse_exp.problem import Candidate
from pulse_exp.rows import Rows
from pulse_exp.search import LatentSearch, Settings, Start
from tests.compose import job

TOY = load("toy", resolution=32)
STEPS, EPS = 6, 1e-3
LR = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
STARTS = [Start(f"image{i}", 0, LR[i]) for i in range(4)]
# Only phases in which something moves: after one in which nothing does, which of two steps is the
# best is up to rounding.
LAYER_PHASES = (
    "phases.sequence=[{share:1,free:[latent,noise],learning_rate:1},"
    "{share:1,free:[features_1],learning_rate:1},{share:1,free:[features_2],learning_rate:1}]"
)
KINDS = {
    "dual_ascent": ["method=dual_ascent"],
    "trained_noise": ["method=dual_ascent", "noise.weight=0"],
    "pulse": ["method=pulse"],
    "resampled": ["method=pulse", "noise=resampled"],
    "projector": ["method=stylegan2_projector"],
    "langevin": ["latent=z", "prior=normal", "loss=gaussian_likelihood", "optimizer=langevin"],
    "lbfgs": ["latent=w_plus", "prior=none", "loss=l2", "optimizer=lbfgs"],
    "best_of_three": ["method=pulse", "latent.draws=3"],
    "filters": ["method=robust_unsupervised"],
    "layers": ["method=ilo", "latent.layers=[1,2]", LAYER_PHASES],
}


@lru_cache
def composed(*words: str) -> DictConfig:
    return job("generator=toy", "generator.resolution=32", "downscaler.factor=4", *words)[0]


class Finished(dict[tuple[str, int], Candidate]):
    """Candidates by (image, restart)."""

    def __call__(self, candidate: Candidate) -> None:
        self[candidate.image, candidate.restart] = candidate


def search(
    words: Iterable[str] = KINDS["dual_ascent"],
    starts: Iterable[Start] = STARTS,
    batch_size: int = 4,
    stop: str = "never",
    eps: float = EPS,
    steps: int = STEPS,
    **options: Any,
) -> tuple[LatentSearch, Finished]:
    config = composed(*words).copy()
    if "statistics_draws" in config.latent:
        config.latent.statistics_draws = 2000
    config.search.eps = eps
    finished = Finished()
    found = LatentSearch(
        objective=build_objective(config, TOY, build_downscaler(config, 4, 32)),
        optimizer=build(config.optimizer),
        schedule=build(config.schedule),
        phases=build(config.phases),
        settings=Settings(steps, eps, stop, seed=0),
        waiting=iter(starts),
        batch_size=batch_size,
        finished=finished,
        **options,
    )
    return found, finished


def run(*args: Any, **options: Any) -> Finished:
    found, finished = search(*args, **options)
    drive(found)
    return finished


def drive(found: LatentSearch) -> None:
    """Runs the search to its end without Lightning, which only calls these two."""
    found.refill()
    while found.slots:
        found.training_step(0, 0)


def drive_steps(found: LatentSearch, steps: int) -> None:
    found.refill()
    for _ in range(steps):
        found.advance()


def images_of_the_generator(seed: int) -> list[Start]:
    z = torch.randn(3, TOY.z_dim, generator=torch.Generator().manual_seed(seed))
    low = torch.nn.functional.avg_pool2d(TOY(z), 4)
    return [Start(f"image{i}", 0, image) for i, image in enumerate(low)]


def lightning(*callbacks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, inference_mode=False,
        callbacks=list(callbacks),
    )  # fmt: skip


def assert_same(a: Finished, b: Finished, tolerance: float = 2e-3) -> None:
    assert a.keys() == b.keys()
    for key, one in a.items():
        two = b[key]
        assert (one.status, one.steps, one.best_step) == (two.status, two.steps, two.best_step)
        for name, curve in one.curves.items():
            torch.testing.assert_close(
                torch.tensor(curve), torch.tensor(two.curves[name]), rtol=tolerance, atol=1e-5
            )
        assert one.sr is not None
        assert two.sr is not None
        torch.testing.assert_close(one.sr, two.sr, rtol=tolerance, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_four_is_four_singles(kind: str):
    together = run(KINDS[kind])
    singles = Finished()
    for start in STARTS:
        singles |= run(KINDS[kind], [start], batch_size=1)
    assert_same(together, singles)


@pytest.mark.parametrize("kind", ["dual_ascent", "resampled", "langevin"])
def test_refilled_slots_and_the_order_change_nothing(kind: str):
    together = run(KINDS[kind])
    refilled = run(KINDS[kind], reversed(STARTS), batch_size=2)
    several = run(KINDS[kind], batch_size=3, steps_per_call=4)
    assert_same(together, refilled)
    assert_same(together, several)


def test_the_same_seed_gives_the_same_bytes():
    first, second = run(KINDS["pulse"]), run(KINDS["pulse"])
    for key, candidate in first.items():
        assert candidate.curves == second[key].curves
        assert torch.equal(candidate.sr, second[key].sr)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["dual_ascent", "resampled", "langevin", "lbfgs"])
@pytest.mark.parametrize("ticks", [1, 4])
def test_a_killed_search_goes_on_where_its_checkpoint_is(kind: str, ticks: int, tmp_path: Path):
    """Two rows run while two wait; after a kill the finished ones need not be offered again."""
    whole = run(KINDS[kind], batch_size=2)
    first, before = search(KINDS[kind], batch_size=2)
    with pytest.raises(Killed):
        lightning(Kill(ticks, tmp_path / "search.ckpt")).fit(first)
    waiting = [s for s in STARTS if (s.image, s.restart) not in before]
    second, after = search(KINDS[kind], waiting, batch_size=2)
    saved = torch.load(tmp_path / "search.ckpt", weights_only=True)
    second.load(saved, {(s.image, s.restart) for s in waiting})
    lightning().fit(second)
    assert_same(whole, Finished(before | after), tolerance=1e-6)


class Killed(Exception):
    pass


class Kill(pl.Callback):
    """Saves after so many ticks and dies two ticks later."""

    def __init__(self, ticks: int, path: Path) -> None:
        self.ticks, self.path = ticks, path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.ticks -= 1
        if self.ticks == 0:
            trainer.save_checkpoint(self.path)
        if self.ticks == -1:
            raise Killed


def test_the_generator_never_enters_a_checkpoint(tmp_path: Path):
    found, _ = search()
    with pytest.raises(Killed):
        lightning(Kill(2, tmp_path / "search.ckpt")).fit(found)
    assert not found.state_dict()
    saved = torch.load(tmp_path / "search.ckpt", weights_only=False)
    assert not saved["state_dict"]
    assert (tmp_path / "search.ckpt").stat().st_size < 400_000


def test_the_best_point_may_be_the_one_after_the_last_step(monkeypatch: pytest.MonkeyPatch):
    """The error falls at every step, so the last point evaluated is the best: step `steps`."""
    found, finished = search(["latent=z", "prior=none", "loss=l2", "optimizer=sgd"])
    counter = itertools.count()
    original = type(found.objective).__call__

    def falling(self: Any, rows: Rows, variables: Any) -> Point:
        point = original(self, rows, variables)
        point.lr_mse = torch.full_like(point.lr_mse, 1.0 / (1 + next(counter)))
        return point

    monkeypatch.setattr(type(found.objective), "__call__", falling)
    drive(found)
    for candidate in finished.values():
        assert candidate.steps == candidate.best_step == STEPS
        assert all(len(curve) == STEPS + 1 for curve in candidate.curves.values())
        assert candidate.lr_mse == pytest.approx(1 / (1 + STEPS))


def test_the_reported_error_is_that_of_the_reported_image():
    for kind in ("pulse", "resampled", "projector", "langevin", "filters"):
        found, finished = search(KINDS[kind])
        drive(found)
        for start in STARTS:
            candidate = finished[start.image, 0]
            assert candidate.sr is not None
            low = found.objective.downscaler(candidate.sr[None])[0]
            assert float((low - start.lr).square().mean()) == pytest.approx(
                candidate.lr_mse, rel=1e-3
            )
            assert candidate.lr_mse == pytest.approx(
                candidate.curves["lr_mse"][candidate.best_step], rel=1e-3
            )


def test_stopping_when_solved_ends_a_row_at_its_first_point_within_eps():
    reachable = images_of_the_generator(seed=1)
    eps, method = 2e-2, ["latent=whitened_w_plus", "prior=none", "loss=l2"]
    never = run(method, reachable, stop="never", eps=eps, steps=30)
    stopped = run(method, reachable, stop="all_solved", eps=eps, steps=30)
    assert any(c.status == "solved" for c in never.values())
    for key, candidate in never.items():
        other = stopped[key]
        assert other.status == candidate.status
        assert other.solved_step == candidate.solved_step
        assert candidate.steps == 30
        if candidate.status == "solved":
            assert other.steps == other.best_step == other.solved_step
            assert other.lr_mse <= eps
            assert min(candidate.curves["lr_mse"][: other.steps]) > eps


def test_among_solved_points_the_one_nearest_to_the_prior_is_best():
    run_ = run(["latent=whitened_w", "prior=gaussian", "loss=l2"], eps=10.0, steps=12)
    for candidate in run_.values():
        assert candidate.status == "solved"
        assert candidate.best_step == min(
            range(13), key=lambda step: candidate.curves["gaussian"][step]
        )


def test_an_aim_below_eps_is_what_the_best_point_meets():
    """Solved is within eps; best is the nearest to the prior within the aim, else nearest to it."""
    words = ["latent=whitened_w", "noise=fixed", "prior=gaussian", "loss=constrained_l2"]
    within = 0
    for aim in (0.9, 0.5, 1e-3):
        level = 0.2 * aim
        run_ = run([*words, f"loss.constrained_l2.aim={aim}"], eps=0.2, steps=12)
        for candidate in run_.values():
            errors = candidate.curves["lr_mse"]
            assert candidate.status == ("solved" if min(errors) <= 0.2 else "unsolved")
            inside = [step for step, error in enumerate(errors) if error <= level]
            by = candidate.curves["gaussian"] if inside else errors
            assert candidate.best_step == min(inside or range(13), key=lambda step: by[step])
            within += bool(inside)
    assert 0 < within < 3 * len(run_)


def test_a_row_that_is_not_finite_fails_alone():
    healthy = run()
    broken = [*STARTS[:2], Start("broken", 0, torch.full((3, 8, 8), torch.nan)), *STARTS[2:]]
    finished = run(starts=broken, batch_size=5)
    failed = finished.pop(("broken", 0))
    assert failed.status == "failed"
    assert "not finite at step 0" in failed.reason
    assert failed.sr is None
    assert_same(healthy, finished)


def test_of_several_draws_the_one_with_the_lowest_error_is_taken():
    words = ["latent=z", "prior=none", "loss=l2", "latent.start=random"]
    several, _ = search([*words, "latent.draws=4"])
    several.refill()
    single, _ = search(words)
    errors = []
    observation = single.objective.observation(torch.stack([start.lr for start in STARTS]))
    for number in range(4):
        rows = single.draw(STARTS, [], observation, number)
        with torch.no_grad():
            errors.append(single.objective(rows, rows["variables"]).lr_mse)
    with torch.no_grad():
        taken = several.objective(several.rows, several.rows["variables"]).lr_mse
    torch.testing.assert_close(taken, torch.stack(errors).min(0).values)
    assert not torch.equal(taken, errors[0])


def test_corrected_starts_are_nearer():
    def errors(corrections: int) -> tuple[torch.Tensor, torch.Tensor]:
        found, _ = search([*KINDS["dual_ascent"], f"latent.corrections={corrections}"])
        found.refill()
        objective, rows = found.objective, found.rows
        with torch.no_grad():
            point = objective(rows, rows["variables"])
        return point.lr_mse, objective.distances(objective.about(rows["lr"]), point)

    (best, best_distance), (corrected, distance) = errors(0), errors(6)
    assert (distance <= best_distance * (1 + 1e-5)).all()
    assert distance.mean() < best_distance.mean()
    assert corrected.mean() < best.mean()


def test_a_mean_start_begins_at_the_mean_and_further_restarts_at_random():
    starts = [Start("face", restart, LR[0]) for restart in range(2)]
    found, _ = search(["latent=w", "latent.start=mean", "prior=none"], starts)
    found.refill()
    latent = found.rows["variables"]["latent"]
    mean = found.objective.latent.mean(1)["latent"][0]
    torch.testing.assert_close(latent[0], mean)
    assert not torch.allclose(latent[1], mean)


def test_variables_rest_outside_their_phase():
    words = ["latent=w_plus_plus", "prior=none", "loss=l2", "phases=w_w_plus_filters"]
    found, _ = search(words, steps=6)
    found.refill()
    seen = []
    for _ in range(6):
        seen.append({k: v.clone() for k, v in found.rows["variables"].items()})
        found.advance()
    moved = [
        {name for name in seen[0] if not torch.equal(seen[step][name], seen[step + 1][name])}
        for step in range(5)
    ]
    assert moved == [{"latent"}, {"latent"}, {"offset"}, {"offset"}, {"filters"}]


SMOOTH = images_of_the_generator(seed=2)


@pytest.mark.parametrize(
    "words",
    [
        ["latent=whitened_w", "noise=fixed", "prior=none", "loss=l2", "optimizer=sgd"],
        [*KINDS["langevin"], "noise=fixed"],
    ],
    ids=["sgd", "langevin"],
)
def test_steps_have_the_schedules_length_however_far_the_input_is(words: list[str]):
    """A row's path is the same whether it is far from eps or long within it, and whoever is
    beside it."""
    noise = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(3))
    starts = [*SMOOTH, Start("noise", 0, noise)]
    far, _ = search(words, starts, eps=1e-6, steps=20)
    within, _ = search(words, starts, eps=1, steps=20)
    among_near, _ = search(words, SMOOTH, eps=1e-6, steps=20)
    for found in (far, within, among_near):
        drive_steps(found, 15)
    paths = [found.rows["variables"]["latent"] for found in (far, within, among_near)]
    assert torch.equal(paths[0], paths[1])
    torch.testing.assert_close(paths[0][: len(SMOOTH)], paths[2], rtol=1e-4, atol=1e-6)


def test_the_default_search_of_a_row_does_not_depend_on_who_is_beside_it():
    together = run(KINDS["dual_ascent"], SMOOTH, eps=1e-4, steps=12)
    alone = run(KINDS["dual_ascent"], SMOOTH, eps=1e-4, steps=12, batch_size=1)
    assert_same(together, alone)


def test_a_sampler_returns_its_last_point():
    for candidate in run(KINDS["langevin"]).values():
        assert candidate.best_step == candidate.steps == STEPS
