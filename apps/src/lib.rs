//! The userland of llmasos: the shell [`shell`], the applications, and what they share.
//!
//! Each binary of this crate reads its arguments and calls a library function here. Everything is asked for
//! through system calls; nothing in this crate knows the kernel or a driver.

// First, because all others say what they have to say with its macro.
#[macro_use]
pub mod terminal;

pub mod chat;
pub mod encoder;
pub mod model;
pub mod program;
pub mod prompt;
pub mod qa;
pub mod recording;
pub mod replay;
pub mod shell;
pub mod summariser;
pub mod text;
pub mod timeline;
pub mod translator;
pub mod way;
