//! Plots of several runs of one load, as SVG: times to the first token and between tokens as cumulative shares, and
//! throughput over time.
//!
//! Policies differ in colour (Okabe and Ito's, which people who do not tell red from green tell apart), in the
//! pattern of their line, and in the mark on it, so that a print in black can be read too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::measure::Report;

const SIZE: (u32, u32) = (900, 560);
const FONT: (&str, u32) = ("sans-serif", 17);
const TITLE: (&str, u32) = ("sans-serif", 21);

/// Points of a curve of cumulative shares.
const SHARES: usize = 400;
/// Points of a curve over time.
const MOMENTS: usize = 60;
/// Marks on a curve.
const MARKS: usize = 8;

const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(0, 0, 0),
];

/// Lengths of dashes and gaps; none for a line without gaps.
const DASHES: [Option<(u32, u32)>; 5] = [None, Some((12, 5)), Some((3, 4)), Some((18, 9)), Some((7, 7))];

/// The least value on a logarithmic axis.
const LEAST: f64 = 1e-4;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Curve = (String, Vec<(f64, f64)>);

/// What stands on an axis, and whether it is logarithmic.
struct Axes<'a> {
    title: String,
    x: &'a str,
    y: &'a str,
    log: bool,
}

/// Writes the plots of runs of a load into a folder, and tells their paths.
///
/// # Errors
///
/// Those of the file system.
pub fn write(dir: &Path, load: &str, reports: &[Report]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let shares = |of: fn(&Report) -> &Histogram<u64>, unit: f64| {
        reports.iter().map(|r| (r.policy.clone(), cumulative(of(r), unit))).collect::<Vec<_>>()
    };
    let axes = |what: &str, x, y, log| Axes { title: format!("{what} ({load})"), x, y, log };
    let plots = [
        (
            "first-token.svg",
            axes("Time to first token", "time to first token, s (logarithmic)", "share of answers, %", true),
            shares(|r| &r.measure.all.first, 1e6),
        ),
        (
            "between-tokens.svg",
            axes("Time between tokens", "time between tokens, ms (logarithmic)", "share of tokens, %", true),
            shares(|r| &r.measure.all.between, 1e3),
        ),
        (
            "throughput.svg",
            axes("Throughput", "virtual time, s", "generated tokens/s", false),
            reports.iter().map(|r| (r.policy.clone(), over_time(&r.measure.tokens_by_second))).collect(),
        ),
    ];
    plots
        .into_iter()
        .map(|(name, axes, curves)| {
            let path = dir.join(name);
            let svg = draw(&axes, &curves)?;
            std::fs::write(&path, svg).with_context(|| format!("{} cannot be written", path.display()))?;
            Ok(path)
        })
        .collect()
}

/// Shares of values, in percent, up to each value.
fn cumulative(times: &Histogram<u64>, unit: f64) -> Vec<(f64, f64)> {
    if times.is_empty() {
        return vec![];
    }
    let share = |n: usize| n as f64 / SHARES as f64;
    (1..=SHARES).map(|n| (times.value_at_quantile(share(n)) as f64 / unit, 100.0 * share(n))).collect()
}

/// Means of equal stretches of time.
fn over_time(by_second: &[u32]) -> Vec<(f64, f64)> {
    let width = by_second.len().div_ceil(MOMENTS).max(1);
    let mean = |values: &[u32]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
    by_second.chunks(width).enumerate().map(|(n, values)| ((n * width) as f64, mean(values))).collect()
}

fn draw(axes: &Axes, curves: &[Curve]) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let drawn = area.fill(&WHITE).map_err(|e| e.to_string()).and_then(|()| chart(&area, axes, curves));
        drawn.map_err(|e| anyhow!("the plot `{}` cannot be drawn: {e}", axes.title))?;
    }
    Ok(svg)
}

/// Draws a chart. A logarithmic axis is drawn by logarithms, so that both kinds are one kind of chart.
fn chart(area: &Area, axes: &Axes, curves: &[Curve]) -> Result<(), String> {
    let scale = |x: f64| if axes.log { x.max(LEAST).log10() } else { x };
    let curves: Vec<Curve> = (curves.iter())
        .map(|(name, points)| (name.clone(), points.iter().map(|(x, y)| (scale(*x), *y)).collect()))
        .collect();
    let (across, up) = ranges(&curves);
    let mut chart = ChartBuilder::on(area)
        .caption(&axes.title, TITLE)
        .margin(16)
        .x_label_area_size(54)
        .y_label_area_size(70)
        .build_cartesian_2d(across, up)
        .map_err(|e| e.to_string())?;
    let label = |x: &f64| if axes.log { number(10f64.powf(*x)) } else { number(*x) };
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .x_label_formatter(&label)
        .y_label_formatter(&|y| number(*y))
        .light_line_style(WHITE)
        .label_style(FONT)
        .axis_desc_style(FONT)
        .draw()
        .map_err(|e| e.to_string())?;
    for (n, (name, points)) in curves.iter().enumerate() {
        curve(&mut chart, n, name, points)?;
    }
    let place = if axes.log { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight };
    chart
        .configure_series_labels()
        .position(place)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK)
        .legend_area_size(36)
        .label_font(FONT)
        .draw()
        .map_err(|e| e.to_string())?;
    area.present().map_err(|e| e.to_string())
}

/// What the axes must show.
fn ranges(curves: &[Curve]) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
    let points = || curves.iter().flat_map(|(_, points)| points);
    let (low, high) = points().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
    let top = points().map(|(_, y)| *y).fold(1.0, f64::max) * 1.03;
    if low < high { (low..high, 0.0..top) } else { (0.0..1.0, 0.0..top) }
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws the curve at place `n`, with marks on it and a line in the legend.
fn curve<'a, 'b: 'a>(
    chart: &mut Chart<'a, 'b>,
    n: usize,
    name: &str,
    points: &[(f64, f64)],
) -> Result<(), String> {
    let style = COLOURS[n % COLOURS.len()].stroke_width(2);
    let filled = COLOURS[n % COLOURS.len()].filled();
    let line = points.iter().copied();
    let drawn = match DASHES[n % DASHES.len()] {
        None => chart.draw_series(LineSeries::new(line, style)),
        Some((dash, gap)) => chart.draw_series(DashedLineSeries::new(line, dash, gap, style)),
    };
    drawn.map_err(|e| e.to_string())?.label(name).legend(move |at| {
        EmptyElement::at(at)
            + PathElement::new(vec![(0, 0), (26, 0)], style)
            + Polygon::new(mark(n, (13, 0)), filled)
    });
    let apart = (points.len() / MARKS).max(1);
    let marked = points.iter().skip(apart / 2 + n * apart / 8).step_by(apart);
    chart
        .draw_series(marked.map(|at| EmptyElement::at(*at) + Polygon::new(mark(n, (0, 0)), filled)))
        .map_err(|e| e.to_string())?;
    Ok(())
}

/// The corners of the mark of the curve at place `n`: a square, a triangle, a diamond, a bar, a triangle upside down.
fn mark(n: usize, (x, y): (i32, i32)) -> Vec<(i32, i32)> {
    let corners: &[(i32, i32)] = match n % 5 {
        0 => &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
        1 => &[(0, -6), (6, 5), (-6, 5)],
        2 => &[(0, -6), (6, 0), (0, 6), (-6, 0)],
        3 => &[(-2, -7), (2, -7), (2, 7), (-2, 7)],
        _ => &[(0, 6), (6, -5), (-6, -5)],
    };
    corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect()
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if v >= 10.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        v if v >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_of_shares_rises_to_all_and_is_drawn_with_names_and_units() {
        let mut times = Histogram::new(3).expect("three digits are possible");
        (1..=1000u64).for_each(|n| times.record(n * 1000).expect("it is in range"));
        let curve = cumulative(&times, 1e3);
        assert!(curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 < b.1));
        assert!((curve[SHARES - 1].1 - 100.0).abs() < 1e-9 && (curve[SHARES / 2 - 1].0 - 500.0).abs() < 2.0);
        let axes = Axes { title: "Title <1>".into(), x: "time, ms", y: "share, %", log: true };
        let svg =
            draw(&axes, &[("fair".into(), curve.clone()), ("fifo".into(), curve)]).expect("it is drawn");
        for part in ["Title &lt;1&gt;", "time, ms", "share, %", "fair", "fifo"] {
            assert!(svg.contains(part), "{part} is not in the plot");
        }
    }
}
