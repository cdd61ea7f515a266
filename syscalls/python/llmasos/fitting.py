"""A run, from its specification to its history: started as a process of the daemon, and followed in its log."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import trainer
from .callbacks import Callback
from .client import Client
from .errors import Fault, TrainingError, TrainingInterrupted
from .history import History
from .progress import Progress

#: How often the log is looked at, in milliseconds.
LOOK_EVERY_MS = 100

#: Exit statuses by which a signal that this program has sent ends a run, with a checkpoint.
BY_SIGNAL = (130, 143)


class Run:
    """A run that is under way."""

    def __init__(self, client: Client, folder: Path, callbacks: Iterable[Callback], progress: Progress) -> None:
        self.client = client
        self.folder = folder
        self.callbacks = list(callbacks)
        self.progress = progress
        self.history = History(folder)
        self.asked_to_end = False
        self.pid = 0
        #: The step that it goes on from.
        self.behind = 0
        self.log: Iterator[dict[str, Any] | None] = iter(())

    def start(self, spec: dict[str, Any], resume: bool, **process: Any) -> None:
        """Has the daemon start it."""
        log = self.folder / "log.jsonl"
        self.behind = checkpoint_step(self.folder) if resume else 0
        self.log = follow(log, log.stat().st_ino if log.exists() else None)
        self.pid = self.client.call("train", spec=spec, resume=resume, **process)["pid"]

    def finish(self) -> History:
        """Stays with it to its end."""
        try:
            status = self.watch()
        except KeyboardInterrupt:
            raise self.interrupted() from None
        except BaseException:
            # Such as one of a callback, which may end the program: nobody would watch the run any more. Where the daemon is
            # gone, there is none.
            with contextlib.suppress(Fault):
                self.end("TERM")
            raise
        finally:
            self.progress.close()
        if status != 0 and not (self.asked_to_end and status in BY_SIGNAL):
            raise TrainingError(self.why(status))
        return self.history

    def watch(self) -> int:
        """Tells of what is in the log until the process has ended, and gives its status."""
        self.tell("begin", self.folder)
        while True:
            status = self.client.ended(self.pid, LOOK_EVERY_MS)
            for entry in self.log:
                if entry is None:
                    break
                self.history.entries.append(entry)
                if entry["step"] > self.behind:
                    self.progress.tell(entry)
                    self.tell(entry["event"], entry)
            if status is not None:
                return status

    def tell(self, event: str, about: Any) -> None:
        """Tells all callbacks; one of them may end the run."""
        for callback in self.callbacks:
            if getattr(callback, f"on_{event}")(about) is False and not self.asked_to_end:
                self.asked_to_end = True
                self.kill(self.client, "TERM")

    def kill(self, client: Client, signal: str) -> None:
        """Sends it a signal. It may have ended by itself meanwhile, and been waited for."""
        try:
            client.call("kill", pid=self.pid, signal=signal)
        except Fault as fault:
            if fault.code != "ESRCH":
                raise

    def interrupted(self) -> TrainingInterrupted:
        """Ends it, and says where its checkpoint is. A second Ctrl-C waits for nothing."""
        self.end("INT")
        step = checkpoint_step(self.folder)
        if step == 0:
            return TrainingInterrupted("training was interrupted before its first step", self.folder, 0)
        message = (
            f"training was interrupted; {self.folder}/checkpoints/last is the checkpoint of step {step}. "
            f"Go on with fit(…, resume={str(self.folder)!r})"
        )
        return TrainingInterrupted(message, self.folder, step)

    def end(self, signal: str) -> None:
        """Ends it with a checkpoint, and waits for that."""
        # What was being waited for is not wanted any more; a connection of its own has no answers under way.
        with Client(self.client.socket_path, name="python") as client:
            self.kill(client, signal)
            while any(process["pid"] == self.pid and process["state"] != "zombie" for process in client.call("ps")):
                time.sleep(0.05)

    def why(self, status: int) -> str:
        """Why it has failed, by what it has printed."""
        printed = self.client.call("output", pid=self.pid, lines=20)["lines"]
        texts = [line["text"] for line in printed]
        return trainer.reason(texts) or f"the run ended with status {status}; its folder is {self.folder}"


def checkpoint_step(folder: Path) -> int:
    """The step of the newest checkpoint of a run, 0 where there is none."""
    last = folder / "checkpoints/last"
    return int(last.resolve().name.rpartition("-")[2]) if last.exists() else 0


def follow(path: Path, old: int | None) -> Iterator[dict[str, Any] | None]:
    """The entries of a log as they come, and `None` where there are no more yet. A run begins its log as a new file; one
    with the number `old` is that of the run before.
    """
    while not path.exists() or path.stat().st_ino == old:
        yield None
    rest = b""
    with path.open("rb") as file:
        while True:
            # What is being written may end anywhere so far, within a character, too.
            *lines, rest = (rest + file.read()).split(b"\n")
            yield from map(entry, lines)
            yield None


def entry(line: str | bytes) -> dict[str, Any]:
    """An entry of a log. Numbers that are none, such as a loss, are null in JSON."""
    read: dict[str, Any] = json.loads(line)
    return {name: math.nan if value is None else value for name, value in read.items()}
