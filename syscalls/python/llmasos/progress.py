"""A progress bar on a terminal; elsewhere a line for each evaluation."""

from __future__ import annotations

import math
import shutil
import sys
from typing import Any, TextIO

BLOCKS = " ▏▎▍▌▋▊▉█"


class Progress:
    """Shows the entries of a run's log."""

    def __init__(self, shown: bool, out: TextIO | None = None) -> None:
        self.out = out or sys.stderr
        self.shown = shown
        self.bar = shown and self.out.isatty()

    def note(self, text: str) -> None:
        """Writes lines that stay."""
        if self.shown:
            erase = "\r\x1b[K" if self.bar else ""
            print(erase + text, file=self.out, flush=True)

    def tell(self, entry: dict[str, Any]) -> None:
        """Shows an entry."""
        event = entry["event"]
        if event == "step" and self.bar:
            columns = shutil.get_terminal_size().columns
            self.out.write("\r" + line(entry, columns) + "\x1b[K")
            self.out.flush()
        elif event == "evaluation":
            best = ", the best so far" if entry["best"] else ""
            accuracy = f", accuracy {entry['accuracy']:.1%}" if "accuracy" in entry else ""
            figures = f"validation loss {entry['loss']:.3f}, perplexity {entry['perplexity']:.1f}{accuracy}"
            self.note(f"step {entry['step']}: {figures}{best}")
        elif event == "sample":
            self.note(f"step {entry['step']}: {printable(entry['text'])}")
        elif event == "checkpoint" and "error" in entry:
            self.note(f"step {entry['step']}: {entry['error']}")

    def close(self) -> None:
        """Ends the bar's line."""
        if self.bar:
            print(file=self.out, flush=True)


def line(entry: dict[str, Any], columns: int) -> str:
    """One line about a step, as wide as it may be."""
    step, steps = entry["step"], entry["steps"]
    left = f"{step}/{steps} "
    right = f" loss {entry['loss']:.3f}  {entry['tokens_per_s']:,.0f} tokens/s  {duration(entry['eta_s'])} left"
    width = min(40, columns - len(left) - len(right) - 3)
    if width < 4:
        return (left + right)[: columns - 1]
    eighths = round(8 * width * step / steps)
    bar = "█" * (eighths // 8) + BLOCKS[eighths % 8] * (eighths % 8 > 0)
    return f"{left}▕{bar:<{width}}▏{right}"


def duration(seconds: float) -> str:
    """A time in its largest two units."""
    if math.isnan(seconds):
        return "? s"
    whole = int(max(0.0, min(seconds, 1e9)))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def printable(text: str) -> str:
    """A text without what would move the terminal's cursor."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
