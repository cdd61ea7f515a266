"""What the tests share: a daemon of one's own with a small text, and the programs of the build."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import llmasos
from llmasos import daemon, paths
from llmasos.errors import ProgramNotFound

TEXT = "".join(f"line {n} of a text that says what line {n} says\n" for n in range(400))

#: A run of a second or two. Of the class `normal`: the system runs those of `batch` when nobody else wants to, and other
#: tests may want to.
SMALL: dict[str, Any] = {"layers": 1, "heads": 2, "width": 32, "context": 32}
SHORT: dict[str, Any] = {"steps": 40, "batch_size": 4, "threads": 1, "verbose": False, "class_": "normal"}


class Place(unittest.TestCase):
    """A folder of one's own, in which everything happens, and where a daemon is started when it is needed."""

    folder: Path
    before: dict[str, str]
    here: Path

    @classmethod
    def setUpClass(cls) -> None:
        try:
            paths.program("llmasos")
        except ProgramNotFound as error:
            raise unittest.SkipTest(str(error)) from None
        cls.folder = Path(tempfile.mkdtemp(prefix="llmasos-test-"))
        cls.before = dict(os.environ)
        cls.here = Path.cwd()
        data = cls.folder / "datasets" / "wikitext-2"
        data.mkdir(parents=True)
        (data / "train.txt").write_text(TEXT)
        (data / "validation.txt").write_text(TEXT[:6000])
        os.environ.update(
            LLMASOS_SOCKET=str(cls.folder / "socket"),
            LLMASOS_DATA=str(cls.folder / "data"),
            LLMASOS_DATASETS=str(cls.folder / "datasets"),
            XDG_CACHE_HOME=str(cls.folder / "cache"),
            XDG_CONFIG_HOME=str(cls.folder),
            # Nobody answers there: no test asks the network.
            LLMASOS_MIRROR="http://127.0.0.1:9",
        )
        for name in ("LLMASOS_CONFIG", "LLMASOS_SET"):
            os.environ.pop(name, None)
        # A disk that others keep busy may have the daemon read its state for long.
        patience = mock.patch.object(daemon, "START_MAX", 300.0)
        patience.start()
        cls.addClassCleanup(patience.stop)
        os.chdir(cls.folder)

    @classmethod
    def tearDownClass(cls) -> None:
        try:
            with llmasos.Client() as client:
                client.shutdown()
        except (llmasos.Fault, ValueError):
            pass
        if daemon._default is not None:
            daemon._default.close()
            daemon._default = None
        os.chdir(cls.here)
        os.environ.clear()
        os.environ.update(cls.before)
        shutil.rmtree(cls.folder, ignore_errors=True)

    def script(self, text: str, **variables: str) -> subprocess.Popen[str]:
        """Starts a program in Python, which has this package."""
        (self.folder / "script.py").write_text(text)
        package = str(Path(llmasos.__file__).parents[1])
        return subprocess.Popen(
            ["python3", "script.py"],
            env={**os.environ, "PYTHONPATH": package, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background may have it ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
