//! Every bound that a user can run into, in one place. Both sides read them from here, so an error can name the
//! limit as well as the value that broke it.

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ pub const $name:ident: $ty:ty = $value:expr;)+) => {
        $($(#[doc = $doc])+ pub const $name: $ty = $value;)+

        /// Every limit with its value and meaning, for the manual.
        pub(crate) const ALL: &[(&str, i128, &str)] =
            &[$((stringify!($name), $name as i128, concat!($($doc, "\n"),+)),)+];
    };
}

limits! {
    /// The longest line on the socket, in bytes, its newline included. A 128k-token prompt in a script of four bytes
    /// a token takes 512 KiB and JSON escapes can multiply that by six; 8 MiB leaves room for both.
    pub const LINE_BYTES_MAX: usize = 8 << 20;

    /// The version of the interface that this crate speaks. It grows when a call changes its meaning.
    pub const ABI_VERSION: u32 = 1;

    /// Requests of one connection that may be unanswered at once; the next is answered EAGAIN.
    pub const CALLS_IN_FLIGHT_MAX: usize = 1024;

    /// Calls that may wait in line for one context; the next is answered EAGAIN.
    pub const CALLS_PER_CONTEXT_MAX: usize = 64;

    /// Bytes of replies and events that wait for a client that does not read. Above it the client's processes stop
    /// generating until it has caught up.
    pub const OUTPUT_BYTES_HIGH: usize = 1 << 20;

    /// Bytes that the daemon keeps for a client that does not read, before it gives the client up and closes the
    /// connection: the largest reply, and what passed `OUTPUT_BYTES_HIGH` before the client's processes stopped.
    pub const OUTPUT_BYTES_MAX: usize = REPLY_BYTES_MAX + (4 << 20);

    /// The longest line that a client has to expect, in bytes: the reply to a full `embed`, 1,024 vectors of 4,096
    /// numbers of up to 14 characters.
    pub const REPLY_BYTES_MAX: usize = 64 << 20;

    /// Connections at once; a further one is answered EMFILE and closed.
    pub const CONNECTIONS_MAX: usize = 4096;

    /// Bytes of requests of all connections together that may wait for the kernel. Above it connections are not read
    /// until it has caught up: eight of the longest lines.
    pub const REQUEST_BYTES_WAITING_MAX: usize = 8 * LINE_BYTES_MAX;

    /// Bytes of lines that have begun and not ended, on all connections of one user: 32 of the longest lines. A line
    /// that would be kept beyond it is dropped, and answered EMSGSIZE when it ends.
    pub const HALF_LINES_BYTES_MAX: usize = 32 * LINE_BYTES_MAX;

    /// Requests of all connections together, and messages of all workers together, that may wait for the kernel.
    pub const EVENTS_WAITING_MAX: usize = 1024;

    /// Bytes that wait for a worker that does not read; above it the worker counts as hung and is killed. A step of a
    /// full batch takes less than a megabyte, so this has room for the longest text that each of 64 contexts tokenizes.
    pub const WORKER_BYTES_WAITING_MAX: usize = 64 * LINE_BYTES_MAX;

    /// The longest quantum of `compute`, in microseconds: so long others of its class may have to wait.
    pub const QUANTUM_US_MAX: u32 = 1_000_000;

    /// Ranks of a run of training: more than one machine has processors.
    pub const RANKS_MAX: u32 = 4096;

    /// Processes at once, zombies included.
    pub const PROCESSES_MAX: usize = 65_536;

    /// Processes of one user at once that outlive their connections.
    pub const LASTING_PER_USER_MAX: usize = 1024;

    /// Replies that are kept for one process until they are fetched; the oldest goes for the next one.
    pub const RESULTS_KEPT_MAX: usize = 64;

    /// Bytes of such replies of all processes of one user: four of the largest. In the place of one that would be kept
    /// beyond it E2BIG is kept.
    pub const RESULTS_BYTES_PER_USER_MAX: usize = 4 * REPLY_BYTES_MAX;

    /// Answered calls that are remembered of one process, for `inspect`; the oldest goes for the next one.
    pub const CALLS_REMEMBERED_MAX: usize = 16;

    /// Programs at once that the daemon has started as processes.
    pub const PROGRAMS_MAX: usize = 256;

    /// Such programs of one user at once; the next is answered EAGAIN.
    pub const PROGRAMS_PER_USER_MAX: usize = 64;

    /// Bytes of the arguments of such a program, its name included.
    pub const ARGUMENT_BYTES_MAX: usize = 64 << 10;

    /// Bytes of a line that such a program prints; a longer one is cut into several.
    pub const PRINTED_LINE_BYTES_MAX: usize = 4096;

    /// Lines that are kept of what a program, or a service, has printed; the oldest goes for the next one.
    pub const PRINTED_LINES_MAX: usize = 1000;

    /// Bytes of these lines; the oldest go for the next ones.
    pub const PRINTED_BYTES_MAX: usize = 64 << 10;

    /// Programs that have ended and whose last lines are kept.
    pub const PRINTED_ENDED_MAX: usize = 64;

    /// Services, transient ones included.
    pub const SERVICES_MAX: usize = 128;

    /// Transient services of one user.
    pub const SERVICES_PER_USER_MAX: usize = 16;

    /// Starts within `start_limit_interval_ms` that a service may be allowed.
    pub const SERVICE_STARTS_MAX: u32 = 1000;

    /// Groups of processes at once.
    pub const GROUPS_MAX: usize = 4096;

    /// Groups of one user at once, inside the user's own.
    pub const GROUPS_PER_USER_MAX: usize = 256;

    /// Groups inside each other, the user's own included.
    pub const GROUP_DEPTH_MAX: usize = 8;

    /// The least weight of a group.
    pub const GROUP_WEIGHT_MIN: u32 = 1;

    /// The greatest weight of a group, as in cgroups.
    pub const GROUP_WEIGHT_MAX: u32 = 10_000;

    /// Contexts of one process at once.
    pub const CONTEXTS_PER_PROCESS_MAX: usize = 4096;

    /// Shared segments at once.
    pub const SEGMENTS_MAX: usize = 1024;

    /// Shared segments of one user at once.
    pub const SEGMENTS_PER_USER_MAX: usize = 64;

    /// Snapshots at once.
    pub const SNAPSHOTS_MAX: usize = 1024;

    /// Snapshots of one user at once.
    pub const SNAPSHOTS_PER_USER_MAX: usize = 64;

    /// Copies that one `fork` may make.
    pub const FORK_COPIES_MAX: u32 = 1024;

    /// The largest context that a model may be mounted with.
    pub const CONTEXT_TOKENS_MAX: u32 = 1 << 20;

    /// Bytes of a name: of a process, a model, a segment, a store or a key.
    pub const NAME_BYTES_MAX: usize = 128;

    /// Bytes of one value in a store, written as JSON.
    pub const STORE_VALUE_BYTES_MAX: usize = 1 << 20;

    /// Calls about stores, of all programs together, that may wait for the disk; the next is answered EAGAIN.
    pub const STORE_ORDERS_MAX: usize = 256;

    /// Such calls of one user's programs.
    pub const STORE_ORDERS_PER_USER_MAX: usize = 64;

    /// Bytes of the text that `store_search` looks for.
    pub const STORE_QUERY_BYTES_MAX: usize = 4096;

    /// Results of one `store_search`.
    pub const STORE_RESULTS_MAX: u32 = 1000;

    /// Stop strings of one `generate`.
    pub const STOP_STRINGS_MAX: usize = 16;

    /// Bytes of one stop string.
    pub const STOP_STRING_BYTES_MAX: usize = 256;

    /// Alternatives that `generate` may report for each token.
    pub const LOGPROBS_MAX: u32 = 32;

    /// Bytes of a grammar or JSON schema.
    pub const GRAMMAR_BYTES_MAX: usize = 64 << 10;

    /// Messages that one context remembers for its chat template.
    pub const MESSAGES_MAX: usize = 4096;

    /// Texts in one `embed`.
    pub const EMBED_TEXTS_MAX: usize = 1024;

    /// Models mounted at once.
    pub const MODELS_MAX: usize = 64;

    /// Bytes of one message between processes.
    pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

    /// Arrays and objects inside each other in a value that a program sends or keeps, in a schema, or in a specification.
    /// Readers of JSON give up at 128, and what is said is read again as a part of something larger.
    pub const VALUE_DEPTH_MAX: usize = 100;

    /// Subscriptions at once; a further one is answered EAGAIN.
    pub const SUBSCRIPTIONS_MAX: usize = 64;

    /// Subscriptions of one user at once.
    pub const SUBSCRIPTIONS_PER_USER_MAX: usize = 16;

    /// Traces at once; a further one is answered EAGAIN.
    pub const TRACES_MAX: usize = 64;

    /// Traces of one user at once.
    pub const TRACES_PER_USER_MAX: usize = 16;

    /// Bytes of the texts and numbers in one event of a trace; a larger event is lost. What a client that does not read
    /// can be owed at once, `OUTPUT_BYTES_MAX`, has room for 68 of them.
    pub const TRACE_EVENT_BYTES_MAX: usize = 1 << 20;

    /// Characters of a text, and entries of a list, that a trace shows where it is not `whole`.
    pub const TRACE_SHOWN_MAX: usize = 64;

    /// Messages that wait for one process.
    pub const MAILBOX_MESSAGES_MAX: usize = 256;

    /// Bytes of messages that wait for all processes of one user: as many of the largest as wait for one. A further one is
    /// answered EAGAIN.
    pub const MAILBOX_BYTES_PER_USER_MAX: usize = MAILBOX_MESSAGES_MAX * MESSAGE_BYTES_MAX;

    /// The lowest nice value: five times the weight of nice 0 is near −7, as in Linux.
    pub const NICE_MIN: i8 = -20;

    /// The highest nice value.
    pub const NICE_MAX: i8 = 19;
}
