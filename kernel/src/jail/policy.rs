//! What a program may reach. Everything that is not named is shut.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a jailed program may reach. The default reaches nothing but what it was handed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Folders whose names it may list, with those of folders in them.
    pub list: Vec<PathBuf>,
    /// Files and folders that it may read.
    pub read: Vec<PathBuf>,
    /// Files and folders that it may read and run.
    pub execute: Vec<PathBuf>,
    /// Files and folders that it may read and change.
    pub write: Vec<PathBuf>,
    /// Device nodes, and folders of them, that it may use.
    pub devices: Vec<PathBuf>,
    /// What it may change about files.
    pub attributes: Attributes,
    /// Sockets that it may make.
    pub network: Network,
    /// What it may take.
    pub limits: Limits,
}

/// Whether a program may change modes, owners, times and extended attributes of files. Landlock keeps nobody from that, so
/// it is of all files of the program's user, whether it may open them or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attributes {
    /// Of none.
    #[default]
    Shut,
    /// Of all that are its user's.
    Open,
}

/// Sockets that a program may make. Those that it was handed it can use in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Pairs alone, for its own children, and nothing of System V.
    #[default]
    None,
    /// Unix sockets: of whatever listens on this machine and lets the user in. What is shared by System V goes with them.
    Unix,
    /// All that the user may.
    All,
}

/// What a program may take; nothing where the system's own limit stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Descriptors at once.
    pub files: Option<u64>,
    /// Processes and threads beyond those that the user has when the program starts. The system counts them by user,
    /// and does not count those of root.
    pub processes: Option<u64>,
    /// Bytes of memory of its own in each of its processes.
    pub memory_bytes: Option<u64>,
    /// Seconds of processor time of each of its processes.
    pub cpu_seconds: Option<u64>,
    /// Bytes of each file that it writes.
    pub file_bytes: Option<u64>,
}

/// The system's libraries, and where the dynamic linker finds them.
const LIBRARIES: &[&str] = &[
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libx32",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
];

/// The dynamic linkers, which the system runs for whoever runs a program.
const LINKERS: &[&str] = &[
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
];

/// What the C library, the standard library and ggml ask the machine: processors, their topology and caches, memory,
/// control groups.
const MACHINE: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm",
    "/proc/sys/kernel/ngroups_max",
    "/proc/filesystems",
    "/proc/version",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
];

/// Devices without a state that anybody could harm.
const HARMLESS_DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Nodes and folders of graphics devices.
const GRAPHICS_DEVICES: &[&str] = &[
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
    "/dev/nvidia-caps",
    "/dev/dri",
    "/dev/kfd",
    "/dev/shm",
];

/// What the libraries of graphics devices read.
const GRAPHICS_FILES: &[&str] = &[
    "/proc/driver/nvidia",
    "/proc/devices",
    "/proc/modules",
    "/sys/bus/pci",
    "/sys/class/drm",
    "/sys/class/kfd",
    "/sys/devices",
    "/sys/module",
    "/usr/share/nvidia",
    "/usr/local/cuda",
    "/etc/OpenCL",
    "/etc/vulkan",
    "/opt/rocm",
];

/// Programs and data of the system that everybody may use.
const SYSTEM: &[&str] = &["/bin", "/usr", "/lib", "/lib64", "/opt", "/nix/store", "/gnu/store"];

/// Settings that programs read: names, time zones, certificates, fonts. No secrets are in them.
const SETTINGS: &[&str] = &[
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/fonts",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/locale.alias",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/python3",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
];

/// Descriptors of a worker: a model of many parts, and libraries of graphics devices.
const WORKER_FILES: u64 = 4096;

/// Threads and probes of a worker.
const WORKER_PROCESSES: u64 = 1024;

fn paths(names: &[&str]) -> impl Iterator<Item = PathBuf> {
    names.iter().map(PathBuf::from)
}

impl Policy {
    /// Of the process that runs a model: libraries, what it asks the machine, and nothing else yet.
    pub fn worker() -> Policy {
        Policy {
            read: paths(LIBRARIES).chain(paths(MACHINE)).collect(),
            execute: paths(LINKERS).collect(),
            devices: paths(HARMLESS_DEVICES).collect(),
            limits: Limits {
                files: Some(WORKER_FILES),
                processes: Some(WORKER_PROCESSES),
                ..Limits::default()
            },
            ..Policy::default()
        }
    }

    /// With the limits of a worker: it computes with all of the machine.
    pub fn computing(mut self) -> Policy {
        self.limits = Policy::worker().limits;
        self
    }

    /// Adds what another policy allows, and takes its limits where it has some.
    pub fn with(mut self, more: &Policy) -> Policy {
        self.list.extend(more.list.iter().cloned());
        self.read.extend(more.read.iter().cloned());
        self.execute.extend(more.execute.iter().cloned());
        self.write.extend(more.write.iter().cloned());
        self.devices.extend(more.devices.iter().cloned());
        self.network = self.network.max(more.network);
        self.attributes = self.attributes.max(more.attributes);
        let (own, theirs) = (&mut self.limits, more.limits);
        own.files = theirs.files.or(own.files);
        own.processes = theirs.processes.or(own.processes);
        own.memory_bytes = theirs.memory_bytes.or(own.memory_bytes);
        own.cpu_seconds = theirs.cpu_seconds.or(own.cpu_seconds);
        own.file_bytes = theirs.file_bytes.or(own.file_bytes);
        self
    }

    /// Adds the graphics devices of this machine.
    pub fn with_graphics(mut self) -> Policy {
        let numbered = (0..64).map(|n| PathBuf::from(format!("/dev/nvidia{n}")));
        self.devices.extend(paths(GRAPHICS_DEVICES).chain(numbered));
        self.read.extend(paths(GRAPHICS_FILES));
        // CUDA opens sockets to its own daemons where these are, and counts its processes nowhere.
        self.network = Network::Unix;
        // They share memory in files, which they make with one mode and give another.
        self.attributes = Attributes::Open;
        self
    }

    /// Of a program of a user: what all users of the system may run and read, and limits that a mistake runs into
    /// before the machine does.
    pub fn program() -> Policy {
        Policy {
            read: paths(SETTINGS).chain(paths(MACHINE)).collect(),
            execute: paths(SYSTEM).collect(),
            devices: paths(HARMLESS_DEVICES).collect(),
            attributes: Attributes::Open,
            limits: Limits {
                files: Some(256),
                processes: Some(64),
                memory_bytes: Some(4 << 30),
                file_bytes: Some(1 << 30),
                ..Limits::default()
            },
            ..Policy::default()
        }
    }
}
