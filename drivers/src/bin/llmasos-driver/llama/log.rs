//! llama.cpp's log: it goes to ours at the level `debug`, and its last complaints are kept, so that a failure can
//! be told in llama.cpp's own words. So are the sizes of the buffers that it allocates, which it says nowhere else.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};

use llama_cpp_sys_2 as sys;

/// Complaints that are kept between two looks; the first one names the cause, later ones repeat it.
const COMPLAINTS_MAX: usize = 8;

thread_local! {
    /// Of the thread that called llama.cpp: what fails is told on the way back to the caller.
    static COMPLAINTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Buffers whose sizes are kept between two looks: a few for each device.
const SIZES_MAX: usize = 64;

thread_local! {
    /// Of the thread that called llama.cpp: what buffers are for, and their bytes.
    static SIZES: RefCell<Vec<(String, u64)>> = const { RefCell::new(Vec::new()) };
}

thread_local! {
    /// Of the thread that has llama.cpp load files: how it calls them, and the names that people know.
    static NAMES: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

/// Has files called by the names that people know from now on. The pairs begin with what llama.cpp calls them.
pub fn call_by_name(mut names: Vec<(String, String)>) {
    // Of two that begin alike the longer one is looked for first.
    names.sort_by_key(|(own, _)| std::cmp::Reverse(own.len()));
    NAMES.set(names);
}

/// A line with the files' names in it.
fn by_name(line: &str) -> String {
    NAMES.with_borrow(|names| {
        names.iter().fold(line.to_owned(), |line, (own, known)| match line.contains(own.as_str()) {
            true => line.replace(own.as_str(), known),
            false => line,
        })
    })
}

/// Sends llama.cpp's log our way. Called once, before anything else of llama.cpp.
pub fn capture() {
    // SAFETY: the callback lives as long as the program and takes no data.
    unsafe { sys::llama_log_set(Some(heard), std::ptr::null_mut()) }
}

/// Forgets the complaints and sizes of this thread so far.
pub fn forget() {
    COMPLAINTS.with_borrow_mut(Vec::clear);
    SIZES.with_borrow_mut(Vec::clear);
}

/// Bytes of all buffers of a kind (`KV`, `RS`, `compute`) that this thread had llama.cpp allocate since [`forget`].
pub fn sum(kind: &str) -> u64 {
    let of_kind = |sizes: &Vec<(String, u64)>| {
        sizes.iter().filter(|(known, _)| known == kind).map(|(_, bytes)| bytes).sum()
    };
    SIZES.with_borrow(of_kind)
}

/// Reads `f:        CPU KV buffer size =   12.00 MiB`: what the buffer is for, and its bytes.
fn size(line: &str) -> Option<(String, u64)> {
    let (what, size) = line.split_once(" buffer size =")?;
    let mebibytes: f64 = size.trim().strip_suffix("MiB")?.trim().parse().ok()?;
    let kind = what.rsplit(' ').next()?;
    let bytes = mebibytes * f64::from(1 << 20);
    (bytes >= 0.0).then(|| (kind.to_string(), bytes as u64))
}

/// The cause that llama.cpp gave this thread since [`forget`], without the names of its functions.
pub fn complaint() -> Option<String> {
    COMPLAINTS.with_borrow(|complaints| complaints.first().map(|line| cause(line).to_string()))
}

/// The part of a complaint that tells a stranger something: `f: error loading model: why` is `why`.
fn cause(line: &str) -> &str {
    let line = line.lines().next().unwrap_or_default();
    for lead in ["error loading model: ", "error parsing grammar: "] {
        if let Some(at) = line.find(lead) {
            return line[at + lead.len()..].trim();
        }
    }
    match line.split_once(": ") {
        Some((function, rest)) if !function.contains(' ') => rest.trim(),
        _ => line.trim(),
    }
}

unsafe extern "C" fn heard(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a string that ends with a zero and lives as long as this call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let text = text.trim();
    if text.is_empty() || text == "." {
        return;
    }
    let text = by_name(text);
    let text = text.as_str();
    tracing::debug!(target: "llama.cpp", "{text}");
    if let Some(size) = size(text) {
        SIZES.with_borrow_mut(|sizes| {
            if sizes.len() < SIZES_MAX {
                sizes.push(size);
            }
        });
    }
    if level == sys::GGML_LOG_LEVEL_ERROR {
        COMPLAINTS.with_borrow_mut(|complaints| {
            if complaints.len() < COMPLAINTS_MAX {
                complaints.push(text.to_string());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{by_name, call_by_name, cause, size};

    #[test]
    fn files_are_called_by_the_names_that_people_know() {
        let names =
            [("/proc/self/fd/1", "/m/a.gguf"), ("/proc/self/fd/12", "/m/b.gguf"), ("(file*)", "/m/c")];
        call_by_name(names.map(|(own, known)| (own.into(), known.into())).into());
        assert_eq!(by_name("failed to open /proc/self/fd/12: no"), "failed to open /m/b.gguf: no");
        assert_eq!(by_name("'/proc/self/fd/1' and (file*)"), "'/m/a.gguf' and /m/c");
        assert_eq!(by_name("nothing of a file"), "nothing of a file");
    }

    #[test]
    fn size_of_a_buffer_is_read_from_the_log() {
        let kv = "llama_kv_cache:        CPU KV buffer size =    12.50 MiB";
        assert_eq!(size(kv), Some(("KV".into(), 25 << 19)));
        let compute = "sched_reserve:        CPU compute buffer size =   100.25 MiB";
        assert_eq!(size(compute), Some(("compute".into(), 401 << 18)));
        assert_eq!(size("llama_context: n_ctx = 512"), None);
        assert_eq!(size("f: CPU KV buffer size = much MiB"), None);
    }

    #[test]
    fn cause_of_a_complaint_is_without_the_functions_name() {
        let line = "llama_model_load: error loading model: unknown model architecture: 'x'";
        assert_eq!(cause(line), "unknown model architecture: 'x'");
        assert_eq!(cause("parse: error parsing grammar: expecting name at ?\n\n?"), "expecting name at ?");
        assert_eq!(cause("init: out of memory"), "out of memory");
        assert_eq!(cause("no colon"), "no colon");
    }
}
