import pytest

from pulse_exp.complaints import complaints
from tests.compose import SMALL, job

SENSELESS = [
    ("prior=sphere latent=w_plus", "prior.sphere.radius"),
    ("prior=sphere latent=gaussianized_w_plus latent.start=mean", "centre"),
    ("prior=sphere latent=w_plus prior.sphere.radius=0", "must be above 0"),
    ("optimizer.sphere=true", "offset"),
    ("optimizer.sphere=true latent=z prior=none latent.start=mean", "the mean"),
    ("prior=cross latent=whitened_w", "compares the layers' vectors"),
    ("prior=pairwise_cosine latent=z", "compares the layers' vectors"),
    ("method=pulse latent=z", "compares the layers' vectors"),
    ("prior=layered_gaussian latent=w_plus", "whitened_w_plus"),
    ("prior=noise_autocorrelation noise=fixed", "noise=all_trained"),
    ("prior=l1_ball", "it has filters, latent, noise, offset"),
    ("prior=l1_ball prior.l1_ball.radius=0", "prior.l1_ball.radius"),
    ("phases=w_w_plus_filters latent=preconditioned_w_plus", "stretch 3 frees filters"),
    ("phases=w_w_plus_noise noise=fixed", "stretch 3 frees noise"),
    ("phases=layer_by_layer latent=w_plus prior=none", "stretch 2 frees features_1"),
    ("latent=w_plus_plus prior=none generator.source=dcgan", "no layers"),
    ("latent=intermediate_layers prior=none generator.source=progan", "no layers"),
    ("latent=w_plus_plus prior=none trainer.compile=true", "trainer.compile=false"),
    ("latent=whitened_w_plus latent.draws=3", "only one mean"),
    ("method=csgm latent.start=estimate", "hardly linear"),
    ("latent.start=random", "latent.corrections=0"),
    ("latent.corrections=-1", "latent.corrections"),
    ("optimizer=langevin", "no density to sample"),
    ("optimizer=langevin loss=l2 search.stop=all_solved", "no draw"),
    ("loss=lp loss.lp.p=0", "loss.lp.p=0"),
    ("loss=l2 loss.l2.floor=low", "loss.l2.floor=low: choose one of none, eps"),
    ("prior=cross latent=w_plus prior.cross.of=images", "coordinates, styles"),
    ("optimizer.learning_rate=0", "optimizer.learning_rate"),
    ("latent.filter_spread=0", "latent.filter_spread=0.0: must be above 0"),
    ("method=nearest search.restarts=2", "one result an image"),
    ("baseline=[nearest,bicubic]", "choose one"),
    ("method=bicubic refine=pivotal_tuning", "a baseline has none"),
    ("method=bicubic downscaler=gaussian_measurements", "no picture"),
    ("data=photos data.root=. downscaler=gaussian_measurements", "choose data=folder"),
    ("data=photos data.root=. downscaler=reduced_gaussian_measurements", "choose data=folder"),
    ("data=low_res data.root=. downscaler=reduced_gaussian_measurements", "choose data=folder"),
]


@pytest.mark.parametrize(("command", "said"), SENSELESS, ids=[c for c, _ in SENSELESS])
def test_the_senseless_is_refused_with_its_reason(command: str, said: str):
    config, _ = job(*SMALL, "data=generated", *command.split())
    assert any(said in line for line in complaints(config)), complaints(config)


@pytest.mark.parametrize(
    "command",
    [
        "prior=sphere latent=w_plus prior.sphere.radius=10 latent.start=mean",
        "prior=[sphere,cross] latent=gaussianized_w_plus",
        "prior=[p_norm,pairwise_cosine,truncation] latent=w_plus",
        "optimizer.sphere=true latent=gaussianized_w_plus prior=none",
        "phases=w_w_plus",
        "latent=w_plus_plus prior=none phases=w_w_plus_filters",
        "prior=l1_ball prior.l1_ball.of=[latent]",
        "latent.draws=3 latent.start=random latent.corrections=0",
        "optimizer=langevin loss=gaussian_likelihood prior=normal latent=whitened_w",
        "method=bicubic refine=back_projection",
        "data=folder data.root=. downscaler=reduced_gaussian_measurements",
    ],
)
def test_the_sensible_is_not(command: str):
    config, _ = job(*SMALL, "data=generated", *command.split())
    assert complaints(config) == []
