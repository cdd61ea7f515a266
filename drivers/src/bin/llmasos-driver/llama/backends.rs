//! The parts of ggml that the portable build loads at run time, from the folder of the executable and from nowhere
//! else: ggml itself would also look in the current folder, which may be a stranger's.
//!
//! Other builds have their one CPU variant linked, and nothing to load.

use super::arithmetic::Arithmetic;

/// Loads graphics backends and the best CPU variant, or, for unpacked arithmetic, the one that every CPU of the
/// family runs.
#[cfg(feature = "dynamic-backends")]
pub fn load(arithmetic: Arithmetic) {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    use llama_cpp_sys_2 as sys;

    /// The variant without any of the instructions that came later.
    const PLAINEST: &str =
        if cfg!(target_arch = "aarch64") { "libggml-cpu-armv8.0_1.so" } else { "libggml-cpu-x64.so" };

    let Some(folder) = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|p| p.to_path_buf()))
    else {
        return tracing::error!("this program cannot find its own folder, where ggml's libraries are");
    };
    let path = match arithmetic {
        Arithmetic::Packed => folder,
        Arithmetic::Unpacked => folder.join(PLAINEST),
    };
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return };
    // SAFETY: the path ends with a zero; the libraries are those that this build put there.
    unsafe {
        match arithmetic {
            Arithmetic::Packed => sys::ggml_backend_load_all_from_path(path.as_ptr()),
            Arithmetic::Unpacked => {
                sys::ggml_backend_load(path.as_ptr());
            }
        }
    }
}

/// Nothing is to be loaded.
#[cfg(not(feature = "dynamic-backends"))]
pub fn load(_: Arithmetic) {}
