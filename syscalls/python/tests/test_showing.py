"""What is shown of a run: the bar on a terminal, lines elsewhere, and the curve."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pty
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from llmasos import fitting, trainer
from llmasos.callbacks import Callback
from llmasos.errors import Fault, TrainingError
from llmasos.history import History
from llmasos.progress import Progress, duration

STEP = {"event": "step", "step": 3, "steps": 12, "loss": 2.5, "rate": 1e-3, "norm": 0.5, "tokens": 96}
SPEED = {"tokens_per_s": 1234.5, "eta_s": 75.0}
EVALUATION = {"event": "evaluation", "step": 4, "loss": 2.25, "perplexity": 9.5, "best": True}


def entry(values: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """An entry as it comes out of the log."""
    return fitting.entry(json.dumps({**values, **changed}))


def on_terminal(columns: int, *entries: dict[str, Any]) -> str:
    """What a terminal of so many columns gets to see."""
    ours, theirs = pty.openpty()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        with os.fdopen(theirs, "w") as out:
            progress = Progress(True, out)
            for each in entries:
                progress.tell(each)
            progress.close()
        # The terminal hands on what was written when it comes to it, and ends when all of it was read.
        seen = b""
        with contextlib.suppress(OSError):
            while more := os.read(ours, 1 << 16):
                seen += more
        return seen.decode()
    finally:
        os.close(ours)
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


class Showing(unittest.TestCase):
    def test_bar_on_a_terminal_grows_and_makes_room_for_lines_that_stay(self) -> None:
        steps = [entry(STEP, **SPEED, step=step) for step in (3, 6)]
        seen = on_terminal(80, steps[0], entry(EVALUATION), steps[1])
        first, second = (part for part in seen.split("\r") if "▕" in part)
        self.assertIn("3/12 ▕", first)
        self.assertIn("loss 2.500  1,234 tokens/s  1 min 15 s left", first)
        self.assertEqual(second.count("█"), 2 * first.count("█"), "twice the steps")
        self.assertTrue(all(len(part.split("\x1b")[0]) < 80 for part in (first, second)), "it fits into a line")
        self.assertIn("\r\x1b[Kstep 4: validation loss 2.250, perplexity 9.5, the best so far\r\n", seen)
        self.assertTrue(seen.endswith("\r\n"), "what follows begins a line")

    def test_narrow_terminal_has_no_bar_and_one_line_all_the_same(self) -> None:
        seen = on_terminal(30, entry(STEP, **SPEED))
        self.assertNotIn("▕", seen)
        self.assertLess(len(seen.strip().split("\x1b")[0]), 30)

    def test_no_terminal_gets_a_line_for_each_evaluation_alone(self) -> None:
        out = io.StringIO()
        progress = Progress(True, out)
        progress.tell(entry(STEP, **SPEED))
        progress.tell(entry(EVALUATION, accuracy=0.5))
        progress.close()
        self.assertEqual(out.getvalue(), "step 4: validation loss 2.250, perplexity 9.5, accuracy 50.0%, the best so far\n")

    def test_numbers_that_are_none_are_shown_as_such(self) -> None:
        seen = on_terminal(100, entry(STEP, **{**SPEED, "eta_s": None}, loss=None), entry(EVALUATION, loss=None))
        self.assertIn("loss nan", seen)
        self.assertIn("validation loss nan", seen)
        self.assertEqual(duration(math.nan), "? s")
        history = History(Path("run"), [entry(STEP, **SPEED, loss=None)])
        self.assertTrue(math.isnan(history.loss[0]))
        self.assertIn("loss nan", repr(history))

    def test_log_that_ends_within_a_character_so_far_is_followed(self) -> None:
        line = '{"event":"sample","step":3,"text":"今天"}\n'.encode()
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log.jsonl"
            entries = fitting.follow(log, None)
            self.assertIsNone(next(entries), "there is no log yet")
            for end in range(len(line)):
                log.write_bytes(line[:end])
                self.assertIsNone(next(fitting.follow(log, None)), line[:end])
            self.assertIsNone(next(entries))
            log.write_bytes(line)
            self.assertEqual(next(entries), {"event": "sample", "step": 3, "text": "今天"})

    def test_callback_that_says_no_when_the_run_has_ended_by_itself_changes_nothing(self) -> None:
        class Gone:
            """A client of a daemon that has forgotten the run."""

            def call(self, name: str, **args: Any) -> None:
                raise Fault("ESRCH", "no such process")

        class Late(Callback):
            def on_end(self, entry: dict[str, Any]) -> bool | None:
                return False

        client: Any = Gone()
        run = fitting.Run(client, Path("run"), [Late()], Progress(False))
        run.tell("end", {"event": "end", "step": 3})
        self.assertTrue(run.asked_to_end)

    def test_ctrl_c_when_the_run_has_ended_by_itself_is_told_as_ctrl_c(self) -> None:
        client = mock.MagicMock()
        client.__enter__.return_value = client
        client.call.side_effect = lambda name, **args: [] if name == "ps" else self.forgotten()
        run = fitting.Run(client, Path("run"), [], Progress(False))
        with mock.patch.object(fitting, "Client", return_value=client):
            self.assertIsInstance(run.interrupted(), KeyboardInterrupt)

    def test_specification_that_no_program_can_be_started_with_is_refused_in_a_sentence(self) -> None:
        with mock.patch("llmasos.paths.program", return_value=Path("/bin/true")):
            with self.assertRaisesRegex(TrainingError, "put the files into a folder"):
                trainer.resolve({"data": {"train": {"Text": [f"/texts/{number}.txt" for number in range(20_000)]}}})

    def forgotten(self) -> None:
        raise Fault("ESRCH", "no such process")

    def test_curve_is_drawn_into_axes(self) -> None:
        class Axes:
            """What `plot` asks of matplotlib's."""

            def __init__(self) -> None:
                self.lines: dict[str, tuple[list[int], list[float]]] = {}
                self.calls: list[tuple[str, str]] = []

            def plot(self, x: list[int], y: list[float], label: str) -> None:
                self.lines[label] = (x, y)

            def set_xlabel(self, text: str) -> None:
                self.calls.append(("x", text))

            def set_ylabel(self, text: str) -> None:
                self.calls.append(("y", text))

            def legend(self) -> None:
                self.calls.append(("legend", ""))

        history = History(Path("run"), [entry(STEP, step=step, loss=3.0 - step) for step in (1, 2)] + [EVALUATION])
        axes = Axes()
        self.assertIs(history.plot(ax=axes), axes)
        self.assertEqual(axes.lines, {"training": ([1, 2], [2.0, 1.0]), "validation": ([4], [2.25])})
        self.assertEqual(axes.calls, [("x", "step"), ("y", "loss"), ("legend", "")])
        with self.assertRaisesRegex(ValueError, "ends with '.pdf'"):
            history.plot("curve.pdf")


if __name__ == "__main__":
    unittest.main()
