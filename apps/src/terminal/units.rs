//! Numbers for people: bytes, counts and durations in three significant digits.

use std::time::Duration;

/// Bytes in binary units: `512 B`, `1.50 KiB`, `2.31 GiB`.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

/// A count in thousands: `950`, `2.10M`, `7.62B`.
pub fn count(count: u64) -> String {
    scaled(count as f64, 1000.0, &["", "K", "M", "B", "T"])
}

/// A duration as `ps` shows it: `83 ms`, `4.20 s`, `3:07`, `2:03:07`, `5d 02:03`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60 % 60, seconds / 3600 % 24, seconds / 86_400);
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{} s", digits(duration.as_secs_f64())),
        60..3600 => format!("{minutes}:{:02}", seconds % 60),
        3600..86_400 => format!("{hours}:{minutes:02}:{:02}", seconds % 60),
        _ => format!("{days}d {hours:02}:{minutes:02}"),
    }
}

fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // What would be shown as a full 1000 of one unit is shown in the next.
    while value >= base.min(999.5) && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    if unit == 0 { format!("{value}{}", units[0]) } else { format!("{}{}", digits(value), units[unit]) }
}

/// Three significant digits.
fn digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown: Vec<String> = [0, 512, 1536, 1_048_576, 2_480_000_000].map(bytes).into();
        assert_eq!(shown, ["0 B", "512 B", "1.50 KiB", "1.00 MiB", "2.31 GiB"]);
        let shown: Vec<String> = [950, 999, 1000, 2_100_000, 7_620_000_000].map(count).into();
        assert_eq!(shown, ["950", "999", "1.00K", "2.10M", "7.62B"]);
    }

    #[test]
    fn durations_grow_by_unit() {
        let shown: Vec<String> = [83, 4_200, 59_000, 187_000, 7_387_000, 439_380_000]
            .map(|ms| duration(Duration::from_millis(ms)))
            .into();
        assert_eq!(shown, ["83 ms", "4.20 s", "59.0 s", "3:07", "2:03:07", "5d 02:03"]);
    }
}
