"""Procedural twins of CUHK-SYSU and PRW: people, places, plans and pictures."""

from .plans import WorldSize

__all__ = [
    "TWINS", "WorldSize", "render_twin",
]


def __getattr__(name: str):
    "What `render` offers, imported when it is asked for: a process that draws scenes needs neither data sets nor torch."
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import render

    return getattr(render, name)
