//! The rows of a case: which side, and how it is set.

use std::path::Path;

use anyhow::Result;
use harness::Daemon;
use harness::bench::ours;

use crate::llmasos::Llmasos;
use crate::server::{Installed, Server, Setting};
use crate::system::System;

/// One row.
#[derive(Clone, Debug)]
pub struct Side {
    /// What the table calls it.
    pub label: String,
    pub kind: Kind,
}

/// Who is measured.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The daemon, with a pool of so many cells and nothing else set.
    Llmasos { cells: u32 },
    /// llama.cpp's server.
    Server(Setting),
    /// One of llama.cpp's tools; the case knows which.
    Tool(Tool),
}

/// llama.cpp's own benches, with either attention kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Plain,
    Flash,
}

impl Side {
    /// Our row.
    pub fn llmasos(cells: u32) -> Side {
        Side { label: "llmasos".into(), kind: Kind::Llmasos { cells } }
    }

    /// Our row with another pool, for comparison.
    pub fn llmasos_with(cells: u32, label: &str) -> Side {
        Side { label: format!("llmasos, {label}"), kind: Kind::Llmasos { cells } }
    }

    /// llama-server as it comes.
    pub fn defaults() -> Side {
        Side { label: "llama-server, defaults".into(), kind: Kind::Server(Setting::defaults()) }
    }

    /// llama-server with what the case needs and nothing tuned.
    pub fn plain(args: &str) -> Side {
        Side { label: format!("llama-server {args}"), kind: Kind::Server(Setting::plain(args)) }
    }

    /// llama-server set for the case.
    pub fn tuned(args: &str) -> Side {
        Side {
            label: format!("llama-server {args} (lean sampling)"),
            kind: Kind::Server(Setting::tuned(args)),
        }
    }

    /// llama-server set for the case, with copies made in one request.
    pub fn tuned_copies(args: &str) -> Side {
        let setting = Setting { copies_by_one_request: true, ..Setting::tuned(args) };
        Side { label: format!("llama-server {args} (n_cmpl, lean sampling)"), kind: Kind::Server(setting) }
    }

    /// One of llama.cpp's benches.
    pub fn tool(name: &str, tool: Tool) -> Side {
        let kernel = if tool == Tool::Plain { "off" } else { "on" };
        Side { label: format!("{name} -fa {kernel}"), kind: Kind::Tool(tool) }
    }

    /// Whether it is the row that the others are compared with.
    pub fn is_ours(&self) -> bool {
        self.label == "llmasos"
    }

    /// Whether it can only be measured where llama.cpp's programs are.
    pub fn is_peer(&self) -> bool {
        !matches!(self.kind, Kind::Llmasos { .. })
    }
}

/// What sides are started from.
pub struct Ground<'a> {
    pub daemon: &'a Daemon,
    pub model: &'a Path,
    /// Positions of the model.
    pub positions: u32,
    pub threads: u32,
    /// Where `llama-server` is, if it is anywhere.
    pub server: Option<Installed>,
}

impl Ground<'_> {
    /// Starts a side with nothing cached; none for one of the tools, or where there is no such program.
    pub fn start(&self, side: &Side) -> Result<Option<Box<dyn System + '_>>> {
        Ok(match &side.kind {
            Kind::Llmasos { cells } => {
                ours::mount(self.daemon, self.model, *cells, self.threads)?;
                Some(Box::new(Llmasos::new(self.daemon)?))
            }
            Kind::Server(setting) => match &self.server {
                Some(installed) => {
                    Some(Box::new(Server::start(installed, self.model, self.positions, setting)?))
                }
                None => None,
            },
            Kind::Tool(_) => None,
        })
    }
}
