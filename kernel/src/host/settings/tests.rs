//! Settings from flags, the environment and files, and what is wrong with them.

use super::file::parse;
use super::services::ServiceEntry;
use super::*;
use syscalls::call::Class;

const SHIPPED: &str = include_str!("../../../dist/llmasos.ron");

fn file(text: &str) -> Result<File, String> {
    parse(Path::new("f.ron"), text).map_err(|e| e.to_string())
}

#[test]
fn file_shipped_says_the_defaults() {
    assert_eq!(file(SHIPPED), Ok(File::default()));
}

#[test]
fn file_shipped_explains_every_key() {
    for line in SHIPPED.lines().filter_map(|l| l.trim_start().strip_prefix("// ")) {
        // An example in a comment is valid, too.
        if line.starts_with("mounts:") {
            assert_eq!(file(&format!("({line})")).map(|f| f.mounts.len()), Ok(1), "{line}");
        }
    }
    let error = file("(nonsense: 1)").expect_err("no such key");
    for key in error.split("the keys are ").nth(1).expect("lists the keys").split(", ") {
        assert!(SHIPPED.contains(&format!("{key}:")), "{key} is missing in dist/llmasos.ron");
    }
}

#[test]
fn service_of_the_shipped_example_is_valid_and_says_the_defaults() {
    let lines = SHIPPED.lines().filter_map(|l| l.trim_start().strip_prefix("// "));
    let mut example: Vec<&str> = lines.skip_while(|line| !line.starts_with("services: [(")).collect();
    example.truncate(1 + example.iter().position(|line| line.starts_with(")]")).expect("it ends"));
    let mut entries = file(&format!("({})", example.join("\n"))).expect("valid").services;
    let mut entry = entries.remove(0);
    assert_eq!((entry.class, entry.limits.contexts), (Class::Batch, Some(4)));
    super::services::services(vec![entry.clone()]).expect("makes sense");
    let defaults = ServiceEntry { name: entry.name.clone(), argv: entry.argv.clone(), ..Default::default() };
    (entry.environment, entry.user, entry.class) = (Default::default(), None, defaults.class);
    (entry.nice, entry.group, entry.limits) = (0, None, defaults.limits);
    assert_eq!(entry, defaults);
}

#[test]
fn services_that_make_no_sense_are_refused_with_the_reason() {
    let refused = |services: &str| {
        let file = file(&format!("(services: [{services}])")).expect("it has a form");
        merge(Flags::default(), file).expect_err("it makes no sense").to_string()
    };
    let check = |services: &str, expected: &str| {
        let error = refused(services);
        assert!(error.contains(expected), "{error}");
    };
    check(r#"(name: "a b", argv: ["x"])"#, "name of a service is `a b`");
    check(r#"(name: "a")"#, "argv of service a is []; name a program");
    check(r#"(name: "a", argv: ["x"], environment: {"LLMASOS_SOCKET": "/s"})"#, "none that the daemon sets");
    check(r#"(name: "a", argv: ["x"], user: "no-such-user")"#, "user of a service is `no-such-user`");
    check(r#"(name: "a", argv: ["x"], nice: 20)"#, "nice of service a is 20");
    check(r#"(name: "a", argv: ["x"], start_limit_burst: 0)"#, "start_limit_burst of service a is 0");
    check(r#"(name: "a", argv: ["x"], backoff_max_ms: 50)"#, "at most backoff_max_ms, which is 50");
    check(r#"(name: "a", argv: ["x"], stop_signal: STOP)"#, "stop_signal of service a is STOP");
    check(r#"(name: "a", argv: ["x"]), (name: "a", argv: ["y"])"#, "two services are called `a`");
    check(r#"(name: "a", argv: ["x"], requires: ["b"])"#, "service `a` names `b` in requires");
    let circle = r#"(name: "c", argv: ["x"], after: ["a"]), (name: "a", argv: ["x"], requires: ["b"]),
        (name: "b", argv: ["x"], after: ["a"])"#;
    check(circle, "in a circle: a → b → a");
}

#[test]
fn key_unknown_is_named_with_its_place() {
    let error = file("(\n  sokcet: \"/s\",\n)").expect_err("no such key");
    assert!(error.starts_with("f.ron:2:"), "{error}");
    assert!(error.contains("unknown key `sokcet`; did you mean `socket`?"), "{error}");
}

#[test]
fn value_of_a_wrong_type_is_named_with_its_place() {
    let error = file("(\n\n  log: 7,\n)").expect_err("no text");
    assert!(error.starts_with("f.ron:3:"), "{error}");
}

#[test]
fn value_that_is_long_is_not_quoted_in_full() {
    let long = "g".repeat(5000);
    for key in [format!("devices: [(name: \"cuda:0\", memory: \"{long}\")]"), format!("{long}: 1")] {
        let error = file(&format!("({key})")).expect_err("it is none");
        assert!(error.len() < 1000 && error.contains('…'), "{} bytes", error.len());
    }
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = r#"(socket: "/file/s", data: "/file/d", log: "warn", mounts: [(path: "/m", name: "m")])"#;
    let flags = Flags { socket: Some("/flag/s".into()), ..Flags::default() };
    let settings = merge(flags, file(text).expect("valid")).expect("valid");
    assert_eq!(settings.socket, Path::new("/flag/s"));
    assert_eq!((settings.data.as_path(), settings.log.as_str()), (Path::new("/file/d"), "warn"));
    assert_eq!(settings.kernel.cache_dir.as_deref(), Some("/file/d/cache"));
    assert_eq!(settings.mounts[0].name.as_deref(), Some("m"));
    assert_eq!(settings.socket_mode, 0o600);
}

#[test]
fn path_that_is_relative_is_meant_from_where_the_daemon_was_started() {
    let flags = Flags { socket: Some("s".into()), data: Some("d".into()), ..Flags::default() };
    let settings = merge(flags, File::default()).expect("valid");
    let here = std::env::current_dir().expect("there is one");
    assert_eq!((settings.socket, settings.data), (here.join("s"), here.join("d")));
    assert_eq!(settings.kernel.cache_dir.map(PathBuf::from), Some(here.join("d/cache")));
}

#[test]
fn environment_stands_between_flags_and_file() {
    let flags = Flags { data: Some("/flag/d".into()), ..Flags::default() };
    let var = |name: &str| match name {
        paths::SOCKET_VAR => Some("/env/s".into()),
        paths::DATA_VAR => Some("/env/d".into()),
        _ => None,
    };
    let text = r#"(socket: "/file/s", data: "/file/d", log: "warn")"#;
    let settings = merge(flags.or_environment(var), file(text).expect("valid")).expect("valid");
    assert_eq!(
        (settings.socket.as_path(), settings.data.as_path()),
        (Path::new("/env/s"), Path::new("/flag/d"))
    );
    assert_eq!(settings.log, "warn");
}

#[test]
fn devices_of_the_file_are_all_there_are_and_main_memory_is_always_one() {
    let settled = |flag: Option<&str>, text: &str| {
        let device_memory = flag.map(|size| Bytes::parse(size).expect("a size"));
        let flags = Flags { device_memory, ..Flags::default() };
        let kernel = merge(flags, file(text).expect("valid")).expect("valid").kernel;
        let devices = kernel.devices.into_iter().map(|d| (d.name, d.memory_bytes)).collect::<Vec<_>>();
        (devices, kernel.devices_to_come)
    };
    let cpu = |bytes| ("cpu".to_owned(), bytes);
    let default = machine::device_share(machine::usable_bytes());
    assert_eq!(settled(None, "()"), (vec![cpu(default)], true));
    assert_eq!(settled(Some("8MiB"), "()"), (vec![cpu(8 << 20)], true));
    let gpu = ("cuda:0".to_owned(), 24 << 30);
    let text = r#"(devices: [(name: "cuda:0", memory: "24 GiB")])"#;
    assert_eq!(settled(None, text), (vec![cpu(default), gpu.clone()], false));
    let text = r#"(devices: [(name: "cpu", memory: 1000), (name: "cuda:0", memory: "24GiB")])"#;
    assert_eq!(settled(Some("3000"), text), (vec![cpu(3000), gpu], false));
}

#[test]
fn main_memory_is_not_promised_twice() {
    let usable = machine::usable_bytes().expect("the system says");
    let settled = |device_memory: Option<u64>, text: &str| {
        let flags = Flags { device_memory: device_memory.map(Bytes), ..Flags::default() };
        let kernel = merge(flags, file(text).expect("valid")).expect("valid").kernel;
        (kernel.devices[0].memory_bytes, kernel.swap_host_bytes)
    };
    let (models, pages) = settled(None, "()");
    assert!(pages > 0 && models + pages < usable, "{models} and {pages} of {usable}");
    assert_eq!(settled(Some(usable), "()"), (usable, 0));
    assert_eq!(settled(Some(usable), "(swap_host_bytes: 4096)"), (usable, 4096), "whoever says so");
}

#[test]
fn system_takes_the_places_of_the_system() {
    let flags = Flags { system: true, ..Flags::default() };
    let settings = merge(flags, File::default()).expect("valid");
    assert_eq!(settings.socket, Path::new("/run/llmasos/llmasos.sock"));
    assert_eq!(settings.data, Path::new("/var/lib/llmasos"));
    assert_eq!(settings.socket_mode, 0o660);
}

#[test]
fn value_out_of_range_names_the_limit() {
    let refused = |text: &str| {
        let error = merge(Flags::default(), file(text).expect("parses")).expect_err("out of range");
        error.to_string()
    };
    assert!(refused("(sequences_max: 300)").contains("300; from 1 to 256"));
    let policy = refused("(policy: \"lottery\")");
    assert!(policy.contains("choose one of fifo, rr, fair, mlfq, edf"), "{policy}");
    assert!(refused("(pool_tokens_min: 4294967295)").contains("4294967295; a pool needs from 1 token to"));
    assert!(refused("(worker_patience_ms: 999)").contains("999; a worker"));
    assert!(refused("(latency_target_percent: 100)").contains("100; a step"));
    assert!(refused("(log: \"loud\")").contains("error, warn, info"));
    assert!(refused("(jail: (program: (write: [\"out\"])))").contains("path of the jail is `out`; whoever"));
    assert!(refused("(mounts: [(path: \"m.gguf\", name: \"m\")])").contains("from / on"));
}

#[test]
fn file_asked_for_and_missing_is_an_error() {
    let flags = Flags { config: Some("/nonexistent/llmasos.ron".into()), ..Flags::default() };
    let error = Settings::settle(flags).expect_err("missing").to_string();
    assert!(error.contains("/nonexistent/llmasos.ron"), "{error}");
}
