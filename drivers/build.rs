//! Lets the portable build travel: the libraries that are chosen at run time are put beside the executables, which
//! look for them there and nowhere else. Other builds have none.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let Some(backends) = env::var_os("DEP_LLAMA_BACKENDS_DIR") else { return Ok(()) };
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN");
    let (backends, executables) = (Path::new(&backends), executables_folder());
    let built = backends.parent().expect("it lies in what llama.cpp's build wrote").join("lib");
    for (folder, wanted) in [(backends, any as fn(&str) -> bool), (&built, is_soname)] {
        for library in fs::read_dir(folder)? {
            let library = library?;
            if wanted(&library.file_name().to_string_lossy()) {
                fs::copy(library.path(), executables.join(library.file_name()))?;
            }
        }
    }
    Ok(())
}

fn any(_: &str) -> bool {
    true
}

/// Whether executables look for a library under this name: with its first number and no further one.
fn is_soname(file: &str) -> bool {
    file.split_once(".so.").is_some_and(|(_, version)| version.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Cargo puts executables three folders above what build scripts write: `release/build/NAME/out`.
fn executables_folder() -> PathBuf {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names it"));
    out.ancestors().nth(3).expect("it lies this deep").to_path_buf()
}
