"""Person search from notebooks: five papers, their systems and their tables."""

__version__ = "0.1.0"
