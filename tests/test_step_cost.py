"""What a step of a search must not do: it costs time or memory and changes no result."""

import gc
from itertools import count
from weakref import ref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pulse_exp.building import build, build_downscaler, build_generator, build_objective
from pulse_exp.objective import Objective
from pulse_exp.search import LatentSearch, Settings, Start
from pulse_exp.seeding import RandomGenerators, random_generator
from tests.compose import job

ASKS_THE_DEVICE = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero"}
"""What `item`, `bool`, `if tensor` and boolean indexing come down to: the host waits there."""


class Waits(TorchDispatchMode):
    """Notes every operation that would make the host wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # Rows are float32; a float64 number, as PULSE's floor is, lives on the host anyway.
        if func._schema.name in ASKS_THE_DEVICE and args[0].dtype != torch.float64:
            self.found.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def small_search(*overrides: str, steps_per_call: int = 1) -> LatentSearch:
    config, _ = job(
        *("generator=toy", "generator.resolution=16", "downscaler.factor=4", "logger=none"),
        *("search.steps=6", *overrides),
    )
    generator = build_generator(config, torch.device("cpu"))
    search = LatentSearch(
        objective=build_objective(config, generator, build_downscaler(config, 4, 16)),
        optimizer=build(config.optimizer),
        schedule=build(config.schedule),
        phases=build(config.phases),
        settings=Settings(6, 1e-3, "never", 0),
        waiting=iter([Start(str(i), 0, torch.full((3, 4, 4), 0.2 * i)) for i in range(3)]),
        batch_size=3,
        finished=lambda candidate: None,
        steps_per_call=steps_per_call,
    )
    search.on_fit_start()
    return search


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_EXP_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    "choice",
    [
        "method=dual_ascent",
        "method=pulse",
        "optimizer=langevin",
        "latent=w_plus_plus prior=gaussian",
    ],
)
def test_the_host_never_waits_inside_a_step(choice: str):
    search = small_search(*choice.split())
    with Waits() as waits:
        search.advance()
        search.advance()
    assert waits.found == []


def test_style_vectors_are_made_once_a_step(monkeypatch):
    search = small_search()
    calls = count()
    latent = search.objective.latent
    original = latent.ws
    monkeypatch.setattr(latent, "ws", lambda v: (next(calls), original(v))[1])
    search.advance()
    assert next(calls) == 1


def test_a_step_leaves_no_graph_behind(monkeypatch):
    """A living graph would keep the generator's activations while the next step makes its own."""
    search = small_search()
    nodes = []
    original = Objective.__call__

    def noted(self, rows, variables):
        point = original(self, rows, variables)
        nodes.append(ref(point))
        return point

    monkeypatch.setattr(Objective, "__call__", noted)
    search.advance()
    gc.collect()
    assert nodes[0]() is None
    assert search.point is not None
    assert not any(value.requires_grad for value in search.point.terms.values())
    assert not search.point.lr_mse.requires_grad


def test_random_generators_are_made_when_needed_and_the_same_as_ever():
    parts = [(0, "a", 1), (0, "b", 2)]
    lazy = RandomGenerators(parts)
    assert len(lazy) == 2
    assert "made" not in vars(lazy)
    for made, part in zip(lazy, parts, strict=True):
        assert torch.equal(
            torch.randn(3, generator=made), torch.randn(3, generator=random_generator(*part))
        )
    assert lazy[0] is next(iter(lazy)), "drawing goes on where the last draw ended"
