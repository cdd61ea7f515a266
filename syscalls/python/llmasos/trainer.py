"""The program ``llmasos-trainer``: what a specification means, what it takes, and models in other formats."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from . import paths
from .errors import DatasetNotFound, TrainingError
from .plain import plain

#: The variable with settings for every run of this program, such as ``"steps=20 model.layers=1"``.
SETTINGS_VARIABLE = "LLMASOS_SET"


def run(*arguments: str | Path) -> str:
    """Runs the trainer to its end, and gives what it prints."""
    command = [paths.program("llmasos-trainer"), *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        how = "put the files into a folder, with `train` in their names, and give that to load_dataset()"
        raise TrainingError(f"the run has more to say than a program can be started with; {how}") from None
    if done.returncode != 0:
        raise TrainingError(reason(done.stderr.splitlines()) or f"llmasos-trainer ended with {done.returncode}")
    return done.stdout


def reason(lines: list[str]) -> str:
    """Why the trainer has ended, of all that it has printed."""
    mark = "llmasos-trainer: "
    said = [line[len(mark) :] for line in lines if line.startswith(mark)]
    return said[-1] if said else "\n".join(lines[-5:])


def find_dataset(name: str) -> Path:
    """The folder of a data set: in the folders of `LLMASOS_DATASETS`, in the cache, or fetched from a mirror."""
    try:
        return Path(run("find", name).strip()).resolve()
    except TrainingError as error:
        raise DatasetNotFound(str(error)) from None


def resolve(spec: dict[str, Any]) -> dict[str, Any]:
    """A specification with all of its defaults, checked, and with what `LLMASOS_SET` changes."""
    settings = shlex.split(os.environ.get(SETTINGS_VARIABLE, ""))
    changes = [word for setting in settings for word in ("--set", setting)]
    resolved: dict[str, Any] = json.loads(run("resolve", "--json", json.dumps(spec, default=plain), *changes))
    return resolved


def expectation(
    spec: dict[str, Any], cache: Path, socket: Path, ranks: int | None = None, class_: str = "batch"
) -> str:
    """Parameters, memory and time of a run, from a few of its steps, which are computed as a process of the daemon."""
    # The kernel gives the trainer the same two.
    place = ["--socket", str(socket), "--class", "batch" if class_ == "batch" else "normal"]
    over = [] if ranks is None else ["--ranks", str(ranks)]
    return run("run", "--json", json.dumps(spec), "--dry-run", "--cache", cache, *place, *over).rstrip()


def export(folder: Path, to: Path, form: str) -> None:
    """Writes the model of a folder in a format: ``hf``, ``safetensors``, ``gguf`` or ``pt``."""
    run("export", folder, "--format", form, "--out", to)
