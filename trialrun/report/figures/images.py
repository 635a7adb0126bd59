"""Turns figures into bytes: PNG for the page, SVG for papers; equal figures give equal bytes."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trialrun.report.figures.text import no_glyph_warnings, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SETTINGS: Any = {
    # Letters become paths, because the layout is measured in the font that comes with matplotlib.
    # In another font, as on a reader's machine, text would be cut off or overlap.
    "svg.fonttype": "path",
    # Without it the ids inside an SVG are random.
    "svg.hashsalt": "trialrun",
}
# Metadata that would depend on the time and on the version of matplotlib.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class RunFigure:
    """A figure as images, with its caption and description.

    Attributes:
        name: File name without suffix.
        caption: A sentence or two under the figure: what it shows and how to read it.
        alt: What it shows, with its numbers, for those who cannot see it.
        png: The image.
        svg: The same image as vectors: UTF-8, without references to anything outside.
    """

    name: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A figure before it is turned into images.

    Attributes:
        name, caption, alt: See `RunFigure`.
        figure: The matplotlib figure, which is not registered with pyplot.
    """

    name: str
    caption: str
    alt: str
    figure: "Figure"


def render(drawing: Drawing) -> RunFigure:
    """The drawing as images."""
    caption, alt = printable(drawing.caption), printable(drawing.alt)
    svg = to_svg(drawing.figure, title=caption)
    return RunFigure(drawing.name, caption, alt, to_png(drawing.figure), svg)


def to_png(figure: "Figure") -> bytes:
    """The figure as a PNG image of 256 colors, a third of the size without a visible difference."""
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
    """The figure as an SVG image that is the same each time: fixed ids and order, and no date.

    Args:
        figure: The figure.
        title: The name that browsers and screen readers give to the image.
    """
    from matplotlib import rc_context

    image = io.BytesIO()
    with rc_context(_SETTINGS), no_glyph_warnings():
        figure.savefig(image, format="svg", metadata={"Title": title, **_NO_METADATA})
    # Before <svg> there is only a document type, which refers to another host.
    content = image.getvalue()
    return content[content.index(b"<svg") :]


@contextmanager
def own_settings() -> Iterator[None]:
    """Within this context, matplotlib has its default settings, whatever the user has set."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
