"""What can go wrong, and wrong names of arguments with the right ones."""

from __future__ import annotations

import difflib
import errno as numbers
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class LlmasosError(Exception):
    """Anything that llmasos refuses."""


class Fault(LlmasosError, OSError):
    """The daemon refuses a call. `code` is the name of the error, such as ``"ENOENT"``, and `errno` its number."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(getattr(numbers, code, 0), message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class ProgramNotFound(LlmasosError, FileNotFoundError):
    """A program of llmasos is nowhere."""


class DatasetNotFound(LlmasosError, FileNotFoundError):
    """A data set is nowhere; the message tells where it was looked for, and how to give a path."""


class TrainingError(LlmasosError):
    """The trainer refuses a run, or ended it before its time."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C has ended a run. `folder` has its checkpoints, which ``fit(resume=folder)`` goes on from."""

    def __init__(self, message: str, folder: Path, step: int) -> None:
        super().__init__(message)
        self.folder = folder
        self.step = step


def suggests(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function answer a wrong name of an argument with the right one."""
    signature = inspect.signature(function)
    names = [name for name, parameter in signature.parameters.items() if name != "self"]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in names:
                raise TypeError(
                    f"{function.__qualname__.removesuffix('.__init__')}() has no argument {name!r}{instead(name, names)}"
                )
        return function(*args, **kwargs)

    return checked


def named(kind: type[T]) -> type[T]:
    """Makes a class answer a wrong name of an argument with the right one."""
    kind.__init__ = suggests(kind.__init__)  # type: ignore[method-assign]
    return kind


def instead(name: str, names: list[str]) -> str:
    """What to write instead of a name that there is not."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(names) or 'none'}"
