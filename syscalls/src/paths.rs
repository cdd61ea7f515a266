//! Where the socket, the data and the configuration are found: by variable, by XDG for a user, by the file
//! system standard for the system.

use std::env;
use std::path::PathBuf;

/// Names the socket.
pub const SOCKET_VAR: &str = "LLMASOS_SOCKET";
/// Names the descriptor of the connection that the daemon hands to a program that it starts.
pub const SOCKET_FD_VAR: &str = "LLMASOS_SOCKET_FD";
/// Names the folder of the daemon's state.
pub const DATA_VAR: &str = "LLMASOS_DATA";
/// Names the configuration file.
pub const CONFIG_VAR: &str = "LLMASOS_CONFIG";

/// The socket of the system's daemon.
pub const SYSTEM_SOCKET: &str = "/run/llmasos/llmasos.sock";

/// The socket that a client connects to, and that a daemon without `--socket` listens on: `LLMASOS_SOCKET`,
/// else the user's own if it exists, else the system's if that exists, else the user's own.
pub fn socket() -> PathBuf {
    if let Some(path) = var_path(SOCKET_VAR) {
        return path;
    }
    let own = user_socket();
    let system = PathBuf::from(SYSTEM_SOCKET);
    if !own.exists() && system.exists() { system } else { own }
}

/// The socket of the user's own daemon: under `XDG_RUNTIME_DIR`, else under `/tmp` by uid.
pub fn user_socket() -> PathBuf {
    match var_path("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("llmasos/llmasos.sock"),
        None => env::temp_dir().join(format!("llmasos-{}", nix::unistd::getuid())).join("llmasos.sock"),
    }
}

/// The folder of the user's own daemon's state: `LLMASOS_DATA`, else under `XDG_STATE_HOME`.
pub fn data() -> PathBuf {
    var_path(DATA_VAR).unwrap_or_else(|| xdg("XDG_STATE_HOME", ".local/state").join("llmasos"))
}

/// The user's configuration file: `LLMASOS_CONFIG`, else under `XDG_CONFIG_HOME`.
pub fn config() -> PathBuf {
    var_path(CONFIG_VAR).unwrap_or_else(|| xdg("XDG_CONFIG_HOME", ".config").join("llmasos/llmasos.ron"))
}

fn xdg(var: &str, under_home: &str) -> PathBuf {
    var_path(var).unwrap_or_else(|| var_path("HOME").unwrap_or_else(|| PathBuf::from("/")).join(under_home))
}

fn var_path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}
