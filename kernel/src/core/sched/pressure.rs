//! Pressure: the share of time in which work waited, as PSI has it for Linux.
//!
//! For memory and for steps, *some* is the share of time in which at least one generation waited, and *full* that in
//! which all did. Averages over 10, 60 and 300 seconds decay every [`PERIOD_US`] in fixed point, from the times of
//! events alone.

use super::super::event::Now;

/// How often averages are brought up to date, in microseconds.
const PERIOD_US: u64 = 2_000_000;

/// One, in fixed point.
const ONE: u64 = 1 << 11;

/// What is left of an average after a period: e^(−2/10), e^(−2/60), e^(−2/300), in 2,048ths.
const KEPT: [u64; 3] = [1677, 1981, 2034];

/// How the generations of a group are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Tasks {
    /// In line for memory.
    pub waiting: u32,
    /// In memory.
    pub running: u32,
    /// Rows of the step that runs. A generation that has ended since is among them and not in memory any more.
    pub in_step: u32,
}

/// One figure: time in a state, and its averages.
#[derive(Clone, Copy, Debug, Default)]
struct Gauge {
    on: bool,
    /// Of the period that runs, in microseconds.
    on_us: u64,
    /// In 2,048ths of a percent.
    averages: [u64; 3],
}

/// The figures of a group.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Pressure {
    tasks: Tasks,
    at: Now,
    /// Memory some and full, steps some and full.
    gauges: [Gauge; 4],
}

/// Averages over 10, 60 and 300 seconds, in hundredths of a percent.
pub(in crate::core) type Averages = [u32; 3];

impl Pressure {
    /// How things are now.
    pub(in crate::core) fn tasks(&self) -> Tasks {
        self.tasks
    }

    /// Takes in that things are another way from now on.
    pub(in crate::core) fn change(&mut self, now: Now, tasks: Tasks) {
        self.advance(now);
        self.tasks = tasks;
        let Tasks { waiting, running, in_step } = tasks;
        let on = [
            waiting > 0,
            waiting > 0 && running == 0,
            running > in_step,
            running > 0 && waiting == 0 && in_step == 0,
        ];
        self.gauges.iter_mut().zip(on).for_each(|(gauge, on)| gauge.on = on);
    }

    /// The averages now: memory some and full, steps some and full.
    pub(in crate::core) fn averages(&self, now: Now) -> [Averages; 4] {
        let mut then = self.clone();
        then.advance(now);
        then.gauges.map(|gauge| gauge.averages.map(|average| (average * 100 / ONE) as u32))
    }

    /// Lets the time until now pass with things as they are.
    fn advance(&mut self, now: Now) {
        let (from, to) = (self.at.0, now.0.max(self.at.0));
        self.at = Now(to);
        let periods = to / PERIOD_US - from / PERIOD_US;
        for gauge in &mut self.gauges {
            if periods == 0 {
                gauge.on_us += if gauge.on { to - from } else { 0 };
                continue;
            }
            let rest = if gauge.on { PERIOD_US - from % PERIOD_US } else { 0 };
            gauge.period((gauge.on_us + rest).min(PERIOD_US), 1);
            gauge.period(if gauge.on { PERIOD_US } else { 0 }, periods - 1);
            gauge.on_us = if gauge.on { to % PERIOD_US } else { 0 };
        }
    }
}

impl Gauge {
    /// Takes in so many periods of which each was spent so long in the state. Rounds towards what these were: to the
    /// nearest, an average would come to rest before it is there.
    fn period(&mut self, on_us: u64, periods: u64) {
        let percent = on_us * 100 * ONE / PERIOD_US;
        for (average, kept) in self.averages.iter_mut().zip(KEPT) {
            let kept = power(kept, periods);
            let rounding = if percent >= *average { ONE - 1 } else { 0 };
            *average = (*average * kept + percent * (ONE - kept) + rounding) / ONE;
        }
    }
}

/// A fixed-point number of at most one, multiplied with itself.
fn power(mut base: u64, mut exponent: u64) -> u64 {
    let mut result = ONE;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = (result * base + ONE / 2) / ONE;
        }
        base = (base * base + ONE / 2) / ONE;
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn waiting(waiting: u32, running: u32) -> Tasks {
        Tasks { waiting, running, in_step: running }
    }

    #[test]
    fn pressure_rises_with_waiting_and_falls_without() {
        let mut pressure = Pressure::default();
        pressure.change(Now(0), waiting(1, 1));
        let [some, full, ..] = pressure.averages(Now(10 * SECOND));
        assert!((6200..6500).contains(&some[0]), "1 − 1/e of 100 %: {some:?}");
        assert!(some[1] < some[0] && some[2] < some[1], "{some:?}");
        assert_eq!(full, [0; 3], "somebody ran");
        pressure.change(Now(300 * SECOND), waiting(0, 1));
        let [some, ..] = pressure.averages(Now(300 * SECOND));
        assert!(some[0] > 9900 && some[2] > 6000, "{some:?}");
        let [some, ..] = pressure.averages(Now(400 * SECOND));
        assert!(some[0] < 10 && some[2] > 4000, "{some:?}");
    }

    #[test]
    fn half_the_time_is_half_the_pressure() {
        let mut pressure = Pressure::default();
        for n in 0..2000 {
            pressure.change(Now(n * SECOND / 2), waiting(u32::from(n % 2 == 0), 0));
        }
        let [some, full, steps, _] = pressure.averages(Now(1000 * SECOND));
        assert!(some.iter().all(|a| (4800..5200).contains(a)), "{some:?}");
        assert_eq!(some, full, "nobody else was there");
        assert_eq!(steps, [0; 3]);
    }

    #[test]
    fn pressure_that_lasts_or_is_over_for_long_is_all_or_nothing_however_often_it_is_looked_at() {
        let mut pressure = Pressure::default();
        for (from, tasks, expected) in [(0, waiting(1, 0), [10_000; 3]), (6000, waiting(0, 1), [0; 3])] {
            for n in 0..3000 {
                pressure.change(Now((from + 2 * n) * SECOND), tasks);
            }
            let [some, full, ..] = pressure.averages(Now((from + 6000) * SECOND));
            assert_eq!([some, full], [expected; 2]);
        }
    }

    #[test]
    fn averages_do_not_depend_on_how_often_they_are_read() {
        let (mut often, mut once) = (Pressure::default(), Pressure::default());
        for pressure in [&mut often, &mut once] {
            pressure.change(Now(0), waiting(1, 0));
        }
        for n in 1..500 {
            often.change(Now(n * 77_777), waiting(1, 0));
        }
        let (a, b) = (often.averages(Now(40 * SECOND)), once.averages(Now(40 * SECOND)));
        for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
            assert!(a.abs_diff(*b) < 60, "{a} and {b} hundredths of a percent");
        }
    }
}
