"""The terminal, on which no text of others can do more than be read."""

from collections.abc import Iterable
from typing import Any

from rich import console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from trialrun.messages import visible


class Console(console.Console):
    """Rich's console, which shows control characters instead of obeying them.

    A run folder may be another's: its names and errors could hold sequences that move the cursor,
    change the window's title, or paste commands. Rich's own control codes are not text.
    Nor is text markup: a path may hold brackets.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of what is printed, their text made visible."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)
