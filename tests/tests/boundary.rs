//! Who may link what.

use std::process::Command;

use harness::{binary, workspace};

fn libraries(program: &str) -> String {
    let out = Command::new("ldd").arg(binary(program)).output().expect("ldd is part of every Linux");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn daemon_and_userland_link_no_cpp() {
    for program in ["llmasos", "llmsh", "translator", "summariser", "qa", "chat"] {
        let libraries = libraries(program);
        assert!(libraries.contains("libc.so"), "{program}: {libraries}");
        assert!(!libraries.contains("stdc++") && !libraries.contains("libc++"), "{program}: {libraries}");
    }
    assert!(libraries("llmasos-driver").contains("stdc++"), "the test would see it");
}

/// A clock that somebody sets back or forth must matter to nobody: the daemon and its workers go by one that only runs.
#[test]
fn daemon_and_drivers_read_no_wall_clock() {
    for folder in ["kernel/src", "drivers/src"] {
        let out = Command::new("grep")
            .args(["-rn", "SystemTime::now", "--include=*.rs"])
            .arg(workspace().join(folder))
            .output()
            .expect("grep is part of every Linux");
        // It has looked, and found nothing.
        let found = (out.status.code(), String::from_utf8_lossy(&out.stdout));
        assert_eq!(found, (Some(1), "".into()), "{folder}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
