"""Search for a person in photographs and videos of a user."""

from .index import index_images, load_index, search_box, search_index

__all__ = [
    "index_images", "load_index", "search_box", "search_index",
]
