use super::*;

#[test]
fn greeting_is_asked_for_again_for_a_bounded_time_and_after_an_end_alone() {
    let ended = gone(None);
    let mut tries = Tries::of(&hello("test"));
    assert!(tries.go_on(&ended) && tries.go_on(&ended));
    assert!(!tries.go_on(&Fault::new(Errno::EMFILE, "4096 of 4096 connections")), "the daemon has answered");
    tries.until = Some(Instant::now());
    assert!(!tries.go_on(&ended), "the time is over");
}
