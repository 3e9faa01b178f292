"""A window for pictures that change: what `render_mode="human"` shows.

pyplot is imported when the first picture is shown, so that it takes the backend that the user has
chosen; without a display that is Agg, which draws and opens nothing. Knows nothing of environments.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Window:
    """One figure that shows a picture at a time; opened by the first.

    Args:
        title: of the window.
        frame_rate: pictures per second at most, where there is a display.
    """

    def __init__(self, title: str, frame_rate: float) -> None:
        self._title, self._pause = title, 1.0 / frame_rate
        self._figure: Any = None
        self._image: Any = None

    def show(self, picture: np.ndarray) -> None:
        """Show `picture`, (H, W, 3) uint8; a window that was closed by hand opens again."""
        from matplotlib import pyplot

        if self._figure is None or not pyplot.fignum_exists(self._figure.number):
            height, width, _ = picture.shape
            self._figure = pyplot.figure(figsize=(width / 100, height / 100), dpi=100)
            self._figure.canvas.manager.set_window_title(self._title)
            self._image = self._figure.figimage(picture)
        self._image.set_data(picture)
        self._figure.canvas.draw()
        if self._figure.canvas.required_interactive_framework is not None:  # else: no display
            pyplot.pause(self._pause)

    def close(self) -> None:
        """Close it, if it is open."""
        if self._figure is not None:
            from matplotlib import pyplot

            pyplot.close(self._figure)
            self._figure = None
