//! Ranks under MPI: started by `mpirun`, `srun` or a Kubernetes MPIJob, or by this program itself with `--mpi`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::run::RunError;

/// Names the program that starts ranks, where there are several; it must be of the MPI that this program was built with.
const MPIRUN_VARIABLE: &str = "MPIRUN";

/// How many ranks whoever started this process says there are; `None` where nobody did.
pub(super) fn started() -> Option<usize> {
    let number = |name| std::env::var(name).ok()?.parse::<usize>().ok();
    // OpenMPI's mpirun; MPICH's, and Slurm's way to it; PMIx, which Slurm also speaks.
    let named = number("OMPI_COMM_WORLD_SIZE").or_else(|| number("PMI_SIZE"));
    named.or_else(|| std::env::var_os("PMIX_RANK").and_then(|_| number("SLURM_NTASKS")))
}

/// Becomes `mpirun`, which starts this program as so many ranks with the same arguments.
pub(super) fn become_mpirun(ranks: usize) -> Result<std::convert::Infallible, RunError> {
    if !cfg!(feature = "mpi") {
        return Err(RunError::Unfit(NONE.into()));
    }
    let program = std::env::current_exe().map_err(|error| RunError::Unfit(format!("--mpi: {error}")))?;
    let mut mpirun = Command::new(std::env::var_os(MPIRUN_VARIABLE).unwrap_or_else(|| "mpirun".into()));
    mpirun.arg("-n").arg(ranks.to_string()).arg(program).args(without_ranks(std::env::args_os().skip(1)));
    // Of OpenMPI, which MPICH passes over: ranks may share processors, and this user has said what it wants.
    mpirun.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
    mpirun.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    let error = mpirun.exec();
    Err(RunError::Unfit(format!(
        "--mpi: mpirun cannot be started: {error}; install OpenMPI or MPICH, name its mpirun in {MPIRUN_VARIABLE}, or leave --mpi out for ranks as threads"
    )))
}

/// What a program without MPI says to ranks.
pub(super) const NONE: &str = "this program was built without MPI; build it with --features mpi, or use --ranks N alone for ranks as threads";

/// The arguments for each rank.
fn without_ranks(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut skip = false;
    for argument in arguments {
        let text = argument.to_string_lossy();
        let own = text == "--mpi" || text == "--ranks" || text.starts_with("--ranks=");
        if !std::mem::replace(&mut skip, text == "--ranks") && !own {
            kept.push(argument);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_given_all_arguments_but_how_many_they_are() {
        let given =
            ["run", "--ranks", "4", "spec.ron", "--mpi", "--set", "steps=2", "--ranks=4"].map(OsString::from);
        assert_eq!(without_ranks(given.into_iter()), ["run", "spec.ron", "--set", "steps=2"]);
    }
}
