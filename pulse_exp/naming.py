"""Folders named by what is run, not by the clock: the same command finds its results again."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from omegaconf import OmegaConf

from pulse_exp.config import SIZES

LONGEST = 120


def folder_name(overrides: str) -> str:
    """A folder's name for a list of overrides such as `method=pulse,seed=1`; "default" for none.

    Of a longer name, paths keep their last part and the end is cut; a digest tells it apart.
    """
    name = tame(overrides)
    if len(name) > LONGEST:
        digest = hashlib.sha256(overrides.encode()).hexdigest()[:8]
        name = tame(re.sub(r"=[^,]*/(?=[^,/])", "=", overrides))
        name = f"{name[: LONGEST - 9]}-{digest}"
    return name or "default"


def tame(text: str) -> str:
    """What a file system and a shell take as it is."""
    return re.sub(r"[^\w.=,+#-]+", "_", text).strip("_.")


def sized(smoke: Any, small: Any, full: Any, *, _root_: Any) -> Any:
    """The one of three values that `size` asks for."""
    return dict(zip(SIZES, (smoke, small, full), strict=True)).get(_root_.size)


def register_resolvers() -> None:
    """Makes `${folder_name:...}` and `${sized:smoke,small,full}` available in conf/."""
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("sized", sized, replace=True)
