import numpy as np
import pytest
import torch

from pulse_exp.building import build
from pulse_exp.errors import UserError
from pulse_exp.generators import load
from pulse_exp.generators.base import Generator, freeze
from pulse_exp.generators.dcgan import DCGAN
from pulse_exp.generators.edits import feature_shapes, synthesis_with
from pulse_exp.generators.mobile_stylegan import MobileStyleGAN
from pulse_exp.generators.stylegan1 import StyleGAN1
from pulse_exp.generators.stylegan2 import StyleGAN2
from pulse_exp.latents import (
    IntermediateLayers,
    Latent,
    PerturbedW,
    PreconditionedWPlusPlus,
    W,
    WPlusPlus,
    Z,
)
from pulse_exp.seeding import random_generator
from pulse_exp.style_statistics import estimate_statistics, style_moments
from tests.compose import SMALL, job

TOY = load("toy")
NAMES = [
    "z",
    "w",
    "w_plus",
    "gaussianized_w_plus",
    "whitened_w",
    "whitened_w_plus",
    "preconditioned_w_plus",
    "preconditioned_w_plus_plus",
]
DEEPER = ["perturbed_w", "w_plus_plus", "intermediate_layers"]


def latent(name: str, *overrides: str) -> Latent:
    config, _ = job(*SMALL, "prior=none", f"latent={name}", *overrides)
    if "statistics_draws" in config.latent:
        config.latent.statistics_draws = 2000
    return build(config.latent, generator=TOY)


def rngs(*seeds: int) -> list[torch.Generator]:
    return [random_generator(seed) for seed in seeds]


def fresh(space: Latent, variables: dict, progress: float = 1.0) -> dict:
    batch = len(variables["latent"])
    return {**space.redraw(rngs(*range(batch)), [progress] * batch), **variables}


def test_statistics_equal_a_straight_line_computation():
    found = estimate_statistics(TOY, 3000, chunk=700)
    chunks = random_generator("style statistics")
    z = torch.cat(
        [torch.randn(min(700, 3000 - i), 32, generator=chunks) for i in range(0, 3000, 700)]
    )
    w = TOY.mapping(z)[:, 0].detach().double().numpy()
    v = np.where(w > 0, w, 5 * w)
    covariance = np.cov(v.T)
    np.testing.assert_allclose(found.mean, v.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.std, v.std(0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(found.w_mean, w.mean(0), rtol=1e-4, atol=1e-5)
    u = found.directions.double().numpy()
    np.testing.assert_allclose(
        u * found.variances.numpy() @ u.T, covariance, atol=1e-4 * covariance.max()
    )
    assert (found.variances.diff() <= 0).all()
    whitened = (v - v.mean(0)) @ u / np.sqrt(found.variances.numpy())
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(32), atol=2e-2)


def test_style_moments_equal_numpy():
    mean, std = style_moments(TOY, 500)
    z = torch.randn(500, 32, generator=random_generator("style moments"))
    w = TOY.mapping(z)[:, 0].numpy()
    np.testing.assert_allclose(mean, w.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std, w.std(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES + DEEPER)
def test_every_latent_gives_images_and_its_batch_equals_its_rows(name: str):
    space = latent(name)
    for variables in (space.random(rngs(1, 2)), space.mean(2)):
        values = fresh(space, variables)
        assert space.ws(values).shape == (2, TOY.num_ws, TOY.w_dim)
        assert space.coordinates(values).ndim == 3
        image = space.image(TOY, values, None)
        assert image.shape == (2, 3, 64, 64)
        for row in range(2):
            one = {key: value[row : row + 1] for key, value in values.items()}
            torch.testing.assert_close(space.image(TOY, one, None), image[row : row + 1])
    alone = space.random(rngs(2))
    both = space.random(rngs(1, 2))
    for key, value in alone.items():
        torch.testing.assert_close(value[0], both[key][1])


@pytest.mark.parametrize("name", [n for n in NAMES + DEEPER if n not in ("z", "perturbed_w")])
def test_a_start_between_known_latents_is_there(name: str):
    space = latent(name)
    styles = TOY.mapping(torch.randn(3, 32, generator=random_generator(1)))[:, 0].detach()
    start = fresh(space, space.between(styles, torch.eye(3)[[2, 0]]))
    expected = styles[[2, 0]][:, None].expand(-1, TOY.num_ws, -1)
    torch.testing.assert_close(space.ws(start), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["z", "w", "w_plus"])
def test_random_starts_are_the_generators_own(name: str):
    space = latent(name)
    n = 1 if name != "w_plus" else TOY.num_ws
    z = torch.randn(n, 32, generator=random_generator(7))
    expected = TOY.mapping(z)[:, 0]
    ws = space.ws(space.random(rngs(7)))[0]
    torch.testing.assert_close(ws[0], expected[0])
    torch.testing.assert_close(ws[-1], expected[-1])


def test_gaussianized_and_whitened_coordinates_follow_their_formulas():
    statistics = latent("gaussianized_w_plus").statistics  # type: ignore[attr-defined]
    u = torch.randn(1, TOY.num_ws, 32)
    v = u.numpy() * statistics.std.numpy() + statistics.mean.numpy()
    np.testing.assert_allclose(
        latent("gaussianized_w_plus").ws({"latent": u}), np.where(v > 0, v, v / 5), rtol=1e-4
    )
    shared, offset = torch.randn(1, 1, 32), torch.randn(1, TOY.num_ws, 32)
    white = (shared + offset).double().numpy()
    root = statistics.directions.double().numpy() * np.sqrt(statistics.variances.double().numpy())
    v = white @ root.T + statistics.mean.double().numpy()
    coarse, fine = offset.split([2, TOY.num_ws - 2], dim=1)
    found = latent("whitened_w_plus").ws(
        {"latent": shared, "offset_coarse": coarse, "offset_fine": fine}
    )
    np.testing.assert_allclose(found, np.where(v > 0, v, v / 5), rtol=1e-3, atol=1e-4)


def test_preconditioning_turns_the_whitened_space_and_shortens_units():
    turned, plain = latent("preconditioned_w_plus"), latent("estimated_w_plus")
    rng = random_generator(0)
    styles = TOY.mapping(torch.randn(5, 32, generator=rng))[:, 0]
    weights = torch.rand(2, 5, generator=rng)
    weights /= weights.sum(1, keepdim=True)
    torch.testing.assert_close(
        turned.ws(turned.between(styles, weights)), plain.ws(plain.between(styles, weights))
    )
    layers = {"latent": slice(None), "offset_coarse": slice(2), "offset_fine": slice(2, None)}
    for name, unit in turned.units.items():
        variables = turned.mean(1)
        variables[name] = torch.randn(variables[name].shape, generator=rng)
        moved = turned.coordinates(variables).norm(dim=2)
        expected = torch.zeros_like(moved)
        expected[:, layers[name]] = variables[name].norm(dim=2)
        torch.testing.assert_close(moved, expected)
        assert unit.shape == variables[name].shape[1:]
        assert 0 < unit.min() < unit.max() <= 1


def test_the_offsets_of_coarse_layers_move_gently_and_those_of_fine_ones_later():
    names = ["latent", "offset_coarse", "offset_fine"]
    for released, coarse, fine in (
        (0.5, [0.5, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0.5, 1, 1, 1]),
        (0.25, [1] * 8, [0, 0, 1, 1, 1, 1, 1, 1]),
        (0, [1] * 8, [1] * 8),
    ):
        space = latent("preconditioned_w_plus", f"latent.released={released}")
        assert list(space.mean(1)) == names
        rates = {name: torch.linspace(2, 9, 8) for name in names}
        held = dict(space.held(rates))
        for name, factors in (("offset_coarse", coarse), ("offset_fine", fine)):
            torch.testing.assert_close(held.pop(name), rates["latent"] * torch.tensor(factors))
        assert all(torch.equal(rate, rates[name]) for name, rate in held.items())


def test_the_mean_start_is_the_centre():
    w = latent("w")
    assert isinstance(w, W)
    torch.testing.assert_close(w.mean(1)["latent"][0, 0], w.statistics.w_mean)
    z = latent("z")
    assert isinstance(z, Z)
    assert not z.mean(2)["latent"].any()


def test_the_perturbation_fades_as_a_square():
    space = latent("perturbed_w")
    assert isinstance(space, PerturbedW)
    spread = []
    for progress in (0.0, 0.375, 0.75, 1.0):
        draws = space.redraw(rngs(*range(400)), [progress] * 400)["perturbation"]
        spread.append(float(draws.std()))
    typical = float(style_moments(TOY)[1].norm())
    assert spread[0] == pytest.approx(0.05 * typical, rel=0.05)
    assert spread[1] == pytest.approx(spread[0] / 4, rel=0.01)
    assert spread[2:] == [0, 0]


def test_filters_search_is_the_search_of_a_style_vector_for_each_filter():
    """Gradient steps on one style vector a filter (the paper's w++), written out for the toy's
    first layer, move its styles as gradient steps on `filters` do."""
    space = latent("w_plus_plus")
    assert isinstance(space, WPlusPlus)
    start = space.mean(1)
    layer = TOY.styles[0]
    target = torch.rand(1, 3, 64, 64, generator=random_generator(3))
    rate = 0.3

    w = start["latent"][0, 0].expand(len(layer.weight), -1).clone().requires_grad_(True)
    for _ in range(3):
        styles = (layer.weight * w).sum(1) + layer.bias
        offset = styles - layer(start["latent"][0, 0])
        image = synthesis_with(TOY, space.ws(start), styles={0: offset[None]})
        gradient = torch.autograd.grad((image - target).square().sum(), w)[0]
        w = (w - rate * gradient).detach().requires_grad_(True)

    filters = start["filters"].clone().requires_grad_(True)
    for _ in range(3):
        image = space.image(TOY, {**start, "filters": filters}, None)
        gradient = torch.autograd.grad((image - target).square().sum(), filters)[0]
        gradient[:, len(layer.weight) :] = 0
        filters = (filters - rate * gradient).detach().requires_grad_(True)

    moved = filters[0, : len(layer.weight), 0] * layer.weight.norm(dim=1)
    expected = (layer.weight * (w - start["latent"][0, 0])).sum(1)
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-5)
    assert moved.abs().max() > 1e-3


def test_a_filter_departs_from_its_style_in_shares_of_the_styles_own_spread():
    space = latent("preconditioned_w_plus_plus", "latent.filter_spread=0.5")
    assert isinstance(space, PreconditionedWPlusPlus)
    z = torch.randn(10_000, 32, generator=random_generator("style spreads"))
    w = TOY.mapping(z)[:, 0].detach().numpy()
    variables = space.mean(1)
    variables["latent"] = torch.randn(1, 1, 32)
    plain = latent("preconditioned_w_plus").image(TOY, variables, None)
    torch.testing.assert_close(space.image(TOY, variables, None), plain)
    first = 0
    for index, layer in enumerate(TOY.style_layers()):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # type: ignore[union-attr, operator]
        spread = (w @ weight.T + bias).std(0, ddof=1)
        variables["filters"] = torch.zeros_like(variables["filters"])
        variables["filters"][0, first, 0] = 2.0
        offset = torch.zeros(1, len(bias))
        offset[0, 0] = float(2.0 * 0.5 * spread[0])
        expected = synthesis_with(TOY, space.ws(variables), styles={index: offset})
        torch.testing.assert_close(space.image(TOY, variables, None), expected)
        first += len(bias)
    assert first == variables["filters"].shape[1]


def test_filters_move_with_the_fine_layers_and_a_generator_without_styles_has_none():
    space = latent("preconditioned_w_plus_plus", "latent.released=0.25")
    rates = dict.fromkeys(space.mean(1), torch.linspace(2, 9, 8))
    held = space.held(rates)
    torch.testing.assert_close(held["filters"], held["offset_fine"])
    dcgan = freeze(DCGAN(channels=(8, 8, 8, 8, 3)))
    for parameter in dcgan.parameters():
        parameter.data.normal_(0, 0.3)
    config, _ = job(*SMALL, "latent=preconditioned_w_plus_plus", "latent.start=mean")
    config.latent.statistics_draws, config.latent.sensitivity_draws = 2000, 8
    assert "filters" not in build(config.latent, generator=dcgan).mean(1)


def test_zero_offsets_leave_the_image_and_others_change_it():
    space = latent("intermediate_layers")
    assert isinstance(space, IntermediateLayers)
    variables = space.random(rngs(1))
    plain = TOY.synthesis(space.ws(variables))
    torch.testing.assert_close(space.image(TOY, variables, None), plain)
    shapes = feature_shapes(TOY)
    assert [tuple(variables[f"features_{i}"].shape[1:]) for i in (1, 2, 3)] == shapes[1:4]
    variables["features_2"] = variables["features_2"] + 1
    assert not torch.allclose(space.image(TOY, variables, None), plain)
    assert not any(m._forward_hooks for m in TOY.modules())


def small(architecture: type[Generator]) -> Generator:
    """A random one of 32×32 pixels."""
    torch.manual_seed(0)
    widths = {} if architecture is MobileStyleGAN else {"w_dim": 8, "mapping_widths": [8]}
    generator = architecture(channels=(8, 8, 8), z_dim=8, **widths)  # type: ignore[call-arg]
    for parameter in generator.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    for layer, (height, width) in enumerate(generator.noise_shapes):
        generator.own_noise(layer).data.copy_(torch.randn(1, 1, height, width))
    return freeze(generator)


@pytest.mark.parametrize("architecture", [StyleGAN1, StyleGAN2, MobileStyleGAN])
def test_generators_let_their_styles_and_features_be_reached(architecture: type[Generator]):
    """An offset to the styles is a change of the affine layer's bias; one to the last features
    reaches the image; mobile_stylegan's strips give way to it."""
    generator = small(architecture)
    ws = torch.randn(2, generator.num_ws, 8)
    plain = generator.synthesis(ws)
    layers = generator.style_layers()
    for index, layer in enumerate(layers):
        offset = 0.1 * torch.randn_like(layer.bias)  # type: ignore[arg-type]
        edited = synthesis_with(generator, ws, styles={index: offset.expand(2, -1)})
        layer.bias += offset  # type: ignore[operator]
        torch.testing.assert_close(generator.synthesis(ws), edited, rtol=1e-4, atol=1e-4)
        layer.bias -= offset  # type: ignore[operator]
        assert not torch.allclose(edited, plain)
    shapes = feature_shapes(generator)
    assert len(shapes) == len(generator.feature_layers())
    for index, shape in enumerate(shapes):
        offset = torch.randn(2, *shape, requires_grad=True)
        edited = synthesis_with(generator, ws, features={index: offset})
        assert not torch.allclose(edited, plain)
        assert torch.autograd.grad(edited.square().sum(), offset)[0].abs().sum() > 0
        nothing = synthesis_with(generator, ws, features={index: torch.zeros(2, *shape)})
        torch.testing.assert_close(nothing, plain, rtol=1e-4, atol=1e-4)


def test_features_of_mobile_stylegans_last_block_are_what_its_output_layer_reads():
    generator = small(MobileStyleGAN)
    assert isinstance(generator, MobileStyleGAN)
    ws = torch.randn(2, generator.num_ws, 8)
    offset = torch.randn(2, 8, 16, 16)
    edited = synthesis_with(generator, ws, features={2: offset})
    scaled = offset * generator.to_rgb_style(ws[:, -1])[:, :, None, None]
    bands = torch.nn.functional.conv2d(scaled, generator.to_rgb)
    expected = generator.synthesis(ws) + torch.nn.functional.pixel_shuffle(bands, 2)
    torch.testing.assert_close(edited, expected, rtol=1e-4, atol=1e-4)


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(UserError, match="from 0 to 4"):
        latent("intermediate_layers", "latent.layers=[9]")
