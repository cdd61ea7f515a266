//! The system call interface of llmasos.
//!
//! A program talks to the daemon over a Unix socket, one JSON object a line. It sends [`call::Request`]s and
//! receives [`reply::Frame`]s: one reply for each request, and before it any number of events that carry the
//! request's `id`. Many requests may be in flight on one connection.
//!
//! This crate holds the types of that conversation ([`call`], [`reply`], [`event`], [`errno`]), the bounded line
//! codec ([`codec`]), the limits that both sides honour ([`limits`]), where the socket is found ([`paths`]), and
//! two client libraries ([`client`]). It knows nothing of models, kernels or devices, and depends on no other
//! crate of the project.

pub mod call;
pub mod client;
pub mod codec;
pub mod errno;
pub mod event;
pub mod id;
pub mod limits;
pub mod manual;
pub mod paths;
pub mod reply;

pub use call::{Call, Request};
pub use errno::{Errno, Fault, shown};
pub use event::Event;
pub use id::{CallId, ContextId, Pid, Ticket, Token, TokenRun, Tokens};
pub use reply::{Frame, Reply};
