//! The loss curve, as SVG and as PNG.

use std::path::Path;

use plotters::backend::DrawingBackend;
use plotters::prelude::*;

use super::bitmap::Lettered;
use super::error::RunError;

const SIZE: (u32, u32) = (960, 540);

/// Points of a line in the plot; more are thinned out, each point becoming the mean of its neighbours.
const POINTS_MAX: usize = 1000;

/// Draws `curve.svg` and `curve.png` into the folder of a run.
///
/// # Errors
///
/// A file cannot be written.
pub fn draw(run: &Path, training: &[(u64, f64)], evaluations: &[(u64, f64)]) -> Result<(), RunError> {
    if training.is_empty() && evaluations.is_empty() {
        return Ok(());
    }
    let (svg, png) = (run.join("curve.svg"), run.join("curve.png"));
    let fail = |path: &Path, why: String| RunError::Curve { path: path.to_owned(), why };
    plot(SVGBackend::new(&svg, SIZE), training, evaluations).map_err(|why| fail(&svg, why))?;
    plot(Lettered::new(BitMapBackend::new(&png, SIZE)), training, evaluations).map_err(|why| fail(&png, why))
}

fn plot<B: DrawingBackend>(
    backend: B,
    training: &[(u64, f64)],
    evaluations: &[(u64, f64)],
) -> Result<(), String> {
    let area = backend.into_drawing_area();
    let all = || training.iter().chain(evaluations).filter(|(_, loss)| loss.is_finite());
    let last = all().map(|(step, _)| *step).max().unwrap_or(1).max(1) as f64;
    let low = all().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min);
    let high = all().map(|(_, loss)| *loss).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if low < high { (low, high) } else { (low - 0.5, low + 0.5) };
    let margin = 0.05 * (high - low);
    let drawn = (|| {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..last, low - margin..high + margin)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(BLACK.mix(0.1))
            .x_desc("step")
            .y_desc("loss")
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|loss| format!("{loss:.2}"))
            .draw()?;
        for (points, colour, name) in [
            (training, RGBColor(70, 130, 200), "training"),
            (evaluations, RGBColor(200, 70, 40), "validation"),
        ] {
            let line = LineSeries::new(thinned(points), colour.stroke_width(2));
            chart
                .draw_series(line)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.2)).draw()?;
        area.present()
    })();
    drawn.map_err(|error: DrawingAreaErrorKind<B::ErrorType>| error.to_string())
}

fn thinned(points: &[(u64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(POINTS_MAX).max(1);
    let mean = |part: &[(u64, f64)]| {
        let count = part.len() as f64;
        let sum = part.iter().fold((0.0, 0.0), |sum, (step, loss)| (sum.0 + *step as f64, sum.1 + loss));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(size).map(mean).filter(|(_, loss)| loss.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_pictures_are_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let training: Vec<(u64, f64)> = (0..5000).map(|step| (step, 4.0 - step as f64 / 2000.0)).collect();
        draw(folder.path(), &training, &[(1000, 3.6), (5000, 1.6)]).unwrap();
        let svg = std::fs::read_to_string(folder.path().join("curve.svg")).unwrap();
        assert!(svg.contains("training") && svg.contains("validation") && svg.len() < 100_000);
        let png = std::fs::read(folder.path().join("curve.png")).unwrap();
        assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
        assert!(png.len() > 4000, "there are lines and letters in {} bytes", png.len());
    }

    #[test]
    fn losses_that_are_no_numbers_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        draw(folder.path(), &[(1, 2.0), (2, f64::NAN), (3, f64::INFINITY)], &[]).unwrap();
        assert!(!std::fs::read_to_string(folder.path().join("curve.svg")).unwrap().contains("NaN"));
    }
}
