"""A table as Markdown, LaTeX, CSV, HTML or text for a terminal."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pulse_exp.grouping import is_problem, speaking_labels
from pulse_exp.metrics.catalog import MetricInfo
from pulse_exp.tables import Cell, Group, Labels, Place, Table

FORMATS = ("md", "tex", "csv", "html", "terminal")


@dataclass(frozen=True)
class Entry:
    """A cell in words: `text`, a dagger where it differs from the baseline, and a remark."""

    text: str
    best: bool = False
    differs: bool = False
    remark: str = ""


@dataclass(frozen=True)
class Column:
    """One column of numbers under a column label: a metric, or n where `metric` is None."""

    labels: Labels
    metric: MetricInfo | None

    @property
    def heading(self) -> str:
        if self.metric is None:
            return "n"
        unit = f" ({self.metric.unit})" if self.metric.unit else ""
        return f"{self.metric.label}{unit} {self.metric.direction}".rstrip()


def render(table: Table, format: str, styled: bool = False) -> str:
    """The table in one of `FORMATS`, ending in a newline; `styled` adds a terminal's bold type."""
    if format == "terminal":
        return _terminal(table, styled)
    renderers: dict[str, Callable[[Table], str]] = {
        "md": _markdown,
        "tex": _latex,
        "csv": _csv,
        "html": _html_page,
    }
    return renderers[format](table)


def number(value: float, decimals: int) -> str:
    """Rounded, with a real minus sign and none before a zero."""
    text = f"{value:,.{decimals}f}".replace(",", "\u2009")
    if not text.strip("-0.\u2009"):
        text = text.lstrip("-")
    return text.replace("-", "−")


def columns_of(table: Table) -> list[Column]:
    """A column for each metric under each label, and one for n where n is not the same in all."""
    with_n = _common_n(table) is None
    metrics: list[MetricInfo | None] = [*([None] if with_n else []), *table.metrics]
    return [Column(labels, metric) for labels in table.cols for metric in metrics]


def entry_of(table: Table, place: Place, column: Column) -> Entry:
    group = table.groups.get(place)
    if group is None:
        return Entry("no records" if column.metric else "–")
    if column.metric is None:
        return Entry(f"{group.images}" + (f", {group.failed} failed" if group.failed else ""))
    return _entry_of_metric(table.cells[place, column.metric.key], column.metric, group)


def _entry_of_metric(cell: Cell, metric: MetricInfo, group: Group) -> Entry:
    images = group.images
    if cell.n == 0:
        if metric.key in ("steps_to_solve", "seconds_to_solve") and images:
            return Entry("–" if group.solved else "none solved")  # a baseline solves in no steps
        return Entry("not measured" if images else "all failed")
    text = number(cell.mean, metric.decimals)
    if cell.low == cell.low:
        text += f" ± {number(max(cell.mean - cell.low, cell.high - cell.mean), metric.decimals)}"
    of_runs = metric.scope == "run"
    remark = "" if of_runs or cell.n == images else f"n = {cell.n}"
    return Entry(text, cell.best, cell.differs, remark)


def notes_of(table: Table, best: str) -> list[str]:
    """The notes under a table; `best` says how this format shows the best of a column."""
    notes = []
    n = _common_n(table)
    if n is not None:
        notes.append(f"n = {n} image{'s' if n != 1 else ''} in every cell.")
    if any(cell.best for cell in table.cells.values()):
        notes.append(f"{best}: the best mean {_contest_in_words(table)}.")
    return notes + table.notes


def _contest_in_words(table: Table) -> str:
    mixed = [key for key in table.row_keys if is_problem(key)]
    if len(mixed) == len(table.row_keys):
        return "of the row"
    place = "of the column in its block" if len(table.blocks) > 1 else "of the column"
    return place + (f" at the same {' and '.join(mixed)}" if mixed else "")


def _common_n(table: Table) -> int | None:
    """The number of images of every cell, where it is one and nothing failed; else None."""
    numbers = {group.images for group in table.groups.values()}
    if len(numbers) != 1 or any(group.failed for group in table.groups.values()):
        return None
    return numbers.pop()


def _title(keys: Labels, labels: Labels) -> str:
    return ", ".join(f"{key} = {label}" for key, label in zip(keys, labels, strict=True))


def _flat_headings(table: Table) -> list[str]:
    shown = [
        " · ".join([*speaking_labels(table.col_keys, column.labels), column.heading])
        for column in columns_of(table)
    ]
    return [*table.row_keys, *shown]


def _markdown(table: Table) -> str:
    def escape(text: str) -> str:
        for character in "\\|*_<`":
            text = text.replace(character, f"\\{character}")
        return text

    def show(entry: Entry) -> str:
        text = f"**{entry.text}**" if entry.best else entry.text
        return text + ("†" if entry.differs else "") + (f" ({entry.remark})" * bool(entry.remark))

    columns = columns_of(table)
    parts = []
    for block in table.blocks:
        lines = [f"**{escape(_title(table.block_keys, block))}**", ""] if block else []
        lines.append("| " + " | ".join(map(escape, _flat_headings(table))) + " |")
        lines.append("|" + " --- |" * len(table.row_keys) + " ---: |" * len(columns))
        for row in table.rows:
            cells = [show(entry_of(table, (block, row, c.labels), c)) for c in columns]
            lines.append("| " + " | ".join([*map(escape, row), *cells]) + " |")
        parts.append("\n".join(lines))
    notes = "\n".join(f"- {escape(note)}" for note in notes_of(table, best="Bold"))
    return "\n\n".join([*parts, notes]).rstrip() + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "°": r"$^{\circ}$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "†": r"$^{\dagger}$",
    "·": r"$\cdot$",
    "–": "--",
    "\u2009": r"\,",
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _latex(table: Table) -> str:
    def show(entry: Entry) -> str:
        text = _escape_latex(entry.text)
        text = rf"\textbf{{\boldmath {text}}}" if entry.best else text
        dagger = _escape_latex("†") if entry.differs else ""
        return text + dagger + (f" ({_escape_latex(entry.remark)})" if entry.remark else "")

    columns = columns_of(table)
    first = len(table.row_keys)
    lines = ["% needs \\usepackage{booktabs}"]
    lines.append(rf"\begin{{tabular}}{{{'l' * first}{'r' * len(columns)}}}")
    lines.append(r"\toprule")
    for level, key in enumerate(table.col_keys):
        corner = rf"\multicolumn{{{first}}}{{l}}{{{_escape_latex(key)}}}"
        cells, rules, at = [corner], [], first + 1
        for label, span in _spans(columns, level):
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{_escape_latex(label)}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
            at += span
        lines += [" & ".join(cells) + r" \\", " ".join(rules)]
    headings = [*table.row_keys, *(column.heading for column in columns)]
    lines.append(" & ".join(map(_escape_latex, headings)) + r" \\")
    for block in table.blocks:
        lines.append(r"\midrule")
        if block:
            title = _escape_latex(_title(table.block_keys, block))
            lines.append(rf"\multicolumn{{{first + len(columns)}}}{{l}}{{\textit{{{title}}}}} \\")
        for row in table.rows:
            cells = [show(entry_of(table, (block, row, c.labels), c)) for c in columns]
            lines.append(" & ".join([*map(_escape_latex, row), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\par\smallskip", r"\begin{footnotesize}"]
    lines += [rf"{_escape_latex(note)}\par" for note in notes_of(table, best="Bold")]
    return "\n".join([*lines, r"\end{footnotesize}"]) + "\n"


def _spans(columns: Sequence[Column], level: int) -> list[tuple[str, int]]:
    """The headings of one level of the column labels, each with the columns it spans."""
    grouped = itertools.groupby(columns, key=lambda column: column.labels[: level + 1])
    return [(labels[level], len(list(group))) for labels, group in grouped]


def _csv(table: Table) -> str:
    return str(table.tidy().to_csv(index=False, float_format="%.10g", lineterminator="\n"))


def html_table(table: Table) -> str:
    """The table and its notes as an HTML fragment: `table.results` and `ul.notes`.

    Each cell of numbers has the place it stands in as `data-place`, see `place_id`.
    """

    def show(place: Place, column: Column) -> str:
        entry = entry_of(table, place, column)
        text = html.escape(entry.text)
        text = f"<strong>{text}</strong>" if entry.best else text
        text += "<sup>†</sup>" if entry.differs else ""
        text += f' <span class="remark">({html.escape(entry.remark)})</span>' * bool(entry.remark)
        return f'<td data-place="{place_id(table, place)}">{text}</td>'

    columns = columns_of(table)
    head = []
    for level, key in enumerate(table.col_keys):
        corner = f'<th class="corner" colspan="{len(table.row_keys)}">{html.escape(key)}</th>'
        spans = (
            f'<th class="span" colspan="{span}">{html.escape(label)}</th>'
            for label, span in _spans(columns, level)
        )
        head.append(corner + "".join(spans))
    keys = "".join(f'<th scope="col" class="key">{html.escape(k)}</th>' for k in table.row_keys)
    headings = (
        f'<th scope="col" title="{html.escape(c.metric.description if c.metric else "images")}">'
        f"{html.escape(c.heading)}</th>"
        for c in columns
    )
    head.append(keys + "".join(headings))
    lines = ['<table class="results">', "<thead>"]
    lines += [f"<tr>{line}</tr>" for line in head]
    lines.append("</thead>")
    for block in table.blocks:
        lines.append("<tbody>")
        if block:
            title = html.escape(_title(table.block_keys, block))
            width = len(table.row_keys) + len(columns)
            lines.append(
                f'<tr><th class="block" scope="rowgroup" colspan="{width}">{title}</th></tr>'
            )
        for row in table.rows:
            labels = "".join(f'<th scope="row">{html.escape(label)}</th>' for label in row)
            cells = "".join(show((block, row, column.labels), column) for column in columns)
            lines.append(f"<tr>{labels}{cells}</tr>")
        lines.append("</tbody>")
    lines += ["</table>", '<ul class="notes">']
    lines += [f"<li>{html.escape(note)}</li>" for note in notes_of(table, best="Bold")]
    return "\n".join([*lines, "</ul>"]) + "\n"


def place_id(table: Table, place: Place) -> str:
    """A short name of a place: the indices of its block, row and column."""
    block, row, col = place
    return f"{table.blocks.index(block)}-{table.rows.index(row)}-{table.cols.index(col)}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Results</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; }}
table {{ border-collapse: collapse; border-block: 2px solid; }}
th, td {{ padding: .25rem .75rem; text-align: right; }}
th.key, tbody th, .corner {{ text-align: left; font-weight: normal; }}
th.span {{ text-align: center; border-bottom: 1px solid; }}
tbody {{ border-top: 1px solid; }}
.notes {{ font-size: .85em; max-width: 70ch; padding-left: 1.2em; }}
</style></head><body>
{table}</body></html>
"""


def _html_page(table: Table) -> str:
    return _PAGE.format(table=html_table(table))


def _terminal(table: Table, styled: bool) -> str:
    """A rich table; the best of a column has an asterisk, and bold type where `styled`."""
    import io

    import rich.box
    import rich.table
    from rich.console import Console
    from rich.text import Text

    def show(entry: Entry) -> Text:
        text = entry.text + ("*" if entry.best else "") + ("†" if entry.differs else "")
        remark = f" ({entry.remark})" if entry.remark else ""
        return Text(text + remark, style="bold" if entry.best else "")

    columns = columns_of(table)
    output = io.StringIO()
    # Without a terminal there is no width to keep to: the table is as wide as its text.
    console = Console(
        file=output,
        force_terminal=styled,
        color_system="standard" if styled else None,
        width=None if styled else 10_000,
    )
    for block in table.blocks:
        title = Text(_title(table.block_keys, block)) if block else None
        shown = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left")
        for key in table.row_keys:
            shown.add_column(Text(key), no_wrap=True)
        for column in columns:
            shown.add_column(
                Text("\n".join([*speaking_labels(table.col_keys, column.labels), column.heading])),
                justify="right",
            )
        for row in table.rows:
            cells = [show(entry_of(table, (block, row, c.labels), c)) for c in columns]
            shown.add_row(*map(Text, row), *cells)
        console.print(shown)
    for note in notes_of(table, best="*"):
        console.print(Text(note))
    lines = (line.rstrip() for line in output.getvalue().splitlines())
    return "\n".join(lines).strip("\n") + "\n"
