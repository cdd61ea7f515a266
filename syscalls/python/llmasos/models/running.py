"""Trained models at work: mounted in the daemon, or in a process of their own that answers messages."""

from __future__ import annotations

import itertools
import tempfile
import weakref
from pathlib import Path
from typing import Any

from .. import daemon, tensors, trainer
from ..client import Client
from ..errors import Fault, LlmasosError, TrainingError

#: How often it is looked whether a process that should answer has ended, in milliseconds.
LOOK_EVERY_MS = 1000

_numbers = itertools.count(1)


class Mount:
    """A model that llama.cpp runs for the daemon. `name` is `None` where it does not, or this user may not mount."""

    def __init__(self, name: str | None, client: Client, folder: tempfile.TemporaryDirectory[str]) -> None:
        self.name = name
        self.client = client
        self._end = weakref.finalize(self, _unmount, client, name, folder)

    @classmethod
    def of(cls, model: Path) -> Mount:
        """Mounts a GGUF, or the model of a folder."""
        client = daemon.shared()
        # It has the file for as long as it is mounted: a worker that dies is started with it again.
        folder = tempfile.TemporaryDirectory(prefix="llmasos-")
        file = model
        if model.is_dir():
            file = Path(folder.name) / "model.gguf"
            try:
                trainer.export(model, file, "gguf")
            except TrainingError:
                # GGUF has no place for this model, or its vocabulary.
                return cls(None, client, folder)
        name = f"python-{client.pid}-{next(_numbers)}"
        try:
            client.call("mount", path=str(file), name=name)
        except Fault as fault:
            if model.is_dir() and fault.code in ("EPERM", "ENOEXEC", "EACCES"):
                return cls(None, client, folder)
            raise
        return cls(name, client, folder)

    def close(self) -> None:
        """Unmounts it."""
        self._end()


def _unmount(client: Client, name: str | None, folder: tempfile.TemporaryDirectory[str]) -> None:
    if name is not None:
        try:
            client.call("unmount", name=name, force=True)
        except (Fault, ValueError):
            # The daemon has ended, or the connection was closed.
            pass
    folder.cleanup()


class Predictor:
    """A process that has a model, and answers messages: ``llmasos-trainer predict``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = daemon.connect(name="asks")
        self.pid: int | None = None
        self._end = weakref.finalize(self, self.client.close)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Asks, and waits for the answer. A process that ended for want of questions is started again."""
        question = {name: value for name, value in question.items() if value is not None}
        if self.pid is None or self.client.ended(self.pid, 0) is not None:
            self.pid = self._start()
        self.client.call("send", pid=self.pid, data=question)
        while True:
            try:
                answer: dict[str, Any] = self.client.call("receive", timeout_ms=LOOK_EVERY_MS)["data"]
                break
            except Fault as fault:
                if fault.code != "ETIMEDOUT":
                    raise
            status = self.client.ended(self.pid, 0)
            if status is not None:
                lines = self.client.call("output", pid=self.pid, lines=20)["lines"]
                self.pid = None
                raise LlmasosError(trainer.reason([line["text"] for line in lines]) or f"it ended with {status}")
        if "error" in answer:
            raise LlmasosError(answer["error"])
        return answer

    def drop(self) -> None:
        """Ends the process with its connection, on which an answer may be under way."""
        self._end()

    def _start(self) -> int:
        folder = str(self.folder)
        spawned = self.client.call(
            "spawn",
            name="predict",
            class_="interactive",
            argv=["llmasos-trainer", "predict", folder],
            read=[folder, *tensors.links(self.folder)],
        )
        pid: int = spawned["pid"]
        return pid

    def close(self) -> None:
        """Ends the process."""
        if self.pid is not None and self._end.alive:
            try:
                self.client.call("kill", pid=self.pid)
            except Fault as fault:
                if fault.code not in ("ESRCH", "ECONNRESET"):
                    raise
            self.pid = None
        self._end()
