//! Counters and levels in Prometheus' text format, version 0.0.4, which Prometheus and the textfile collector of its
//! node_exporter read.
//!
//! Names follow its conventions: a common prefix, base units, `_total` for what only grows. What is of one model has
//! the prefix `llmasos_model` and its name as a label; sums over models are those of now and leave out what has been
//! unmounted, so what is of the system stands by itself.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use syscalls::reply::{ModelInfo, ModelState, ProcessInfo, ProcessState, Stats};

use crate::shell::builtin::arguments::name_of;

/// What is told together.
pub struct Levels {
    pub stats: Stats,
    pub processes: Vec<ProcessInfo>,
    pub models: Vec<(ModelInfo, Stats)>,
}

enum Kind {
    /// Only grows, until the daemon is started again.
    Counter,
    Gauge,
}

/// A metric: its name without prefix, what it is, a sentence for people, and where it comes from.
struct Metric(&'static str, Kind, &'static str, fn(&Stats) -> f64);

/// Of the system alone.
const SYSTEM: [Metric; 4] = [
    Metric("uptime_seconds", Kind::Gauge, "Since the daemon's start.", |s| s.uptime_ms as f64 / 1e3),
    Metric("contexts", Kind::Gauge, "Contexts that are open.", |s| s.contexts as f64),
    Metric("processes_all", Kind::Gauge, "Processes in any state, zombies included.", |s| s.processes as f64),
    Metric("calls_total", Kind::Counter, "Calls of programs.", |s| s.calls as f64),
];

/// Of the system, and of each model.
const ANY: [Metric; 19] = [
    Metric("steps_total", Kind::Counter, "Forward passes.", |s| s.steps as f64),
    Metric("step_seconds_total", Kind::Counter, "Time in forward passes.", |s| s.step_us as f64 / 1e6),
    Metric("steps_withdrawn_total", Kind::Counter, "Passes broken off for somebody in a hurry.", |s| {
        s.steps_withdrawn as f64
    }),
    Metric("prompt_tokens_evaluated_total", Kind::Counter, "Prompt tokens that were computed.", |s| {
        s.prompt_tokens_evaluated as f64
    }),
    Metric("prompt_tokens_shared_total", Kind::Counter, "Prompt tokens that were there already.", |s| {
        s.prompt_tokens_shared as f64
    }),
    Metric("tokens_generated_total", Kind::Counter, "Tokens that came out.", |s| s.tokens_generated as f64),
    Metric("tokens_recomputed_total", Kind::Counter, "Tokens computed again after their pages went.", |s| {
        s.tokens_recomputed as f64
    }),
    Metric("tokens_drafted_total", Kind::Counter, "Tokens guessed and checked.", |s| s.tokens_drafted as f64),
    Metric("tokens_accepted_total", Kind::Counter, "Guesses that were right.", |s| s.tokens_accepted as f64),
    Metric("swap_out_bytes_total", Kind::Counter, "Bytes of pages paged out.", |s| s.swap_out_bytes as f64),
    Metric("swap_in_bytes_total", Kind::Counter, "Bytes of pages paged in.", |s| s.swap_in_bytes as f64),
    Metric("refaults_total", Kind::Counter, "Pages taken from a context and brought back.", |s| {
        s.refaults as f64
    }),
    Metric("pages_corrupted_total", Kind::Counter, "Saved pages that could not be loaded.", |s| {
        s.pages_corrupted as f64
    }),
    Metric("worker_restarts_total", Kind::Counter, "Workers that were started again.", |s| {
        s.worker_restarts as f64
    }),
    Metric("frames", Kind::Gauge, "Frames of KV pools, of 64 tokens each.", |s| s.frames_total as f64),
    Metric("frames_free", Kind::Gauge, "Frames that no page occupies.", |s| s.frames_free as f64),
    Metric(
        "frames_cached",
        Kind::Gauge,
        "Frames kept of closed contexts, free for whoever needs them.",
        |s| s.frames_cached as f64,
    ),
    Metric("pages_host", Kind::Gauge, "Pages in the swap area in main memory.", |s| s.pages_host as f64),
    Metric("pages_disk", Kind::Gauge, "Pages in swap files on disk.", |s| s.pages_disk as f64),
];

const PROCESS_STATES: [ProcessState; 8] = [
    ProcessState::New,
    ProcessState::Idle,
    ProcessState::Ready,
    ProcessState::Running,
    ProcessState::Blocked,
    ProcessState::Stopped,
    ProcessState::Zombie,
    ProcessState::Dead,
];

const MODEL_STATES: [ModelState; 5] = [
    ModelState::Loading,
    ModelState::Ready,
    ModelState::Restarting,
    ModelState::Offline,
    ModelState::Unloaded,
];

/// The text.
pub fn text(levels: &Levels) -> String {
    let mut page = Page::default();
    for metric in SYSTEM.iter().chain(&ANY) {
        page.begin("llmasos", metric);
        page.sample(&[], (metric.3)(&levels.stats));
    }
    let mut states: BTreeMap<String, u64> = PROCESS_STATES.map(|state| (name_of(state), 0)).into();
    levels.processes.iter().for_each(|p| *states.entry(name_of(p.state)).or_default() += 1);
    page.head("llmasos_processes", &Kind::Gauge, "Processes by what they are doing.");
    states.iter().for_each(|(state, count)| page.sample(&[("state", state)], count));
    for metric in &ANY {
        page.begin("llmasos_model", metric);
        levels.models.iter().for_each(|(m, stats)| page.sample(&[("model", &m.name)], (metric.3)(stats)));
    }
    page.head("llmasos_model_state", &Kind::Gauge, "1 for the state that a model is in.");
    for (model, _) in &levels.models {
        for state in MODEL_STATES {
            let is = u8::from(model.state == state);
            page.sample(&[("model", &model.name), ("state", &name_of(state))], is);
        }
    }
    page.head("llmasos_model_memory_bytes", &Kind::Gauge, "What a model takes of a device.");
    for (model, _) in &levels.models {
        for share in &model.memory {
            let bytes = share.weights_bytes + share.pool_bytes + share.compute_bytes;
            page.sample(&[("model", &model.name), ("device", &share.device)], bytes);
        }
    }
    page.text
}

/// The text as far as it is written, and the metric that is told of.
#[derive(Default)]
struct Page {
    text: String,
    name: String,
}

impl Page {
    fn begin(&mut self, prefix: &str, Metric(name, kind, help, _): &Metric) {
        self.head(&format!("{prefix}_{name}"), kind, help);
    }

    fn head(&mut self, name: &str, kind: &Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        name.clone_into(&mut self.name);
        self.add(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(l, v)| format!("{l}=\"{}\"", escaped(v))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let name = self.name.clone();
        self.add(format_args!("{name}{labels} {value}\n"));
    }

    fn add(&mut self, line: std::fmt::Arguments) {
        self.text.write_fmt(line).expect("a string takes everything");
    }
}

/// The value of a label, with what the format wants written otherwise.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelInfo {
        let fields = serde_json::json!({
            "name": name, "path": "/m", "state": "ready", "driver": "sim", "architecture": "sim", "description": "",
            "parameters": 0, "bytes": 0, "vocabulary": 0, "context_tokens": 0, "context_trained": 0, "embedding": 0,
            "generates": true, "embeds": false, "chat_template": false, "any_text": true, "frames_total": 0,
            "frames_free": 0, "attention": "auto", "device": "cpu", "worker_os_pid": 0, "threads": 1,
            "memory": [{"device": "cpu", "model": name, "weights_bytes": 1, "pool_bytes": 2, "compute_bytes": 4}],
        });
        serde_json::from_value(fields).expect("all fields that must be there")
    }

    fn page() -> String {
        let stats =
            Stats { uptime_ms: 1500, step_us: 250_000, tokens_generated: 1 << 40, ..Stats::default() };
        text(&Levels { stats, processes: vec![], models: vec![(model("a \"b\\"), stats)] })
    }

    #[test]
    fn samples_have_base_units_and_labels_that_can_be_read() {
        for line in [
            "llmasos_uptime_seconds 1.5",
            "llmasos_step_seconds_total 0.25",
            "llmasos_tokens_generated_total 1099511627776",
            "llmasos_processes{state=\"running\"} 0",
            "llmasos_model_tokens_generated_total{model=\"a \\\"b\\\\\"} 1099511627776",
            "llmasos_model_state{model=\"a \\\"b\\\\\",state=\"ready\"} 1",
            "llmasos_model_state{model=\"a \\\"b\\\\\",state=\"offline\"} 0",
            "llmasos_model_memory_bytes{model=\"a \\\"b\\\\\",device=\"cpu\"} 7",
        ] {
            assert!(page().lines().any(|l| l == line), "{line} is not in\n{}", page());
        }
    }

    #[test]
    fn every_sample_stands_under_its_own_help_and_type_which_come_once() {
        let (page, mut seen) = (page(), Vec::new());
        for line in page.lines() {
            match line.strip_prefix("# TYPE ").map(|rest| rest.split(' ').collect::<Vec<_>>()) {
                Some(words) => {
                    assert!(!seen.contains(&words[0]), "{line} twice");
                    assert_eq!(words[0].ends_with("_total"), words[1] == "counter", "{line}");
                    seen.push(words[0]);
                }
                None if line.starts_with("# HELP ") => {}
                None => assert_eq!(line.split(['{', ' ']).next(), seen.last().copied(), "{line}"),
            }
        }
    }

    /// What is counted anywhere must be told here, too: each field changes the text.
    #[test]
    fn every_counter_is_told() {
        let serde_json::Value::Object(fields) = serde_json::json!(Stats::default()) else {
            panic!("stats are an object")
        };
        let text_of = |stats| text(&Levels { stats, processes: vec![], models: vec![] });
        for field in fields.keys() {
            let mut changed = fields.clone();
            changed[field] = 1234.into();
            let stats = serde_json::from_value(changed.into()).expect("they are stats");
            assert_ne!(text_of(stats), text_of(Stats::default()), "{field} is not told");
        }
    }
}
