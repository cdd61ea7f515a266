//! How the process keeps memory. Training asks for the same large buffers in every step. The C library gives such
//! buffers back to the system when they are freed, and each page of them costs a fault when they are asked for again.

/// Has the C library keep freed memory for the next step, instead of giving it back at once. For programs that train;
/// does nothing where the C library is not glibc.
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt only sets numbers inside of the allocator, and may be called at any time.
        let kept = unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0) != 0 && libc::mallopt(libc::M_TRIM_THRESHOLD, -1) != 0
        };
        debug_assert!(kept, "glibc takes these two settings");
    }
}
