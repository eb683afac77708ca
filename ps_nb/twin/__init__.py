"""Procedural twins of CUHK-SYSU and PRW: people, places, plans and pictures."""

from .plans import PRESENT, WorldSize

__all__ = [
    "PRESENT", "TWINS", "WorldSize", "render_twin", "twin_parameters",
]


def __getattr__(name: str):
    "What `render` offers, imported when it is asked for: a process that draws scenes needs neither data sets nor torch."
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import render

    return getattr(render, name)
