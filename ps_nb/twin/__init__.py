"""Procedural twins of CUHK-SYSU and PRW: people, places, plans and pictures."""

from .plans import WorldSize
from .render import TWINS, render_twin

__all__ = [
    "TWINS", "WorldSize", "render_twin",
]
