"""Figures as bytes: PNG for the page, SVG for papers; the same bytes whenever they are made."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trialrun.report.figures.text import no_glyph_warnings, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SETTINGS: Any = {
    # Paths and no text: the layout is measured in the font that comes with matplotlib. In another
    # font, as a reader's machine may have it, text would be cut off or lie on other text.
    "svg.fonttype": "path",
    # The ids inside an SVG are random without it.
    "svg.hashsalt": "trialrun",
}
# What else would tell when and with which version of matplotlib it was made.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class RunFigure:
    """A figure and what it says.

    Attributes:
        name: File name without suffix.
        caption: A sentence or two under the figure: what it shows and how to read it.
        alt: What it shows, with its numbers, for those who cannot see it.
        png: The image.
        svg: The same image in lines: UTF-8, refers to nothing outside itself.
    """

    name: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A figure before it is an image.

    Attributes:
        name, caption, alt: As of `RunFigure`.
        figure: matplotlib's; no pyplot knows it.
    """

    name: str
    caption: str
    alt: str
    figure: "Figure"


def render(drawing: Drawing) -> RunFigure:
    """The drawing as images."""
    caption, alt = plain(drawing.caption), plain(drawing.alt)
    svg = to_svg(drawing.figure, title=caption)
    return RunFigure(drawing.name, caption, alt, to_png(drawing.figure), svg)


def to_png(figure: "Figure") -> bytes:
    """The figure as a PNG image of 256 colors: a third of the size, and no difference to see."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, image = FigureCanvasAgg(figure), io.BytesIO()
    with no_glyph_warnings():
        canvas.draw()  # type: ignore[no-untyped-call]
    drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    pixels = Image.fromarray(drawn).convert("RGB")
    few = pixels.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(image, "png", dpi=(figure.dpi, figure.dpi))
    return image.getvalue()


def to_svg(figure: "Figure", *, title: str) -> bytes:
    """The figure as an SVG image: ids and order are the same each time, and no date is in it.

    Args:
        figure: Drawn.
        title: The name that browsers and screen readers give to the image.
    """
    from matplotlib import rc_context

    image = io.BytesIO()
    with rc_context(_SETTINGS), no_glyph_warnings():
        figure.savefig(image, format="svg", metadata={"Title": title, **_NO_METADATA})
    # Nothing before <svg> but a reference to the type of the document on another host.
    content = image.getvalue()
    return content[content.index(b"<svg") :]


@contextmanager
def own_settings() -> Iterator[None]:
    """matplotlib as it comes, whatever a user's matplotlibrc or notebook says; then as before."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
