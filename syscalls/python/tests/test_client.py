"""The calls themselves, and the daemon that is started where none runs."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

import llmasos
from llmasos import daemon

from .place import Place


class Calls(Place):
    def test_daemon_is_started_where_none_runs_and_called(self) -> None:
        with self.assertRaises(llmasos.Fault) as caught:
            llmasos.Client(self.folder / "nothing")
        self.assertEqual(caught.exception.code, "ENOENT")
        with llmasos.connect(name="caller", class_="interactive") as client:
            (own,) = [process for process in client.ps() if process["pid"] == client.pid]
            self.assertEqual((own["name"], own["class"]), ("caller", "interactive"))
            self.assertIsNone(client.store_put(store="s", key="k", value={"a": 1}))
            self.assertEqual(client.call("store_get", store="s", key="k"), {"a": 1})
            child = client.spawn(name="child")["pid"]
            self.assertIsNone(client.call("exit", as_pid=child, status=3))
            self.assertEqual(client.wait(pid=child), {"pid": child, "status": 3})

    def test_daemon_that_another_program_has_started_meanwhile_is_the_one(self) -> None:
        with llmasos.connect() as client:
            # As a program does that found none a moment ago.
            daemon._start(client.socket_path)
            self.assertIn(client.pid, [process["pid"] for process in client.ps()])

    def test_fault_has_a_number_and_a_sentence(self) -> None:
        with llmasos.connect() as client:
            with self.assertRaises(llmasos.Fault) as caught:
                client.kill(pid=99999)
            self.assertEqual((caught.exception.code, caught.exception.errno), ("ESRCH", errno.ESRCH))
            with self.assertRaisesRegex(llmasos.Fault, "EINVAL|ENOSYS|EPROTO"):
                client.call("genrate")

    def test_generation_streams_and_ends_when_nobody_reads_on(self) -> None:
        with llmasos.connect() as client:
            client.mount(path="sim:", name="sim")
            context = client.open(model="sim")["context"]
            client.append(context=context, text="Once")
            *events, reply = client.generate(context=context, max_tokens=5)
            self.assertEqual("".join(event["text"] for event in events), reply["text"])
            self.assertEqual(reply["usage"]["tokens_generated"], 5)
            for event in client.generate(context=context, ignore_eos=True):
                self.assertIn("text", event)
                break
            length = client.call("inspect", pid=client.pid)["contexts"][0]["length"]
            self.assertGreater(length, 5)
            # `close` ends the connection; the call of this name goes by `call`.
            self.assertIsNone(client.call("close", context=context))

    def test_program_that_is_nowhere_is_told_with_where_it_was_looked_for(self) -> None:
        before = os.environ.get("LLMASOS_BIN")
        os.environ["LLMASOS_BIN"] = str(self.folder)
        try:
            with self.assertRaises(llmasos.ProgramNotFound) as caught:
                llmasos.datasets.load_dataset("wikitext-2")
        finally:
            os.environ.pop("LLMASOS_BIN")
            os.environ.update({"LLMASOS_BIN": before} if before else {})
        for part in ("llmasos-trainer", str(self.folder), "LLMASOS_BIN", "make build"):
            self.assertIn(part, str(caught.exception))


class Ends(unittest.TestCase):
    """A daemon that ends so many connections before it greets, unread and read in turns."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "socket")
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.bind(str(self.path))
        self.listener.listen()

    def serve(self, ends: int) -> threading.Thread:
        def serve() -> None:
            for end in range(ends):
                connection, _ = self.listener.accept()
                with connection, connection.makefile("rb") as calls:
                    if end % 2 == 1:
                        calls.readline()
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rb") as calls:
                calls.readline()
                connection.sendall(b'{"id": 1, "ok": {"hello": {"pid": 7}}}\n')
                # What comes next is not answered.
                calls.readline()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        return thread

    def test_connection_that_ends_before_the_greeting_is_made_again_and_a_call_is_not(self) -> None:
        thread = self.serve(4)
        with llmasos.Client(self.path, timeout=20) as client:
            self.assertEqual(client.pid, 7)
            with self.assertRaises(llmasos.Fault) as caught:
                client.spawn(name="child")
            self.assertEqual(caught.exception.code, "ECONNRESET")
        thread.join()

    def test_tries_to_be_greeted_end(self) -> None:
        self.serve(1000)
        with mock.patch("llmasos.client.AGAIN_MAX", 0.2), self.assertRaises(llmasos.Fault) as caught:
            llmasos.Client(self.path, timeout=20)
        self.assertEqual(caught.exception.code, "ECONNRESET")

    def test_hello_of_a_process_that_would_outlive_the_daemon_is_not_said_twice(self) -> None:
        thread = self.serve(2)
        with self.assertRaises(llmasos.Fault) as caught:
            llmasos.Client(self.path, timeout=20, lifetime="persistent")
        self.assertEqual(caught.exception.code, "ECONNRESET")
        llmasos.Client(self.path, timeout=20, lifetime="detached").close()
        thread.join()


class Limits(unittest.TestCase):
    def test_call_behind_one_whose_time_was_over_is_answered(self) -> None:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            path = Path(folder, "socket")
            listener.bind(str(path))
            listener.listen()

            def answer() -> None:
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as calls:
                    # Of the second answer one part comes in time, and the rest with that of the third call.
                    for said in (
                        b'{"id": 1, "ok": {"hello": {"pid": 7}}}\n',
                        b'{"id": 2, "ok": ',
                        b'{"done": {}}}\n{"id": 3, "ok": {"spawned": {"pid": 8}}}\n',
                    ):
                        calls.readline()
                        connection.sendall(said)
                    calls.readline()

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            with llmasos.Client(path, timeout=600) as client:
                client._socket.settimeout(0.5)
                with self.assertRaisesRegex(llmasos.Fault, "ETIMEDOUT: the daemon did not answer within"):
                    client.call("receive")
                client._socket.settimeout(600)
                self.assertEqual(client.call("spawn", name="child"), {"pid": 8})
            thread.join()

    def test_daemon_that_listens_and_still_reads_its_state_is_waited_for(self) -> None:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            path = Path(folder, "socket")
            listener.bind(str(path))
            listener.listen()
            program = Path(folder, "llmasos")
            # The number of the descriptor is the last argument.
            program.write_text('#!/bin/bash\nsleep 1\necho ready >&"${@: -1}"\n')
            program.chmod(0o755)
            variables = {"LLMASOS_BIN": folder, "LLMASOS_DATA": folder}
            with mock.patch.dict(os.environ, variables), mock.patch.object(daemon, "START_MAX", 0.1):
                daemon._start(path)
                listener.close()
                silent = Path(folder, "silent", "llmasos")
                silent.parent.mkdir()
                silent.write_text("#!/bin/sh\nexec sleep 600\n")
                silent.chmod(0o755)
                os.environ["LLMASOS_BIN"] = str(silent.parent)
                with self.assertRaisesRegex(llmasos.LlmasosError, "has not answered within"):
                    daemon._start(path)


if __name__ == "__main__":
    unittest.main()
