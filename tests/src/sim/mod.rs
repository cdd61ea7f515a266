//! The kernel core in virtual time: real traces and synthetic loads, on workers that are sim drivers.
//!
//! [`World`](world::World) plays the host: it gives the core events and performs its effects, and what takes time
//! (a step, the loading of a model, a pause before a restart) becomes an entry in an [`Agenda`](agenda::Agenda).
//! [`Programs`](programs::Programs) play the clients, each with the [tasks](load::Task) that a [`Load`](load::Load)
//! gives it. Nothing sleeps and no clock is read, so hours pass in seconds, and the same seed gives the same run to
//! the last token.
//!
//! What is left out: the socket, the JSON on it, and the host's own time. A client that does not read is simulated
//! as the daemon sees it, by the two events that say so.

pub mod agenda;
pub mod calibration;
pub mod chance;
pub mod fault;
pub mod idle;
pub mod load;
pub mod measure;
pub mod plot;
pub mod policy;
pub mod probe;
pub mod programs;
pub mod run;
pub mod world;
