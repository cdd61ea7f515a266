//! The numbers by which things are named on the wire, each a type of its own so that none is taken for another.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A process. Pids count up from 1 and are not used again before 2³² processes have lived, so a late `kill`
/// cannot hit a stranger. Pid 1 is the kernel itself, the parent of orphans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Pid(pub u32);

impl Pid {
    /// The kernel's own entry in the process table.
    pub const KERNEL: Pid = Pid(1);
}

/// A context: the address space of a process for one model. Never used again while the daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ContextId(pub u64);

/// The number that a client gives a request, and that its reply and events carry back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CallId(pub u64);

/// A call as the daemon numbers it: by this it is found again from another connection than the one that began it.
/// Never used again while the process of the call lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Ticket(pub u64);

/// One entry of a model's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Token(pub u32);

/// Tokens of one context that come or go together: one a step while it generates, so that few take no allocation.
pub type TokenRun = smallvec::SmallVec<[Token; 4]>;

/// A count of tokens: lengths, positions and limits of contexts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Tokens(pub u32);

macro_rules! display_inner {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

display_inner!(Pid, ContextId, CallId, Ticket, Token, Tokens);

impl std::str::FromStr for Pid {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Pid)
    }
}
