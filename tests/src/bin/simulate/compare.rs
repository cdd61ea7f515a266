//! `simulate compare`: policies on one load.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use apps::timeline::Timeline;
use clap::ValueEnum;
use harness::sim::calibration::Device;
use harness::sim::fault::FaultRates;
use harness::sim::load::{Load, azure, mooncake, synthetic};
use harness::sim::measure::{Report, table};
use harness::sim::probe::{Probe, quantile_us};
use harness::sim::run::{Setting, run as run_load};
use harness::sim::{plot, policy};

/// Compares scheduling policies on one load
///
/// Real loads are traces of services: the Azure trace of 2023 (conversations, code) and Mooncake's conversations. They
/// are looked for in the folder `data/serving` of LLMASOS_SHARED, or of `shared` beside the project; without them a
/// synthetic load runs.
///
/// The simulated device costs what a model of 0.5 billion weights in Q8_0 was measured to cost on two cores, divided
/// by --speed. A trace of a large service needs a fast one.
#[derive(clap::Args)]
pub struct Args {
    /// What clients ask for [default: azure-conv, or mixed where there are no traces]
    #[arg(long, short)]
    load: Option<Kind>,
    /// The folder of the traces
    #[arg(long, value_name = "DIR")]
    traces: Option<PathBuf>,
    /// How many requests or tasks of it
    #[arg(long, short = 'n', default_value_t = 600, value_name = "N")]
    requests: usize,
    /// How many clients they come from
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    clients: u32,
    /// How many times further apart than in the trace they come
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = positive)]
    stretch: f64,
    /// The policies, each in a run of its own [default: all]
    #[arg(long, short, value_delimiter = ',', value_name = "NAME")]
    policy: Vec<String>,
    /// How many times faster than the measured machine each device is
    #[arg(long, default_value_t = 32.0, value_name = "FACTOR", value_parser = positive)]
    speed: f64,
    /// Tokens of each device's KV pool
    #[arg(long, default_value_t = 32_768, value_name = "TOKENS")]
    pool: u32,
    /// Tokens of the largest context; requests that need more are left out
    #[arg(long, default_value_t = 8192, value_name = "TOKENS")]
    context: u32,
    /// Models, each on a device of its own; clients use them in turns
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    models: u32,
    /// The seed of everything that chance decides
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Probability that a worker dies in a step
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    deaths: f64,
    /// Probability that a client stops reading for some seconds when it asks for something
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    slow_readers: f64,
    /// Probability that a client goes away when it has asked for something, and comes back as another process
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    disconnects: f64,
    /// A folder for the table (report.md) and plots (SVG)
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A file for the timeline of a run under one policy, to open in Perfetto; about 1 MB for 100 requests
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
}

/// All loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    AzureConv,
    AzureCode,
    Mooncake,
    Synthetic(synthetic::Kind),
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        use synthetic::Kind as S;
        const ALL: &[Kind] = &[
            Kind::AzureConv,
            Kind::AzureCode,
            Kind::Mooncake,
            Kind::Synthetic(S::Poisson),
            Kind::Synthetic(S::Bursts),
            Kind::Synthetic(S::Agents),
            Kind::Synthetic(S::Batch),
            Kind::Synthetic(S::Long),
            Kind::Synthetic(S::Greedy),
            Kind::Synthetic(S::Mixed),
        ];
        ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let value =
            |name: &'static str, help: &'static str| Some(clap::builder::PossibleValue::new(name).help(help));
        match self {
            Kind::AzureConv => value("azure-conv", "The Azure trace of conversations"),
            Kind::AzureCode => value("azure-code", "The Azure trace of code completion"),
            Kind::Mooncake => value("mooncake", "Mooncake's conversations, whose prompts begin alike"),
            Kind::Synthetic(kind) => kind.to_possible_value(),
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err("it must be above 0".into()) }
}

/// Runs the load under each policy and shows what came of it.
pub fn run(args: &Args) -> Result<()> {
    let policies = policies(args)?;
    let load = load(args)?.stretched(args.stretch).within(args.context);
    if load.tasks.is_empty() {
        bail!("nothing of the load fits contexts of {} tokens; raise --context", args.context);
    }
    let mut reports = Vec::new();
    for policy in &policies {
        eprintln!("simulate: {} under {policy}", load.name);
        let (report, probe) = one(args, &load, policy)?;
        say_more(&report, &probe);
        reports.push(report);
    }
    let heading = heading(args, &load);
    println!("{heading}\n\n{}", table(&reports));
    if let Some(dir) = &args.out {
        for path in plot::write(dir, &load.name, &reports)? {
            eprintln!("simulate: wrote {}", path.display());
        }
        let path = dir.join("report.md");
        fs::write(&path, format!("{heading}\n\n{}", table(&reports)))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn policies(args: &Args) -> Result<Vec<String>> {
    let named = args.policy.clone();
    let policies = if named.is_empty() { policy::names().map(str::to_owned).collect() } else { named };
    for name in &policies {
        policy::config(name)?;
    }
    if args.timeline.is_some() && policies.len() > 1 {
        bail!("a timeline is of one run; choose its policy with --policy");
    }
    Ok(policies)
}

fn load(args: &Args) -> Result<Load> {
    let (count, clients, seed) = (args.requests, args.clients as usize, args.seed);
    let shared = || harness::shared_data_folder().map(|data| data.join("serving"));
    let traces = args.traces.clone().or_else(shared).unwrap_or_default();
    let kind = args.load.unwrap_or_else(|| {
        if traces.is_dir() {
            return Kind::AzureConv;
        }
        eprintln!("simulate: there are no traces in {}, so the load is synthetic: mixed", traces.display());
        Kind::Synthetic(synthetic::Kind::Mixed)
    });
    let trace = |name: &str| {
        if !traces.is_dir() {
            bail!("there are no traces in {}; name their folder with --traces", traces.display());
        }
        Ok(traces.join(name))
    };
    match kind {
        Kind::AzureConv => azure::read(&trace("AzureLLMInferenceTrace_conv.csv")?, count, clients, seed),
        Kind::AzureCode => azure::read(&trace("AzureLLMInferenceTrace_code.csv")?, count, clients, seed),
        Kind::Mooncake => mooncake::read(&trace("mooncake_conversation_trace.jsonl")?, count, clients, seed),
        Kind::Synthetic(kind) => {
            let pace = args.speed * f64::from(args.models);
            Ok(synthetic::make(kind, count, clients, pace, seed))
        }
    }
}

fn one(args: &Args, load: &Load, policy: &str) -> Result<(Report, Probe)> {
    let setting = Setting {
        policy: policy.into(),
        device: Device {
            speed: args.speed,
            pool_tokens: args.pool,
            context_tokens: args.context,
            ..Device::default()
        },
        models: args.models as usize,
        faults: FaultRates {
            death: args.deaths,
            slow_reader: args.slow_readers,
            disconnect: args.disconnects,
        },
        seed: args.seed,
    };
    let Some(path) = &args.timeline else { return run_load::<Vec<u8>>(load, &setting, None) };
    let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
    let mut timeline = Timeline::new(BufWriter::new(file))?;
    let outcome = run_load(load, &setting, Some(&mut timeline))?;
    let (_, entries) = timeline.finish()?;
    eprintln!("simulate: wrote {} with {entries} entries", path.display());
    Ok(outcome)
}

/// What is not the same from machine to machine, or seldom of interest.
fn say_more(report: &Report, probe: &Probe) {
    eprintln!(
        "simulate: {:.0} s of virtual time, {} steps; the core took {:.2} s: {:.1} µs a step at the median, {:.1} at p99",
        report.measure.seconds(),
        report.stats.steps,
        probe.total_ns as f64 / 1e9,
        quantile_us(&probe.steps, 0.5),
        quantile_us(&probe.steps, 0.99),
    );
    if report.deaths + report.abandoned + report.refused > 0 || !report.failed.is_empty() {
        eprintln!(
            "simulate: {} workers died, {} answers were abandoned by their clients, {} calls were made again; failed: {:?}",
            report.deaths, report.abandoned, report.refused, report.failed,
        );
    }
}

fn heading(args: &Args, load: &Load) -> String {
    let left_out = match load.left_out {
        0 => String::new(),
        n => format!("; {n} left out that no context can hold"),
    };
    format!(
        "{} from {} clients on {} device(s) {} times as fast as two cores, with a pool of {} tokens each; seed {}{left_out}",
        load.name,
        load.clients.len(),
        args.models,
        args.speed,
        args.pool,
        args.seed,
    )
}
