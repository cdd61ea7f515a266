//! Open files become weights.
//!
//! A model in one file is read from its descriptor, so that the worker opens no file at all. Of a model in several files
//! llama.cpp wants names, and gets those under which a process has its own descriptors; the jail lets a worker open these
//! files again for reading, and no others. In what llama.cpp says the files have the names that people know.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;
use std::ptr::NonNull;

use drivers::files::{ModelFiles, errno_of};
use drivers::wire::DriverFault;
use llama_cpp_sys_2 as sys;
use syscalls::Errno;

use super::log;

/// Where a process finds its descriptors as files.
const OWN_DESCRIPTORS: [&str; 2] = ["/proc/self/fd", "/dev/fd"];

/// What llama.cpp calls a file that it has no name of.
const NAMELESS: &str = "(file*)";

/// A stream of the C library on a descriptor.
struct Stream(NonNull<libc::FILE>);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: it is open, and closed once. Nothing was written, so nothing can be lost.
        unsafe { libc::fclose(self.0.as_ptr()) };
    }
}

impl Stream {
    /// Of a file, from its beginning.
    fn of(mut file: &File) -> io::Result<Stream> {
        file.rewind()?;
        let fd = file.try_clone()?.into_raw_fd();
        // SAFETY: the descriptor is open and this function's own; the mode is a string with a zero at its end.
        match NonNull::new(unsafe { libc::fdopen(fd, c"rb".as_ptr()) }) {
            Some(stream) => Ok(Stream(stream)),
            None => {
                let error = io::Error::last_os_error();
                // SAFETY: no stream has taken the descriptor over.
                unsafe { libc::close(fd) };
                Err(error)
            }
        }
    }
}

/// Has llama.cpp load files that the GGUF reader has let pass.
///
/// # Errors
///
/// ENOEXEC with llama.cpp's own reason, ENODEV for a model in several files where the system has no names for descriptors.
pub fn load(
    files: &ModelFiles,
    params: sys::llama_model_params,
) -> Result<NonNull<sys::llama_model>, DriverFault> {
    log::forget();
    let raw = match files.parts().len() {
        1 => load_one(files, params)?,
        _ => load_parts(files, params)?,
    };
    NonNull::new(raw).ok_or_else(|| {
        let why = log::complaint().unwrap_or_else(|| "llama.cpp gave no reason".into());
        DriverFault::new(Errno::ENOEXEC, format!("llama.cpp cannot load the model: {why}"))
    })
}

fn load_one(
    files: &ModelFiles,
    params: sys::llama_model_params,
) -> Result<*mut sys::llama_model, DriverFault> {
    let (name, file) = files.parts().next().expect("a model has at least one file");
    let unreadable = |e| DriverFault::new(errno_of(&e), format!("{} cannot be read: {e}", name.display()));
    let stream = Stream::of(file).map_err(unreadable)?;
    log::call_by_name(vec![(NAMELESS.into(), name.display().to_string())]);
    // SAFETY: the stream is open until the call is over; what llama.cpp needs of the file later is mapped or was read. The
    // callback's data outlives the call, and is not used after it.
    Ok(unsafe { sys::llama_model_load_from_file_ptr(stream.0.as_ptr().cast(), params) })
}

fn load_parts(
    files: &ModelFiles,
    params: sys::llama_model_params,
) -> Result<*mut sys::llama_model, DriverFault> {
    let own = files.parts().map(|(_, file)| own_name(file)).collect::<Option<Vec<String>>>();
    let own = own.ok_or_else(|| {
        let message = format!(
            "{} is in several files, and this system has neither {} nor {}; mount /proc, or merge the files with \
             llama.cpp's llama-gguf-split --merge",
            files.name().display(),
            OWN_DESCRIPTORS[0],
            OWN_DESCRIPTORS[1]
        );
        DriverFault::new(Errno::ENODEV, message)
    })?;
    let known = |(name, _): (&Path, &File)| name.display().to_string();
    log::call_by_name(own.iter().cloned().zip(files.parts().map(known)).collect());
    let own: Vec<CString> =
        own.into_iter().map(|name| CString::new(name).expect("it is a folder and a number")).collect();
    let mut names: Vec<_> = own.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the names are strings with a zero at their end, as many as are said, and outlive the call; of the callback as
    // above.
    Ok(unsafe { sys::llama_model_load_from_splits(names.as_mut_ptr(), names.len(), params) })
}

/// The name of a descriptor of this process, where the system has names for them.
fn own_name(file: &File) -> Option<String> {
    let name = |folder: &&str| format!("{folder}/{}", file.as_raw_fd());
    OWN_DESCRIPTORS.iter().map(name).find(|name| Path::new(name).exists())
}
