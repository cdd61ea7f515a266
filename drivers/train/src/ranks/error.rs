//! What can go wrong between ranks.

/// Why ranks do not begin together, or do not go on.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RankError {
    /// A rank died, or ended while others waited for it.
    #[error("rank {rank} of {size} is gone: {why}")]
    Lost {
        /// Its number in the world.
        rank: usize,
        /// Ranks in the world.
        size: usize,
        /// What is known of it.
        why: String,
    },
    /// There are more or fewer ranks than the layout has.
    #[error(
        "{layout} is {wanted} ranks, and {found} of them started; start {wanted} (--ranks {wanted}, mpirun -n \
         {wanted}, srun -n {wanted}), or change `ranks` in the specification"
    )]
    World {
        /// The layout as a product.
        layout: String,
        /// Ranks that it needs.
        wanted: usize,
        /// Ranks that there are.
        found: usize,
    },
    /// Ranks that were given different specifications.
    #[error(
        "rank {rank} has another specification than rank 0: its digest is {theirs}, and that of rank 0 is {ours}; \
         give all ranks the same file and the same --set"
    )]
    Specification {
        /// The first that differs.
        rank: usize,
        /// Its digest.
        theirs: String,
        /// The digest of rank 0.
        ours: String,
    },
    /// What one rank refuses, which all of them then do.
    #[error("{}", refused(*.rank, .why))]
    Refused {
        /// The first that refuses.
        rank: usize,
        /// Its reason.
        why: String,
    },
    /// A model that cannot be divided as the layout says.
    #[error("{0}")]
    Unfit(String),
    /// The library below failed.
    #[error("{call}: {why}")]
    Transport {
        /// What was asked of it.
        call: &'static str,
        /// What it answered.
        why: String,
    },
}

/// What is told of a refusal. That of the first rank is most often that of all of them, and said as if there were no others.
fn refused(rank: usize, why: &str) -> String {
    if rank == 0 { why.to_owned() } else { format!("rank {rank}: {why}") }
}

/// A result between ranks.
pub type Result<T, E = RankError> = std::result::Result<T, E>;
