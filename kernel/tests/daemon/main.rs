//! The daemon as a program: what it does about clients, workers, signals and the disk. What it decides about
//! processes and models is the core's, and tested there.
#![allow(clippy::unwrap_used)]

mod clients;
mod deaths;
mod handover;
mod harness;
mod life;
mod programs;
mod services;
mod workers;
