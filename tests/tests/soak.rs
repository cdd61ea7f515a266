//! Twenty seconds of the soak: nothing is left when all rest. `make soak` runs it for ten minutes, and looks at memory
//! more closely than so short a time allows.

use std::time::Duration;

use harness::soak::{Setting, run};

/// What warms up in twenty seconds is not leaked; a leak of some bytes an operation shows in ten minutes.
const GROWTH_PERCENT_MAX: f64 = 30.0;

#[test]
fn random_operations_leave_no_frame_no_process_and_no_descriptor() {
    let setting = Setting { time: Duration::from_secs(20), rounds: 8, clients: 4, fill: false, seed: 2 };
    let report = run(setting);
    let (done, refused) = report.totals();
    println!("{done} operations, {refused} refused; {} workers killed", report.workers_killed);
    println!("resident at rest, KiB: {:?}", report.resident_kib);
    assert!(report.leaks.is_empty(), "{:#?}", report.leaks);
    assert!(done > refused && report.workers_killed > 0, "{report:?}");
    assert!(report.growth_percent() < GROWTH_PERCENT_MAX, "{report:?}");
}
