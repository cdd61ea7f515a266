//! Which sequence holds which cells of the KV pool, counted as llama.cpp does: shared entries occupy one cell.
//!
//! llama.cpp says only whether a whole batch found room. Counting here tells which single row does not fit, so
//! that the others of its step are not refused with it; and it knows every length without asking.

use drivers::wire::Asid;

/// The cells of the pool.
pub struct Pool {
    /// How many sequences hold each cell.
    holders: Vec<u16>,
    /// Cells that nobody holds.
    free: Vec<u32>,
    /// The cells of each sequence, by position.
    sequences: Vec<Vec<u32>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(cells: u32, sequences: u16) -> Pool {
        Pool {
            holders: vec![0; cells as usize],
            free: (0..cells).rev().collect(),
            sequences: vec![Vec::new(); usize::from(sequences)],
        }
    }

    /// Entries of a sequence; none where there is no such sequence.
    pub fn length(&self, asid: Asid) -> Option<u32> {
        self.sequences.get(usize::from(asid.0)).map(|cells| cells.len() as u32)
    }

    /// Cells that nobody holds.
    pub fn free(&self) -> u32 {
        self.free.len() as u32
    }

    /// Cells that some sequence holds.
    pub fn used(&self) -> u32 {
        (self.holders.len() - self.free.len()) as u32
    }

    /// Lets `to`, which is empty, share the first cells of `from`.
    pub fn share(&mut self, from: Asid, to: Asid, length: u32) {
        let cells = self.sequences[usize::from(from.0)][..length as usize].to_vec();
        for cell in &cells {
            self.holders[*cell as usize] += 1;
        }
        let to = &mut self.sequences[usize::from(to.0)];
        debug_assert!(to.is_empty(), "a share goes to an empty sequence");
        *to = cells;
    }

    /// Drops the entries of a sequence at positions `from..`.
    pub fn drop_from(&mut self, asid: Asid, from: u32) {
        for cell in self.sequences[usize::from(asid.0)].drain(from as usize..) {
            let holders = &mut self.holders[cell as usize];
            *holders -= 1;
            if *holders == 0 {
                self.free.push(cell);
            }
        }
    }

    /// Adds entries to a sequence. False, and nothing is added, where too few cells are free.
    #[must_use]
    pub fn grow(&mut self, asid: Asid, tokens: u32) -> bool {
        let Some(rest) = self.free.len().checked_sub(tokens as usize) else { return false };
        let cells = self.free.split_off(rest);
        for cell in &cells {
            self.holders[*cell as usize] = 1;
        }
        self.sequences[usize::from(asid.0)].extend(cells);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Asid = Asid(0);
    const B: Asid = Asid(1);

    #[test]
    fn shared_cells_are_free_after_the_last_holder_drops_them() {
        let mut pool = Pool::new(10, 2);
        assert!(pool.grow(A, 6));
        pool.share(A, B, 4);
        assert_eq!((pool.free(), pool.length(B)), (4, Some(4)));
        pool.drop_from(A, 0);
        assert_eq!(pool.free(), 6);
        pool.drop_from(B, 1);
        assert_eq!((pool.free(), pool.length(B)), (9, Some(1)));
    }

    #[test]
    fn growth_beyond_the_pool_adds_nothing() {
        let mut pool = Pool::new(4, 2);
        assert!(pool.grow(A, 3));
        assert!(!pool.grow(B, 2));
        assert_eq!((pool.free(), pool.length(B)), (1, Some(0)));
        assert_eq!(pool.length(Asid(2)), None);
    }
}
