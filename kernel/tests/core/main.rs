//! The kernel core with sim drivers in place of workers, all in one thread and without time passing: every test
//! is repeatable to the last effect.

mod attaching;
mod capabilities;
mod chance;
mod contexts;
mod devices;
mod drafting;
mod fairness;
mod generation;
mod groups;
mod inspecting;
mod latency;
mod limits;
mod machine;
mod memory;
mod models;
mod paging;
mod persistence;
mod policies;
mod preemption;
mod processes;
mod programs;
mod random;
mod registrations;
mod scheduling;
mod segments;
mod services;
mod signals;
mod sliding;
mod snapshots;
mod states;
mod stores;
mod subscriptions;
mod tracing;
mod users;
mod workers;
