//! Installation: what `kernel/dist/install` puts in place works from there, and goes away again. Units are checked by
//! systemd's own tools where these are.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use syscalls::client::blocking::Client;

/// The greatest exposure that `systemd-analyze security` may find.
const EXPOSURE_MAX: f64 = 1.0;

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name)
}

/// The folder of the executables, if all of them are built.
fn built() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_BIN_EXE_llmasos")).parent().unwrap().to_path_buf();
    let missing = ["llmsh", "llmasos-driver", "chat"].iter().find(|name| !folder.join(name).exists());
    if let Some(name) = missing {
        skipped(&format!("the installation: {name} is not built; `make build` builds it"));
        return None;
    }
    Some(folder)
}

fn install(root: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(dist("install"));
    let output = command.args(arguments).env("DESTDIR", root).env("PREFIX", "/usr").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Says that something was not looked at, past the test runner, which shows nothing of tests that pass.
fn skipped(why: &str) {
    // Unlike what `eprintln!` says, this is seen where the test passes, too.
    std::io::stderr().write_all(format!("NOT CHECKED: {why}\n").as_bytes()).unwrap();
}

/// The first version of systemd that looks at units without running itself.
const SYSTEMD_MIN: u32 = 250;

/// The version of systemd's tool, as it says it in its first line: `systemd 252 (252.39-1)`.
fn systemd_version() -> Result<u32, String> {
    let output = Command::new("systemd-analyze").arg("--version").output();
    let said = String::from_utf8_lossy(&output.map_err(|e| e.to_string())?.stdout).into_owned();
    let number = said.split_whitespace().nth(1).and_then(|word| word.split('.').next()?.parse().ok());
    number.ok_or(format!("it says no version: {said}"))
}

/// Runs one of systemd's tools on the units as they are installed; none where the tool is missing or too old.
fn analyze(arguments: &[&str], drop_in: Option<&str>) -> Option<std::process::Output> {
    match systemd_version() {
        Ok(SYSTEMD_MIN..) => {}
        Ok(version) => {
            skipped(&format!(
                "the units of systemd: systemd-analyze is of version {version}, not {SYSTEMD_MIN}"
            ));
            return None;
        }
        Err(e) => {
            skipped(&format!("the units of systemd: systemd-analyze does not run: {e}"));
            return None;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    if let Some(text) = drop_in {
        let of_service = folder.path().join("llmasos.service.d");
        fs::create_dir(&of_service).unwrap();
        fs::write(of_service.join("gpu.conf"), text).unwrap();
    }
    for name in ["llmasos.service", "llmasos.socket"] {
        let unit = fs::read_to_string(dist("systemd").join(name)).unwrap();
        fs::write(folder.path().join(name), unit.replace("@BINDIR@/llmasos", env!("CARGO_BIN_EXE_llmasos")))
            .unwrap();
    }
    let paths: Vec<PathBuf> = ["llmasos.service", "llmasos.socket"].map(|n| folder.path().join(n)).into();
    let units = if arguments[0] == "security" { &paths[..1] } else { &paths[..] };
    Some(Command::new("systemd-analyze").args(arguments).args(units).output().expect("it ran a moment ago"))
}

#[test]
fn compiler_of_several_words_is_the_one_that_builds() {
    let built = |cc: &str, cxx: Option<&str>| {
        let mut command = Command::new("bash");
        command.args(["-c", r#"env $("$0" --print-env) sh -c 'echo "$CC, $CXX"'"#]).arg(dist("prepare"));
        command.env("CC", cc).env_remove("CXX").envs(cxx.map(|cxx| ("CXX", cxx)));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(built("ccache clang-19", Some("ccache clang++-19")), "ccache clang-19, ccache clang++-19\n");
    assert_eq!(built("gcc", None), "gcc, c++\n");
}

#[test]
fn units_are_valid() {
    let complaints = |drop_in: Option<&str>| {
        let output = analyze(&["verify", "--man=no"], drop_in)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Some(said.lines().filter(|line| line.contains("llmasos")).map(String::from).collect::<Vec<_>>())
    };
    let gpu = fs::read_to_string(dist("systemd").join("llmasos-gpu.conf")).unwrap();
    let Some(alone) = complaints(None) else { return };
    assert!(alone.is_empty(), "{alone:?}");
    let with_gpu = complaints(Some(&gpu)).unwrap();
    assert!(with_gpu.is_empty(), "{with_gpu:?}");
    let wrong = complaints(Some(&format!("{gpu}\nNonsense=1\n"))).unwrap();
    assert!(!wrong.is_empty(), "systemd looks at the one for graphics devices, too");
}

#[test]
fn unit_lets_the_daemon_see_the_names_of_those_who_connect() {
    for unit in ["llmasos.service", "llmasos-gpu.conf"] {
        let unit = fs::read_to_string(dist("systemd").join(unit)).unwrap();
        let hides = |line: &&str| line.starts_with("ProtectProc=") && *line != "ProtectProc=default";
        assert_eq!(
            unit.lines().find(hides),
            None,
            "processes of other users would have no name and no parent"
        );
    }
}

#[test]
fn unit_exposes_little() {
    let Some(output) = analyze(&["security", "--offline=true", "--no-pager"], None) else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
    let level = line.rsplit(": ").next().and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    let level =
        level.unwrap_or_else(|| panic!("no level in {said}{}", String::from_utf8_lossy(&output.stderr)));
    println!("exposure {level} of at most {EXPOSURE_MAX}");
    assert!(level <= EXPOSURE_MAX, "{said}");
}

#[test]
fn installed_daemon_serves_and_is_removed_without_its_data() {
    let Some(built) = built() else { return };
    let root = tempfile::tempdir().unwrap();
    install(root.path(), &[built.to_str().unwrap()]);
    let at = |path: &str| root.path().join(path);
    for file in [
        "usr/lib/systemd/system/llmasos.service",
        "usr/lib/systemd/system/llmasos.socket",
        "usr/lib/sysusers.d/llmasos.conf",
        "usr/lib/tmpfiles.d/llmasos.conf",
        "usr/share/man/man1/llmasos-daemon.1",
        "usr/share/man/man1/llmasos-ps.1",
    ] {
        assert!(at(file).is_file(), "{file} is missing");
    }
    for name in ["llmasos", "llmsh", "translator", "summariser", "qa", "chat"] {
        for file in [
            format!("usr/bin/{name}"),
            format!("usr/share/man/man1/{name}.1"),
            format!("usr/share/zsh/site-functions/_{name}"),
            format!("usr/share/fish/vendor_completions.d/{name}.fish"),
        ] {
            assert!(at(&file).is_file(), "{file} is missing");
        }
        let completions = at("usr/share/bash-completion/completions").join(name);
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", "source \"$0\" && complete -p \"$1\""]).arg(&completions).arg(name);
        let output = bash.output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let unit = fs::read_to_string(at("usr/lib/systemd/system/llmasos.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/llmasos daemon --system"), "{unit}");

    let data = at("var/lib/llmasos");
    let mut command = Command::new(at("usr/bin/llmasos"));
    command.arg("daemon").arg("--config").arg(at("etc/llmasos/llmasos.ron"));
    command.arg("--socket").arg(at("s")).arg("--data").arg(&data).args(["--ready-fd", "3"]);
    // The shell moves the pipe from descriptor 1 to 3.
    let mut starter = Command::new("sh");
    starter.args(["-c", "exec \"$0\" \"$@\" 3>&1 1>&2"]).arg(command.get_program()).args(command.get_args());
    let mut daemon = starter.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(daemon.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let mut client = Client::connect(&at("s"), "test").unwrap();
    client.mount("sim:", "m", |_| {}).expect("the installed worker runs in the installed jail");
    client.call(syscalls::call::Shutdown {}).unwrap();
    assert!(daemon.wait().unwrap().success());

    // Installing again keeps what the user has written.
    fs::write(at("etc/llmasos/llmasos.ron"), "(log: \"warn\")").unwrap();
    install(root.path(), &[built.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(at("etc/llmasos/llmasos.ron")).unwrap(), "(log: \"warn\")");

    install(root.path(), &["--remove"]);
    let left = Command::new("find").arg(at("usr")).args(["!", "-type", "d"]).output().unwrap();
    assert_eq!(
        String::from_utf8(left.stdout).unwrap(),
        "",
        "nothing stays but the configuration and the data"
    );
    assert!(at("etc/llmasos/llmasos.ron").is_file(), "the configuration stays");
    assert!(data.join("store").exists(), "the data stays");
}

/// Makes a package, behind an older one, of programs that do nothing but write empty manuals.
const PACKAGE_OF_NOTHING: &str = r#"
mkdir "$0/built" "$0/tools" "$0/out"
echo '#!/bin/sh' >"$0/tools/strip"
for name in llmsh translator summariser qa chat llmasos-driver llmasos-jail; do
  cp "$0/tools/strip" "$0/built/$name"
done
cat >"$0/built/llmasos" <<'END'
#!/bin/sh
for name in $(case $0 in *trainer) echo llmasos-trainer;; *) echo llmasos llmsh translator summariser qa chat;; esac); do
  touch "$2/$name.1" "$2/$name.bash" "$2/_$name" "$2/$name.fish"
done
END
cp "$0/built/llmasos" "$0/built/llmasos-trainer"
chmod 755 "$0"/*/*
touch "$0/out/llmasos_0.0.1_all.deb"
PATH="$0/tools:$PATH" exec "$1" "$0/built" "$0/out"
"#;

/// Makes it in a folder, and gives the names of what lies there then; none where packages cannot be made.
fn packages_of_nothing(folder: &Path) -> Option<Vec<String>> {
    if let Err(e) = Command::new("dpkg-deb").arg("--version").output() {
        skipped(&format!("the package: dpkg-deb does not run: {e}"));
        return None;
    }
    let mut command = Command::new("bash");
    let output = command.args(["-ec", PACKAGE_OF_NOTHING]).arg(folder).arg(dist("deb")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packages = fs::read_dir(folder.join("out")).unwrap();
    Some(packages.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
}

#[test]
fn package_takes_the_place_of_the_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some(names) = packages_of_nothing(folder.path()) else { return };
    let version = format!("llmasos_{}_", env!("CARGO_PKG_VERSION"));
    assert!(names.len() == 1 && names[0].starts_with(&version), "{names:?}");
}

/// Runs what a package does when it is installed for the first time, with tools that only say how they are called.
const CONFIGURED: &str = r#"
for name in systemctl systemd-sysusers systemd-tmpfiles; do
  printf '#!/bin/sh\necho %s "$@"\n' "$name" >"$0/tools/$name"
  chmod 755 "$0/tools/$name"
done
dpkg-deb --info "$0"/out/llmasos_*.deb postinst >"$0/postinst"
PATH="$0/tools:$PATH" exec sh "$0/postinst" configure ""
"#;

#[test]
fn package_enables_its_units_where_no_systemd_runs_too() {
    let folder = tempfile::tempdir().unwrap();
    if packages_of_nothing(folder.path()).is_none() {
        return;
    }
    let output = Command::new("bash").args(["-ec", CONFIGURED]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.lines().any(|line| line == "systemctl enable llmasos.socket llmasos.service"), "{said}");
}
