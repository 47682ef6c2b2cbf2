"""Recipes for the views of each method; see `fastssl.transforms.recipes`."""

from fastssl.transforms.recipes import evaluation, simclr

__all__ = ["evaluation", "simclr"]
