//! A line through measured points that one wild point does not move far.
//!
//! Floating point adds, multiplies and divides the same everywhere, so the plans that follow are the same as well.

/// How much of what was measured before still counts after a further measurement.
const MEMORY: f64 = 15.0 / 16.0;

/// Measurements at places nearer to each other than so many tokens say little about a slope.
const SPREAD_TELLING: f64 = 64.0;

/// Measurements after which it is known what is usual, so that a wild one can be told.
const POINTS_TELLING: u32 = 4;

/// So many times what is expected is wild, and counts as so much: a machine that does something else for a moment takes
/// several times as long for one step. ...
const WILD: f64 = 1.3;

/// ... But when so many in a row are wild, the cost has changed.
const WILD_IN_A_ROW_MAX: u32 = 2;

/// What takes less than one so many times as long as expected was thought dear by mistake, and counts so many times.
const DEAR: f64 = 2.0;
const DEAR_TIMES: u32 = 4;

/// On which side a mistake does less harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lean {
    /// More of the measurements are below the line.
    High,
    /// More of them are above it.
    Low,
}

/// How much more measurements count that are on the side that the line leans to.
const LEAN_WEIGHT: f64 = 3.0;

/// The line, and what it is fitted to, of which later points count more.
#[derive(Clone, Debug, Default)]
pub(super) struct Fit {
    /// Sums over the points of their weight, and of what the name says, by weight.
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    points: u32,
    wild_in_a_row: u32,
    /// What comes of these.
    line: Option<Line>,
}

/// A fitted line: its height at 0 and its slope, neither of which is negative, and what was measured on average.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub base: f64,
    pub slope: f64,
    mean: f64,
}

impl Fit {
    /// Takes in a point, as often as `times` says, or once if it is wild.
    pub(super) fn learn(&mut self, lean: Lean, times: u32, weight: f64, x: f64, y: f64) {
        let (tamed, lean, dear) = match self.at(x) {
            Some(expected) => (self.tamed(y, expected), leaning(lean, y > expected), y * DEAR < expected),
            None => (y, 1.0, false),
        };
        let times = if tamed < y {
            1
        } else if dear {
            times.max(DEAR_TIMES)
        } else {
            times
        };
        let y = tamed;
        for _ in 0..times {
            self.add(weight * lean, x, y);
        }
        self.points = self.points.saturating_add(1);
        self.line = Some(self.fit());
    }

    /// What a measurement counts as where so much is expected.
    fn tamed(&mut self, y: f64, expected: f64) -> f64 {
        if self.points < POINTS_TELLING || y <= expected * WILD {
            self.wild_in_a_row = 0;
            return y;
        }
        self.wild_in_a_row += 1;
        if self.wild_in_a_row > WILD_IN_A_ROW_MAX { y } else { expected * WILD }
    }

    fn add(&mut self, weight: f64, x: f64, y: f64) {
        let add = |sum: &mut f64, value: f64| *sum = *sum * MEMORY + weight * value;
        add(&mut self.n, 1.0);
        add(&mut self.x, x);
        add(&mut self.y, y);
        add(&mut self.xx, x * x);
        add(&mut self.xy, x * y);
    }

    /// The line, once something was measured.
    pub(super) fn line(&self) -> Option<Line> {
        self.line
    }

    /// What was measured on average.
    pub(super) fn mean(&self) -> Option<f64> {
        self.line.map(|line| line.mean)
    }

    fn fit(&self) -> Line {
        let (mean, place) = (self.y / self.n, self.x / self.n);
        let spread = (self.xx / self.n - place * place).max(0.0);
        let damped = spread + SPREAD_TELLING * SPREAD_TELLING;
        let slope = ((self.xy / self.n - place * mean) / damped).max(0.0);
        let base = mean - slope * place;
        if base < 0.0 { Line { base: 0.0, slope: mean / place, mean } } else { Line { base, slope, mean } }
    }

    /// The height of the line at a place. Far from all that was measured it is not trusted further than fourfold.
    pub(super) fn at(&self, x: f64) -> Option<f64> {
        let Line { base, slope, mean } = self.line?;
        Some((base + slope * x).clamp(mean / 4.0, mean * 4.0))
    }
}

fn leaning(lean: Lean, above: bool) -> f64 {
    if above == (lean == Lean::High) { LEAN_WEIGHT } else { 1.0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fit(lean: Lean, points: &[f64]) -> Fit {
        let mut fit = Fit::default();
        points.iter().for_each(|y| fit.learn(lean, 1, 1.0, 0.0, *y));
        fit
    }

    #[test]
    fn one_wild_point_moves_the_line_little_and_three_in_a_row_move_it() {
        let mut line = fit(Lean::Low, &[100.0; 20]);
        line.learn(Lean::Low, 4, 1.0, 0.0, 500.0);
        assert!(line.mean().unwrap() < 115.0, "{:?}", line.mean());
        for _ in 0..32 {
            line.learn(Lean::Low, 1, 1.0, 0.0, 150.0);
        }
        assert!(line.mean().unwrap() > 135.0, "{:?}", line.mean());
    }

    #[test]
    fn line_leans_to_the_side_where_a_mistake_does_less_harm() {
        let noise: Vec<f64> = (0..200).map(|n| 100.0 + f64::from(n * 37 % 21) - 10.0).collect();
        let (high, low) = (fit(Lean::High, &noise).mean().unwrap(), fit(Lean::Low, &noise).mean().unwrap());
        assert!((101.0..106.0).contains(&high) && (94.0..99.0).contains(&low), "{high} {low}");
    }
}
