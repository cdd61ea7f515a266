//! How a connection behaves, by which it is read from next.
//!
//! | it | is | and waits |
//! |---|---|---|
//! | says one whole request at a time | brisk | not, where it has read the answers |
//! | says several at once, or what cannot be done, or begins a line and does not end it | not brisk | for a turn |
//! | says nonsense again, or a line in ever more small pieces | rude | for a turn, behind a pause |
//!
//! One request that makes sense mends it.

/// Lines of nonsense in a row that may be a mistake.
const NONSENSE_MAX: u32 = 1;

/// Small pieces in a row that a line may come in: its text, its end, and one more.
const PIECES_MAX: u32 = 3;

/// Bytes of a piece that is small. Larger ones are a long line that comes as fast as the socket takes it.
const SMALL_BYTES: usize = 512;

/// What a line turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A request.
    Request,
    /// A call that there is not, or with arguments that are wrong: it has an id, and its answer is read by somebody.
    Wrong,
    /// No request at all.
    Nonsense,
}

/// How a connection has behaved lately.
#[derive(Debug)]
pub struct Manners {
    /// Its last read gave one whole request and nothing else.
    brisk: bool,
    /// Lines of nonsense, and small pieces of lines, in a row.
    nonsense: u32,
    pieces: u32,
    /// Lines of the read that is looked at, and whether all of them were requests.
    lines: u32,
    sound: bool,
}

impl Manners {
    /// Of a connection that has said nothing yet.
    pub fn unknown() -> Manners {
        Manners { brisk: true, nonsense: 0, pieces: 0, lines: 0, sound: true }
    }

    /// It has said a whole line.
    pub fn said(&mut self, what: Said) {
        self.lines += 1;
        self.sound &= what == Said::Request;
        self.pieces = 0;
        match what {
            Said::Request => self.nonsense = 0,
            Said::Wrong => {}
            Said::Nonsense => self.nonsense = self.nonsense.saturating_add(1),
        }
    }

    /// All of a read of so many bytes was looked at, which ends in the middle of a line or not.
    pub fn read(&mut self, bytes: usize, midline: bool) {
        self.brisk = self.lines == 1 && self.sound && !midline;
        if self.lines == 0 && bytes < SMALL_BYTES {
            self.pieces = self.pieces.saturating_add(1);
        }
        (self.lines, self.sound) = (0, true);
    }

    /// Whether it is read from at once.
    pub fn are_brisk(&self) -> bool {
        self.brisk
    }

    /// Whether it waits behind all others.
    pub fn are_rude(&self) -> bool {
        self.nonsense > NONSENSE_MAX || self.pieces > PIECES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(reads: &[&[Said]], midline: bool) -> Manners {
        let mut manners = Manners::unknown();
        for said in reads {
            said.iter().for_each(|what| manners.said(*what));
            manners.read(100, midline);
        }
        manners
    }

    #[test]
    fn one_whole_request_at_a_time_is_brisk_and_nothing_else() {
        let brisk = |said, midline| after(&[said], midline).are_brisk();
        assert!(brisk(&[Said::Request], false));
        assert!(!brisk(&[Said::Request], true));
        assert!(!brisk(&[Said::Request, Said::Request], false));
        assert!(!brisk(&[Said::Wrong], false));
        assert!(!brisk(&[], true));
        assert!(after(&[&[Said::Request, Said::Request], &[Said::Request]], false).are_brisk(), "again");
    }

    #[test]
    fn nonsense_is_rude_the_second_time_until_a_request_comes() {
        let rude = |said: &[Said]| after(&[said], false).are_rude();
        assert!(!rude(&[Said::Nonsense]));
        assert!(rude(&[Said::Nonsense, Said::Wrong, Said::Nonsense]));
        assert!(!rude(&[Said::Nonsense, Said::Nonsense, Said::Request]));
        assert!(!rude(&[Said::Wrong; 100]), "somebody reads what is wrong with it");
    }

    #[test]
    fn small_pieces_are_rude_until_the_line_is_whole_and_large_ones_are_not() {
        let pieces = |count| vec![&[][..]; count];
        assert!(!after(&pieces(3), true).are_rude());
        assert!(after(&pieces(4), true).are_rude());
        let mut whole = pieces(100);
        whole.push(&[Said::Request]);
        assert!(!after(&whole, false).are_rude());
        let mut large = Manners::unknown();
        (0..100).for_each(|_| large.read(SMALL_BYTES, true));
        assert!(!large.are_rude());
    }
}
