"""The daemon: connecting to it, and starting one where none runs."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import paths
from .client import Client
from .errors import Fault, LlmasosError

#: How long a daemon may take until it listens, in seconds. To read its state it may take as long as the disk does.
START_MAX = 20.0

_default: Client | None = None


def connect(name: str = "python", **hello: Any) -> Client:
    """Connects to the daemon; where none runs, one is started, which goes on when this program ends.

    `llmasos shutdown` ends it.
    """
    path = paths.socket()
    try:
        return Client(path, name=name, **hello)
    except Fault as fault:
        if fault.code != "ENOENT":
            raise
    if path == paths.SYSTEM_SOCKET:
        path = paths.user_socket()
    _start(path)
    return Client(path, name=name, **hello)


def shared() -> Client:
    """The connection that the models of this program share."""
    global _default
    if _default is not None:
        try:
            _default.call("stat", pid=_default.pid)
        except Fault as fault:
            # The daemon has ended, or this is a fork of the program that was connected.
            if fault.code not in ("ECONNRESET", "ESRCH"):
                raise
            _default.close()
            _default = None
    if _default is None:
        _default = connect()
    return _default


def _start(path: Path) -> None:
    program = paths.program("llmasos")
    log = paths.data() / "daemon.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    read, write = os.pipe()
    with log.open("ab") as out:
        # In a session of its own: Ctrl-C in the terminal is not for it.
        process = subprocess.Popen(
            [program, "daemon", "--socket", path, "--ready-fd", str(write)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=[write],
            start_new_session=True,
        )
    os.close(write)
    try:
        os.set_blocking(read, False)
        deadline = time.monotonic() + START_MAX
        while not _told(read):
            if process.poll() is not None:
                if _answers(path):
                    # Another program has started one meanwhile.
                    return
                raise LlmasosError(
                    f"the daemon ended with status {process.returncode}; the end of {log}:\n{_tail(log)}"
                )
            if time.monotonic() > deadline:
                if not _listens(path):
                    process.terminate()
                    raise LlmasosError(f"the daemon has not answered within {START_MAX:.0f} s; see {log}")
                # Ended now, it would have to begin again at the next start.
                deadline = math.inf
            time.sleep(0.01)
    finally:
        os.close(read)
    # It outlives this program, which does not wait for it.
    process.returncode = 0
    print(f"llmasos: started a daemon (process {process.pid}); `llmasos shutdown` ends it", file=sys.stderr)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _answers(path: Path) -> bool:
    try:
        Client(path).close()
    except Fault:
        return False
    return True


def _told(read: int) -> bool:
    try:
        return os.read(read, 64) != b""
    except BlockingIOError:
        return False


def _tail(log: Path, lines: int = 5) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
