import torch

from pulse_exp.generators import load
from pulse_exp.noise import NoiseInputs
from tests.test_search import KINDS, search

TOY = load("toy", resolution=32)


def inputs(source: str, trained: int | str, zeroed: int = 0, released: float = 0) -> NoiseInputs:
    return NoiseInputs(source, trained, zeroed, released, weight=0, low_res_side=8)


def rngs(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(row) for row in range(count)]


def test_trained_inputs_begin_where_the_source_says():
    own, _ = inputs("own", 2).start(TOY, rngs(3))
    assert set(own) == {"noise_0", "noise_1"}
    for layer in (0, 1):
        assert torch.equal(own[f"noise_{layer}"], TOY.own_noise(layer).expand(3, -1, -1, -1))
    drawn, constants = inputs("random", 2, zeroed=1).start(TOY, rngs(3))
    assert set(drawn) == {"noise_0", "noise_1"}
    assert set(constants) == {f"noise_{layer}" for layer in range(2, len(TOY.noise_shapes) - 1)}
    assert not torch.equal(drawn["noise_0"][0], drawn["noise_0"][1])


def test_inputs_are_variables_own_maps_and_zeros_in_the_order_of_the_layers():
    noise = inputs("own", 1, zeroed=1)
    variables, constants = noise.start(TOY, rngs(2))
    variables["noise_0"] = variables["noise_0"] + 1
    maps = noise.inputs(TOY, variables, constants)
    assert maps is not None
    assert torch.equal(maps[0], variables["noise_0"])
    for layer in range(1, len(maps) - 1):
        assert torch.equal(maps[layer], TOY.own_noise(layer))
    assert not maps[-1].any()


def test_visible_inputs_have_no_more_pixels_than_the_low_res_image():
    sides = [side for side, _ in TOY.noise_shapes]
    assert max(sides) > 8
    variables, _ = inputs("own", "visible").start(TOY, rngs(1))
    assert set(variables) == {f"noise_{layer}" for layer, side in enumerate(sides) if side <= 8}


def test_trained_inputs_rest_until_they_are_released():
    rates = {"latent": torch.ones(8), "noise_0": torch.linspace(1, 8, 8)}
    held = inputs("own", 1, released=0.35).held(rates)
    assert held["latent"].tolist() == [1] * 8
    assert held["noise_0"].tolist() == [0, 0, 0, 4, 5, 6, 7, 8]

    words = ["noise.trained=2", "noise.released=0.5", "noise.weight=0"]
    found, _ = search([*KINDS["dual_ascent"], *words], steps=6)
    found.refill()
    for step in range(6):
        before = found.rows["variables"]["noise_1"].clone()
        assert torch.equal(before[0], TOY.own_noise(1)[0]) == (step < 4)
        found.training_step(0, 0)


def test_the_weight_makes_a_term_of_the_objective():
    for weight, held in ((4e-4, True), (0, False)):
        found, _ = search([*KINDS["dual_ascent"], f"noise.weight={weight}"])
        assert ("noise_distance" in found.objective.terms) == held
