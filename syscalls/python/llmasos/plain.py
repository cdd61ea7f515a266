"""Values as JSON has them."""

from __future__ import annotations

import os
from typing import Any


def plain(value: Any) -> Any:
    """What is written for a value that JSON does not know: a number of numpy's is one, an array is a list, and a path is
    text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no form in JSON; give a number, a text, a list or a dictionary")
