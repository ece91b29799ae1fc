"""Generators: networks that turn latents into images, and the files they come from."""

from pulse_exp.generators.base import Generator, load

__all__ = ["Generator", "load"]
