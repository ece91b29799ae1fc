"""`task=convert` and `task=sample`: one safetensors file of any weights, and a look at them."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig

from pulse_exp.building import build_generator, pick_device
from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator, save
from pulse_exp.generators.samples import sample_sheet
from pulse_exp.images import write_image


def convert(config: DictConfig, words: dict[str, str], folder: Path) -> int:
    """Writes the generator to `output`, a file that loads without naming its kind.

    Raises:
        UserError: `output` is no .safetensors file or cannot be written.
    """
    output = Path(config.output).expanduser()
    if output.suffix != ".safetensors":
        raise UserError(f"output={output}: name a .safetensors file")
    generator = build_generator(config, pick_device("cpu"))
    source = config.generator.get("weights") or words["generator"]
    part = output.with_name(f"{output.name}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        save(generator, part, converted_from=Path(source).name)
        os.replace(part, output)
    except OSError as error:
        raise UserError(f"output={output}: cannot write it ({error})") from error
    finally:
        part.unlink(missing_ok=True)
    print(f"{output}: {described(generator)}")
    return 0


def sample(config: DictConfig, words: dict[str, str], folder: Path) -> int:
    """Writes a sheet of samples to `output`, by default `samples.png` in the run's folder."""
    output = Path(config.output).expanduser() if config.output else folder / "samples.png"
    generator = build_generator(config, pick_device(config.trainer.accelerator))
    settings = config.samples
    sheet = sample_sheet(generator, settings.count, settings.truncation, config.seed)
    write_image(sheet, output)
    print(f"{output}: {described(generator)}")
    return 0


def described(generator: Generator) -> str:
    """One line on what the weights are."""
    side = generator.resolution
    return (
        f"{generator.architecture}, {side}×{side}, {generator.num_ws} vectors of {generator.w_dim}"
    )
