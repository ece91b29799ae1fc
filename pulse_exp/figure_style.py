"""The look of every figure, and how one is written."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1a1a1a", "#6b6b6b", "#d9d9d9"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
"""Okabe & Ito's palette, for colour-blind readers; markers and dashes for print without colour."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


@contextmanager
def style() -> Iterator[None]:
    """The look of every figure: small sans type, open axes, embedded fonts, fixed ids."""
    import matplotlib

    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 8,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.5,
        "axes.axisbelow": True,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "lines.markersize": 4,
        "savefig.dpi": 200,
        "pdf.fonttype": 42,
        "svg.hashsalt": "pulse_exp",
    }
    with matplotlib.rc_context(settings):
        yield


def save_figure(figure: Figure, output: str | Path) -> list[Path]:
    """Write `output` as `.png` and `.pdf`, without date or version in them; a name that ends in
    `.jpg` is that alone, for large sheets of photographs."""
    stem = Path(output)
    if stem.suffix in (".jpg", ".jpeg"):
        stem.parent.mkdir(parents=True, exist_ok=True)
        with style():
            figure.savefig(stem, pil_kwargs={"quality": 82})
        return [stem]
    if stem.suffix in (".png", ".pdf"):
        stem = stem.with_suffix("")
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.pdf")]
    with style():
        figure.savefig(paths[0], metadata={"Software": None})
        figure.savefig(paths[1], metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return paths


def inline_vector(figure: Figure) -> str:
    """A figure as an SVG element without ground, its ink the text colour of the page around it."""
    buffer = io.StringIO()
    with style():
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Creator": None, "Date": None, "Format": None, "Type": None},
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    for colour, name in ((INK, "currentColor"), (MUTED, "var(--muted)"), (GRID, "var(--rule)")):
        svg = svg.replace(colour, name)
    return svg


def inline_raster(figure: Figure) -> str:
    """A figure with pictures in it as an image element."""
    from PIL import Image

    png, webp = io.BytesIO(), io.BytesIO()
    with style():
        figure.savefig(png, format="png", dpi=150)
    with Image.open(png) as picture:
        width, height = picture.size
        picture.convert("RGB").save(webp, "WEBP", quality=85)
    data = base64.b64encode(webp.getvalue()).decode()
    return (
        f'<img src="data:image/webp;base64,{data}" width="{width // 2}" height="{height // 2}" '
        'alt="">'
    )
