"""The calls of the daemon: a line of JSON for each call and each answer, over a Unix socket.

The manual of the calls is ``syscalls/README.md``. A client is for one thread.
"""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from . import paths
from .errors import Fault
from .plain import plain

#: The version of the interface that is spoken here.
ABI_VERSION = 1

#: What is read of the socket at once, in bytes.
READ_BYTES = 1 << 16

#: How long a client goes on connecting after a connection has ended before the daemon had greeted, and the pause before
#: each of these tries, in seconds.
AGAIN_MAX = 5.0
AGAIN_PAUSE = 0.05


class Client:
    """A connection to the daemon, and the process that it is there.

    Every call is a method with the arguments of the manual: ``client.ps(all=True)``, ``client.kill(pid=7)``. Names that
    Python keeps for itself take an underscore: ``client.yield_()``, ``Client(class_="batch")``. What is answered is what
    the reply carries; faults are raised as :class:`Fault`.

    A daemon that ends lets go of everybody whom it has not greeted, and the next one takes over: so where a connection
    ends before the greeting, another one is made, for up to 5 seconds. With a lifetime of ``persistent`` it is not,
    since the process may be there already; and no other call is made twice.
    """

    def __init__(
        self,
        socket_path: str | Path | None = None,
        *,
        name: str = "python",
        class_: str = "normal",
        nice: int = 0,
        timeout: float | None = None,
        **hello: Any,
    ) -> None:
        path = Path(socket_path) if socket_path is not None else paths.socket()
        self.socket_path = path
        hello.update({"version": ABI_VERSION, "name": name, "class": class_, "nice": nice})
        self.hello: dict[str, Any] = self._greeted(hello, timeout)
        self.pid: int = self.hello["pid"]

    def call(
        self,
        name: str,
        /,
        *,
        as_pid: int | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        **args: Any,
    ) -> Any:
        """Makes a call and waits for its reply; `as_pid` acts for a child, `on_event` is told what comes before."""
        return self._answer(self._send(name, as_pid, args), on_event)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(**args: Any) -> Any:
            return self.call(name.rstrip("_"), **args)

        return call

    def ended(self, pid: int, timeout_ms: int) -> int | None:
        """The status of a child, if it ends within so long."""
        try:
            status: int = self.call("wait", pid=pid, timeout_ms=timeout_ms)["status"]
        except Fault as fault:
            if fault.code == "ETIMEDOUT":
                return None
            raise
        return status

    def generate(self, **args: Any) -> Iterator[dict[str, Any]]:
        """Continues a context, and gives the events as they come, `{"text": …, "tokens": […]}`; last the reply.

        Who stops reading stops the generation.
        """
        request = self._send("generate", None, args)
        done = False
        try:
            while True:
                frame = self._frame(request)
                done = "event" not in frame
                yield content(frame) if done else frame
                if done:
                    return
        finally:
            if not done:
                self.call("kill", pid=self.pid, signal="INT")
                while "event" in self._frame(request):
                    pass

    def _greeted(self, hello: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        """Connects and says hello, again where the connection ends before the answer."""
        until: float | None = None
        while True:
            self._connect(timeout)
            try:
                greeting: dict[str, Any] = self._answer(self._send("hello", None, hello), None)
            except Fault as fault:
                self._socket.close()
                now = time.monotonic()
                until = now + AGAIN_MAX if until is None else until
                if fault.code != "ECONNRESET" or hello.get("lifetime") == "persistent" or now >= until:
                    raise
            else:
                return greeting
            time.sleep(AGAIN_PAUSE)

    def _connect(self, timeout: float | None) -> None:
        path = self.socket_path
        self._last = 0
        self._frames: dict[int, deque[dict[str, Any]]] = {}
        #: What has come and is not taken yet. A file of the socket would read no more after a time limit.
        self._received = bytearray()
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            code = "EACCES" if isinstance(error, PermissionError) else "ENOENT"
            how = "start one with `llmasos daemon`, or connect with llmasos.connect()"
            raise Fault(code, f"no daemon answers on {path}: {error.strerror}; {how}") from error
        self._socket.settimeout(timeout)

    def _send(self, call: str, as_pid: int | None, args: dict[str, Any]) -> int:
        self._last += 1
        request: dict[str, Any] = {"id": self._last, "call": call}
        if as_pid is not None:
            request["pid"] = as_pid
        request["args"] = {name.rstrip("_"): value for name, value in args.items() if value is not None}
        try:
            self._socket.sendall(json.dumps(request, default=plain).encode() + b"\n")
        except TimeoutError as error:
            # A part of the call may have been sent, and what came next would be taken for the rest of it.
            self._socket.close()
            message = "the daemon did not take the call within the time limit; connect again"
            raise Fault("ETIMEDOUT", message) from error
        except OSError as error:
            message = f"the daemon has closed the connection: {error.strerror or error}"
            raise Fault("ECONNRESET", message) from error
        return self._last

    def _answer(self, request: int, on_event: Callable[[dict[str, Any]], None] | None) -> Any:
        while True:
            frame = self._frame(request)
            if "event" not in frame:
                return content(frame)
            if on_event is not None:
                on_event(frame)

    def _frame(self, request: int) -> dict[str, Any]:
        """The next frame of a request; those of others are kept. A frame with the id 0 is for nobody, and so for all."""
        waiting = self._frames.get(request)
        if waiting:
            return waiting.popleft()
        while True:
            try:
                line = self._line()
            except TimeoutError as error:
                raise Fault("ETIMEDOUT", "the daemon did not answer within the time limit") from error
            except OSError as error:
                raise Fault("ECONNRESET", f"the connection is broken: {error.strerror or error}") from error
            if not line:
                raise Fault("ECONNRESET", "the daemon has closed the connection")
            frame: dict[str, Any] = json.loads(line)
            if frame["id"] in (request, 0):
                return frame
            self._frames.setdefault(frame["id"], deque()).append(frame)

    def _line(self) -> bytes:
        """The next line; nothing at the end of the connection. What has come of one stays when the time is over."""
        looked = 0
        while (end := self._received.find(b"\n", looked)) < 0:
            looked = len(self._received)
            more = self._socket.recv(READ_BYTES)
            if not more:
                return b""
            self._received += more
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return line

    def close(self) -> None:
        """Ends the connection, and with it the process."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def content(frame: dict[str, Any]) -> Any:
    """What a reply carries: `{"ok": {"spawned": {"pid": 3}}}` is `{"pid": 3}`, and `{"ok": {"done": {}}}` nothing."""
    if "error" in frame:
        raise Fault(frame["error"]["errno"], frame["error"]["message"])
    (carried,) = frame["ok"].values()
    return None if "done" in frame["ok"] else carried
