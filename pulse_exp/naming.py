"""Folders named by what is run, not by the clock: the same command finds its results again."""

from __future__ import annotations

import hashlib
import re

from omegaconf import OmegaConf

LONGEST = 120


def folder_name(overrides: str) -> str:
    """A folder's name for a list of overrides such as `method=pulse,seed=1`; "default" for none."""
    name = re.sub(r"[^\w.=,+#-]+", "_", overrides).strip("_.")
    if len(name) > LONGEST:
        digest = hashlib.sha256(overrides.encode()).hexdigest()[:8]
        name = f"{name[: LONGEST - 9]}-{digest}"
    return name or "default"


def register_resolvers() -> None:
    """Makes `${folder_name:...}` available in conf/config.yaml."""
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
