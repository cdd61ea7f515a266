//! Files, signals, ports and abstract sockets: what Landlock shuts.

use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use super::policy::{Network, Policy};

/// What is handled: a newer version would shut more than the policies here were tested with.
const VERSION: ABI = ABI::V6;

/// Shuts all files but those of the policy and those that are open as `reopen`, and every process outside. Gives whether the system does all of that.
///
/// # Errors
///
/// The system has Landlock and refuses it.
pub(super) fn shut(policy: &Policy, reopen: &[RawFd]) -> Result<bool, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))?
        .scope(Scope::Signal)?;
    if policy.network == Network::None {
        rules = rules.handle_access(AccessNet::from_all(VERSION))?.scope(Scope::AbstractUnixSocket)?;
    }
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let mut rules = rules.create()?;
    rules = allow(rules, &policy.list, AccessFs::ReadDir.into())?;
    rules = allow(rules, &policy.read, read)?;
    rules = allow(rules, &policy.execute, read | AccessFs::Execute)?;
    rules = allow(rules, &policy.write, AccessFs::from_all(VERSION) & !AccessFs::Execute & !make_nodes())?;
    rules = allow(rules, &policy.devices, read | AccessFs::WriteFile | AccessFs::IoctlDev)?;
    rules = allow_again(rules, reopen)?;
    let status = rules.restrict_self()?;
    Ok(status.ruleset == RulesetStatus::FullyEnforced)
}

/// Rights that no program has in any folder: device nodes come from the system.
fn make_nodes() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{MakeChar | MakeBlock})
}

/// Allows the files of descriptors to be read, whatever their names mean by now.
fn allow_again(mut rules: RulesetCreated, reopen: &[RawFd]) -> Result<RulesetCreated, RulesetError> {
    for fd in reopen {
        // SAFETY: the helper's starter has left it open, which is an error here where it is not, and nothing closes it.
        let opened = unsafe { BorrowedFd::borrow_raw(*fd) };
        rules = rules.add_rule(PathBeneath::new(opened, AccessFs::ReadFile))?;
    }
    Ok(rules)
}

/// Allows what exists. A file has no rights of folders.
fn allow(
    mut rules: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    for path in paths {
        let Ok(folder) = path.metadata().map(|m| m.is_dir()) else { continue };
        let Ok(opened) = PathFd::new(path) else { continue };
        let access = if folder { access } else { access & AccessFs::from_file(VERSION) };
        rules = rules.add_rule(PathBeneath::new(opened, access))?;
    }
    Ok(rules)
}
