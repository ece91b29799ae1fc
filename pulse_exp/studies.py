"""Studies: a sweep of conf/study/ and, when it is over, its tables and figures on one page.

`python -m pulse_exp.studies DIR` writes the page of a finished sweep again, without torch.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from pulse_exp.errors import UserError
from pulse_exp.figure_style import save_figure
from pulse_exp.figures import draw
from pulse_exp.results import Results, labels_in_order, load_results
from pulse_exp.table_formats import render
from pulse_exp.tables import build_table

PAGE = "study.md"
AVERAGES = "averages"

Spec = Mapping[str, Any]
"""A table (the arguments of `build_table`) or a figure (its `kind` and the arguments of its
function); `folder` names a part of the sweep's folder that it reads instead of the runs."""


class Study(Callback):
    """Hydra's callback that ends a sweep with the page of its study.

    Args:
        tables, figures: what the page shows.
        averages: how many restarts' results are averaged, before anything is shown.
    """

    def __init__(
        self,
        tables: Sequence[Spec],
        figures: Sequence[Spec] = (),
        averages: Sequence[int] | str = (),
    ) -> None:
        self.tables = [_plain(spec) for spec in tables]
        self.figures = [_plain(spec) for spec in figures]
        counts = averages.strip("[]").split(",") if isinstance(averages, str) else averages
        self.averages = [int(count) for count in counts]

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        logging.getLogger("fontTools").setLevel(logging.WARNING)  # Hydra lets it tell everything
        folder = Path(config.hydra.sweep.dir)
        try:
            if self.averages:
                from pulse_exp.averages import write_averages

                write_averages(folder, folder / AVERAGES, self.averages)
            page = write_page(folder, config, self.tables, self.figures)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return
        print(page.read_text(encoding="utf-8"))
        print(page)


def write_page(
    folder: Path, config: DictConfig, tables: Iterable[Spec], figures: Iterable[Spec]
) -> Path:
    """Writes the tables and figures of a sweep into its folder; returns the page.

    What the records do not allow is replaced by the reason.

    Raises:
        UserError: the folder has no records.
    """
    sources = Sources(folder)
    parts = [f"# {config.hydra.runtime.choices.study}, size={config.size}", *_facts(sources["."])]
    parts += ["```\n" + command_of(config) + "\n```"]
    for spec in tables:
        parts.append(_or_reason(_table, sources, dict(spec)))
    for number, spec in enumerate(figures, start=1):
        stem = folder / "figures" / f"{number}-{spec['kind']}"
        parts.append(_or_reason(_figure, sources, {**spec, "stem": stem}))
    page = folder / PAGE
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8", newline="\n")
    return page


class Sources:
    """The results of a sweep's folder or a part of it, each read once.

    The sweep's own runs lie directly in its folder; what was derived from them lies deeper.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: dict[str, Results] = {}

    def __getitem__(self, part: str) -> Results:
        if part not in self.read:
            runs = sorted((self.folder / part).glob("*/records.jsonl"))
            if not runs:
                raise UserError(f"{self.folder / part}: no run with records.jsonl in this folder")
            self.read[part] = load_results(runs)
        return self.read[part]


def _table(sources: Sources, spec: dict[str, Any]) -> str:
    results = sources[spec.pop("folder", ".")]
    table = build_table(results, **spec)
    if not any(cell.n for cell in table.cells.values()):
        names = ", ".join(metric.label for metric in table.metrics)
        why = [note for note in table.notes if note.startswith("Not measured: ")]
        raise UserError(" ".join([f"none of these records has {names}.", *why]))
    return render(table, "md").strip()


def _figure(sources: Sources, spec: dict[str, Any]) -> str:
    results, stem = sources[spec.pop("folder", ".")], spec.pop("stem")
    kind = spec.pop("kind")
    picture = save_figure(draw(kind, results, **spec), stem)[0]
    about = ", ".join(str(value) for value in (spec.get("metric"), *spec.get("by", [])) if value)
    return f"![{kind}: {about}]({picture.relative_to(sources.folder).as_posix()})"


def _or_reason(make: Any, sources: Sources, spec: dict[str, Any]) -> str:
    try:
        return make(sources, spec)
    except UserError as error:
        return f"*Left out: {error}*"


def _facts(results: Results) -> list[str]:
    frame = results.frame
    facts = [f"{frame['image'].nunique()} images, {len(frame)} searches."]
    for key in ("git_commit", "versions", "device"):
        if key in frame:
            facts.append(f"{key.replace('_', ' ')}: {'; '.join(labels_in_order(frame[key]))}.")
    return [" ".join(facts)]


def command_of(config: DictConfig) -> str:
    """The command that ran a sweep."""
    return shlex.join(["python", "run.py", *config.hydra.overrides.task])


def _plain(spec: Spec) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.create(dict(spec)), resolve=True)  # type: ignore[return-value]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 for a folder that is no study's."""
    from hydra.utils import instantiate

    from pulse_exp.naming import register_resolvers

    parser = argparse.ArgumentParser(description="Write the page of a finished study again.")
    parser.add_argument("folder", type=Path, help="the sweep's folder, with multirun.yaml")
    folder = parser.parse_args(arguments).folder
    register_resolvers()
    try:
        config = OmegaConf.load(folder / "multirun.yaml")
        config.hydra.sweep.dir = str(folder)
        study = instantiate(config.hydra.callbacks.study)
    except (OSError, AttributeError) as error:
        print(f"{folder}: not the folder of a study ({error})", file=sys.stderr)
        return 2
    study.on_multirun_end(config)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
