"""Where the socket, the programs and the caches are, as the other clients of llmasos find them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from .errors import ProgramNotFound

SYSTEM_SOCKET = Path("/run/llmasos/llmasos.sock")

#: The variable with a program of llmasos, or the folder that they are in.
PROGRAMS_VARIABLE = "LLMASOS_BIN"


def _folder(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def user_socket() -> Path:
    """The socket of the user's own daemon."""
    run = _folder("XDG_RUNTIME_DIR")
    if run is not None:
        return run / "llmasos/llmasos.sock"
    return Path(tempfile.gettempdir()) / f"llmasos-{os.getuid()}" / "llmasos.sock"


def socket() -> Path:
    """The socket to connect to: `LLMASOS_SOCKET`, else the user's own daemon, else the system's."""
    named = _folder("LLMASOS_SOCKET")
    if named is not None:
        return named
    own = user_socket()
    return SYSTEM_SOCKET if not own.exists() and SYSTEM_SOCKET.exists() else own


def data() -> Path:
    """The folder of the user's own daemon's state."""
    state = _folder("XDG_STATE_HOME") or Path.home() / ".local/state"
    return _folder("LLMASOS_DATA") or state / "llmasos"


def program(name: str) -> Path:
    """A program of llmasos: where `LLMASOS_BIN` says and nowhere else, or on PATH, beside Python, or in the build that
    this package is in."""
    named = _folder(PROGRAMS_VARIABLE)
    if named is not None:
        folders = [named if named.is_dir() else named.parent]
        looked = [f"{folders[0]} ({PROGRAMS_VARIABLE})"]
    else:
        found = shutil.which(name)
        if found:
            return Path(found).resolve()
        folders = [Path(sys.executable).parent, Path(__file__).resolve().parents[3] / "target/release"]
        looked = [f"PATH, {PROGRAMS_VARIABLE}, which is not set", *map(str, folders)]
    for folder in folders:
        if os.access(folder / name, os.X_OK) and (folder / name).is_file():
            return (folder / name).resolve()
    raise ProgramNotFound(
        f"there is no program {name}; looked in {', '.join(looked)}. Build llmasos with `make build`, and name the "
        f"folder of its programs in {PROGRAMS_VARIABLE}"
    )
