"""The figures of a run. Numbers come in as arrays; nothing is read or written here.

There is one module per kind of figure: `draw_...` makes a matplotlib figure out of arrays, also for
notebooks, and `..._drawing` adds a caption and a description. Only matplotlib's objects are used,
never pyplot, so there is no global figure and no display is needed. matplotlib is imported inside
functions, because importing it takes half a second.
"""

from trialrun.report.figures.draw import draw_figures, run_drawings
from trialrun.report.figures.images import Drawing, RunFigure

__all__ = ["Drawing", "RunFigure", "draw_figures", "run_drawings"]
