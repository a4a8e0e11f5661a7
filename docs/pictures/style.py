"""What the pictures share: where they are written, and how they look."""

from pathlib import Path

IMAGES = Path(__file__).parents[1] / "images"
STYLE = {
    "font.size": 13,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
}
"""Settings for `matplotlib.pyplot.rc_context`; each script adds the size of its figures."""
