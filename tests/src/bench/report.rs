//! The table that the bench prints.

/// One line of the table.
pub struct Line {
    /// What was measured.
    pub what: String,
    /// Ours, one value a run.
    pub ours: Vec<f64>,
    /// The peer's, one value a run; empty where there is no peer.
    pub peer: Vec<f64>,
    /// The unit of both.
    pub unit: &'static str,
    /// What it must reach, in words.
    pub target: &'static str,
}

/// The middle value; the mean of the two middle ones where there is an even number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The value that this fraction of the values does not exceed, by the nearest rank.
pub fn quantile(values: &[f64], fraction: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (fraction * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// Prints the table as Markdown: medians, and the median of the ratios of runs that stood side by side.
pub fn print(lines: &[Line]) {
    println!("| measured | llmasos | llama.cpp | ratio | target | runs |");
    println!("| --- | ---: | ---: | ---: | --- | ---: |");
    for line in lines {
        let ratios: Vec<f64> = line.ours.iter().zip(&line.peer).map(|(ours, peer)| ours / peer).collect();
        let peer = if line.peer.is_empty() { "–".into() } else { number(median(&line.peer)) };
        let ratio = if ratios.is_empty() { "–".into() } else { format!("{:.3}", median(&ratios)) };
        let ours = number(median(&line.ours));
        let (what, unit, target, runs) = (&line.what, line.unit, line.target, line.ours.len());
        println!("| {what}, {unit} | {ours} | {peer} | {ratio} | {target} | {runs} |");
    }
}

/// A number with as many digits as say something.
pub fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
