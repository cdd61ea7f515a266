use syscalls::call::Class;

use super::*;

fn rows(of: &[(u32, u64, u32, bool)]) -> Vec<StepRow> {
    let row = |(pid, context, tokens, prefill): &(u32, u64, u32, bool)| StepRow {
        pid: Pid(*pid),
        context: ContextId(*context),
        tokens: *tokens,
        prefill: *prefill,
    };
    of.iter().map(row).collect()
}

fn step(begun_us: u64, at_us: u64, number: u64, of: &[(u32, u64, u32, bool)]) -> Event {
    let elapsed_us = at_us - begun_us;
    Event::Step { at_us, begun_us, elapsed_us, model: "m".into(), number, frames_free: 7, rows: rows(of) }
}

fn page(at_us: u64, context: u64, change: PageChange, tokens: u32) -> Event {
    Event::Page { at_us, model: "m".into(), pid: Pid(5), context: ContextId(context), change, tokens }
}

/// The trace of events, read back.
fn trace(events: &[Event]) -> Vec<Value> {
    let mut timeline = Timeline::new(Vec::new()).expect("memory can be written");
    events.iter().for_each(|event| timeline.take(event).expect("memory can be written"));
    let (bytes, count) = timeline.finish().expect("memory can be written");
    let read: Value = serde_json::from_slice(&bytes).expect("it is JSON");
    let events = read.as_array().expect("it is a list of events").clone();
    assert_eq!(events.len() as u64, count);
    // Cut behind any line, it is a list without its end.
    let text = String::from_utf8(bytes).expect("it is text");
    let lines = text.lines().skip(1).take(events.len());
    let alone =
        lines.map(|line| serde_json::from_str(line.trim_end_matches(',')).expect("a line is an event"));
    assert_eq!(alone.collect::<Vec<Value>>(), events);
    events
}

fn named<'a>(trace: &'a [Value], name: &str) -> Vec<&'a Value> {
    trace.iter().filter(|e| e["name"] == name).collect()
}

#[test]
fn step_is_a_slice_of_its_model_and_of_each_process_in_it() {
    let process = Event::Process {
        at_us: 1,
        pid: Pid(5),
        parent: Pid(1),
        name: "agent \"x\"".into(),
        class: Class::Normal,
        change: ProcessChange::Started,
        status: None,
    };
    let trace = trace(&[process, step(10, 30, 1, &[(5, 1, 100, true), (5, 2, 1, false), (6, 3, 1, false)])]);
    let model = named(&trace, "decode 2, prefill 100");
    assert_eq!(model.len(), 1);
    assert_eq!((&model[0]["ph"], &model[0]["ts"], &model[0]["dur"]), (&json!("X"), &json!(10), &json!(20)));
    let own = named(&trace, "decode 1, prefill 100")[0];
    assert_eq!(own["args"]["contexts"], json!([1, 2]));
    let name = trace.iter().find(|e| e["ph"] == "M" && e["tid"] == own["tid"] && e["pid"] == own["pid"]);
    assert_eq!(name.expect("its line has a name")["args"]["name"], "agent \"x\" (5)");
    assert_eq!(named(&trace, "m: frames free")[0]["args"]["value"], 7);
}

#[test]
fn wait_for_frames_is_a_span_until_the_context_is_in_memory() {
    let trace = trace(&[
        page(5, 1, PageChange::Waits, 40),
        page(8, 1, PageChange::Mapped, 0),
        page(9, 1, PageChange::Dropped, 40),
        page(9, 1, PageChange::Waits, 41),
        step(9, 12, 1, &[]),
    ]);
    let spans = named(&trace, WAITS);
    let shown: Vec<_> =
        spans.iter().map(|e| (e["ph"].as_str().unwrap_or(""), e["ts"].as_u64().unwrap_or(0))).collect();
    assert_eq!(shown, [("b", 5), ("e", 8), ("b", 9), ("e", 12)]);
    assert!(spans.iter().all(|e| e["id"] == 1 && e["cat"] == WAITS));
    assert_eq!(named(&trace, "pages dropped")[0]["args"]["tokens"], 40);
}

#[test]
fn worker_that_dies_ends_a_slice_and_leaves_a_mark() {
    let worker = |at_us, incarnation, change| Event::Worker {
        at_us,
        model: "m".into(),
        incarnation,
        change,
        detail: String::new(),
    };
    let trace = trace(&[
        worker(0, 1, WorkerChange::Starting),
        worker(3, 1, WorkerChange::Ready),
        worker(9, 1, WorkerChange::Died),
        worker(9, 2, WorkerChange::Starting),
        step(9, 10, 1, &[]),
    ]);
    let slices: Vec<_> = trace
        .iter()
        .filter(|e| e["ph"] == "X" && e["name"] != "operations")
        .map(|e| {
            (e["name"].as_str().unwrap_or(""), e["ts"].as_u64().unwrap_or(0), e["dur"].as_u64().unwrap_or(0))
        })
        .collect();
    assert_eq!(slices, [("loading", 0, 3), ("ready", 3, 6), ("loading", 9, 1)]);
    assert_eq!(named(&trace, "died")[0]["ts"], 9);
}

#[test]
fn every_slice_has_a_duration_and_a_named_line_and_none_overlap() {
    let events: Vec<Event> = (0..20)
        .map(|n| step(n * 10, n * 10 + 7 + n % 4, n, &[(5, 1, 1, false), (6 + n as u32 % 3, 2, 64, true)]))
        .chain([Event::Lost { events: 3 }])
        .collect();
    let trace = trace(&events);
    let line = |e: &Value| (e["pid"].as_u64(), e["tid"].as_u64());
    let mut ends = BTreeMap::new();
    for slice in trace.iter().filter(|e| e["ph"] == "X") {
        let (from, dur) = (slice["ts"].as_u64().expect("a time"), slice["dur"].as_u64().expect("a duration"));
        assert!(trace.iter().any(|e| e["name"] == "thread_name" && line(e) == line(slice)), "{slice}");
        let end = ends.insert(line(slice), from + dur).unwrap_or(0);
        assert!(end <= from, "{slice} begins before {end}");
    }
    assert_eq!(named(&trace, "3 events were lost here").len(), 1);
}
