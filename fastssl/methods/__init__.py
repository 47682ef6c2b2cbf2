"""Methods of self-supervised learning, one file each."""

from fastssl.methods.method import Method, Settings
from fastssl.methods.simclr import SimCLR

__all__ = ["METHODS", "Method", "Settings", "SimCLR", "find"]

METHODS: dict[str, type[Method]] = {"simclr": SimCLR}


def find(name: str) -> type[Method]:
    """The method of this name.

    Raises:
        ValueError: There is none.

    >>> find("simclr").__name__
    'SimCLR'
    """
    if name not in METHODS:
        raise ValueError(f"method={name!r} is unknown; write one of {', '.join(map(repr, METHODS))}.")
    return METHODS[name]
