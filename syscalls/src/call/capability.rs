//! What a process may ask for beside its own contexts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! capabilities {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal;)+) => {
        /// Something that a process may do. Processes get theirs when they begin, at most those of their parent, and never
        /// more of them.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Capability { $($(#[doc = $doc])+ $variant,)+ }

        impl Capability {
            /// All of them, first those of every user.
            pub const ALL: &'static [Capability] = &[$(Capability::$variant),+];

            /// Its name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Capability::$variant => $name,)+ }
            }
        }
    };
}

capabilities! {
    /// Make child processes.
    Spawn "spawn";
    /// Have the daemon start programs as processes.
    Exec "exec";
    /// Signal, change, attach and detach other processes of the same user than oneself and one's descendants, and set
    /// groups.
    Signal "signal";
    /// Send messages.
    Ipc "ipc";
    /// Publish segments and take them back.
    Share "share";
    /// Keep processes and snapshots that outlive the connection.
    Persist "persist";
    /// Use the user's stores.
    Store "store";
    /// Train, compress and evaluate models.
    Train "train";
    /// Mount models. Of the administrator, as are all that follow.
    Mount "mount";
    /// Unmount models.
    Umount "umount";
    /// Change the scheduling policy.
    Policy "policy";
    /// Lower nice values and give the class realtime.
    Nice "nice";
    /// Raise limits, set the shares and limits of users' groups, and go beyond the limits of a user.
    Resource "resource";
    /// Signal, change and look into processes of other users, and send them messages.
    Kill "kill";
    /// Open, replace and remove segments of other users.
    Override "override";
    /// Stop the daemon.
    Shutdown "shutdown";
}
