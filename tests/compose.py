"""Composes a job as `run.py` does, for tests."""

from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from pulse_exp.config import choices, register
from pulse_exp.naming import register_resolvers

CONF = Path(__file__).parents[1] / "conf"
SMALL = ["generator=toy", "downscaler.factor=8", "logger=none", "search.steps=5"]


@cache
def prepare() -> None:
    """Schemas and resolvers, once: registering takes as long as composing."""
    register()
    register_resolvers()


def job(*overrides: str) -> tuple[DictConfig, dict[str, str]]:
    """The composed configuration and the word chosen in each group."""
    prepare()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    chosen = config.hydra.runtime.choices
    HydraConfig.instance().cfg = None
    with open_dict(config):
        del config["hydra"]
    return config, choices(config, chosen)
