//! Limits on tokens a second, as token buckets: what a process or a group has not used of its rate is kept, up to one
//! second's worth, and who has used it up has no rows until there is a token again. Its contexts stay in memory.

use super::super::event::Now;

/// A token in parts: rates are whole tokens a second and time is in microseconds.
const TOKEN: i128 = 1_000_000;

/// How much may be generated now.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct Bucket {
    /// Tokens a second.
    rate: u64,
    /// In millionths of a token; below 0 after a step that gave more tokens than there were.
    level: i128,
    at: Now,
}

impl Bucket {
    /// A full bucket: one second's worth.
    pub(in crate::core) fn new(rate: u64, now: Now) -> Self {
        Bucket { rate, level: i128::from(rate) * TOKEN, at: now }
    }

    /// That of a rate which takes the place of another one: what was used of that is not given back.
    pub(in crate::core) fn in_place_of(before: Option<Bucket>, rate: u64, now: Now) -> Self {
        let full = Bucket::new(rate, now);
        let left = before.map_or(full.level, |mut before| {
            before.fill(now);
            before.level
        });
        Bucket { level: left.min(full.level), ..full }
    }

    /// Takes what was generated.
    pub(in crate::core) fn take(&mut self, now: Now, tokens: u64) {
        self.fill(now);
        self.level -= i128::from(tokens) * TOKEN;
    }

    fn fill(&mut self, now: Now) {
        let us = i128::from(now.0.saturating_sub(self.at.0));
        let most = i128::from(self.rate) * TOKEN;
        self.level = (self.level + us * i128::from(self.rate)).min(most);
        self.at = now.max(self.at);
    }

    /// Whole tokens that there are now.
    pub(in crate::core) fn tokens(mut self, now: Now) -> u64 {
        self.fill(now);
        u64::try_from(self.level.div_euclid(TOKEN)).unwrap_or(0)
    }

    /// When there is a whole token again; nothing if there is one now.
    pub(in crate::core) fn empty_until(&self, now: Now) -> Option<Now> {
        let mut then = *self;
        then.fill(now);
        let lacks = TOKEN - then.level;
        let us = lacks.div_euclid(i128::from(self.rate.max(1)));
        let more = i128::from(lacks.rem_euclid(i128::from(self.rate.max(1))) > 0);
        (lacks > 0).then(|| Now(now.0.saturating_add(u64::try_from(us + more).unwrap_or(u64::MAX))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_gives_a_second_at_once_and_then_its_rate() {
        let mut bucket = Bucket::new(10, Now(0));
        bucket.take(Now(0), 9);
        assert_eq!(bucket.empty_until(Now(0)), None, "one is left of the burst");
        bucket.take(Now(0), 1);
        assert_eq!(bucket.empty_until(Now(0)), Some(Now(100_000)));
        assert_eq!(bucket.empty_until(Now(99_999)), Some(Now(100_000)));
        assert_eq!(bucket.empty_until(Now(100_000)), None);
        bucket.take(Now(100_000), 5);
        assert_eq!(bucket.empty_until(Now(100_000)), Some(Now(600_000)), "what was too much is made up for");
        assert_eq!(
            Bucket::new(1, Now(0)).empty_until(Now(u64::MAX)),
            None,
            "and no more than a second is kept"
        );
    }
}
