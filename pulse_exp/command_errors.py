"""Hydra's complaints about a command or a file of conf/, as one line with the valid choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from difflib import get_close_matches

from hydra.errors import MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from pulse_exp.schemas import fields_of


def explain(error: BaseException) -> str:
    """What was wrong, which key or option it was, and what would be right."""
    for cause in causes(error):
        if isinstance(cause, MissingConfigException) and cause.options:
            group, _, name = str(cause.missing_cfg_file).rpartition("/")
            return f"{group}={name}: no such option; {choose(name, list(cause.options))}"
        schema = getattr(cause, "object_type", None)
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            first = str(cause.msg).splitlines()[0]
            if isinstance(schema, type) and dataclasses.is_dataclass(schema):
                known = fields_of(schema)
                key = str(cause.key)
                if key not in known:
                    return f"{cause.full_key}: no such key; {choose(key, known)}"
            return f"{cause.full_key}: {first}"
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, the deepest first."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return reversed(chain)


def choose(wrong: str, known: list[str]) -> str:
    """The valid choices, the likely one first."""
    if not known:
        return "this option has no values to set"
    near = get_close_matches(wrong, known, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{guess}choose one of {', '.join(known)}"
