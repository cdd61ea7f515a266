//! Lets the portable build travel: the libraries that are chosen at run time are put beside the executables, which
//! look for them there and nowhere else. Other builds have none.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let Some(backends) = env::var_os("DEP_LLAMA_BACKENDS_DIR") else { return Ok(()) };
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN");
    let executables = executables_folder();
    for backend in fs::read_dir(Path::new(&backends))? {
        let backend = backend?;
        fs::copy(backend.path(), executables.join(backend.file_name()))?;
    }
    Ok(())
}

/// Cargo puts executables three folders above what build scripts write: `release/build/NAME/out`.
fn executables_folder() -> PathBuf {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names it"));
    out.ancestors().nth(3).expect("it lies this deep").to_path_buf()
}
