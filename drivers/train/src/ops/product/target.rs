//! Where kernels put a product, as addresses: threads write to parts of one output.

/// The output of a product.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// Its first number, and how far it is to the next row.
    first: *mut f32,
    row: usize,
    /// What the product is added to, in the same form.
    from: Option<(*const f32, usize)>,
    /// What the product is multiplied with before that.
    pub factor: f32,
}

// SAFETY: threads write rows that no other thread writes; the kernels' callers vouch for the memory.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// An output that begins as nothing, or as `from`.
    pub fn new(first: *mut f32, row: usize, from: Option<(*const f32, usize)>, factor: f32) -> Self {
        Target { first, row, from, factor }
    }

    /// The part of it from a row and a column on.
    pub fn part(self, row: usize, column: usize) -> Self {
        let from = self.from.map(|(from, step)| (from.wrapping_add(row * step + column), step));
        Target { first: self.first.wrapping_add(row * self.row + column), from, ..self }
    }

    /// The same, for the rest of a sum whose beginning is there already.
    pub fn continued(self) -> Self {
        Target { from: Some((self.first.cast_const(), self.row)), ..self }
    }

    /// The address of a number.
    pub fn at(&self, row: usize, column: usize) -> *mut f32 {
        self.first.wrapping_add(row.wrapping_mul(self.row).wrapping_add(column))
    }

    /// The address of the number that the product at a place is added to.
    pub fn from(&self, row: usize, column: usize) -> Option<*const f32> {
        self.from.map(|(from, step)| from.wrapping_add(row.wrapping_mul(step).wrapping_add(column)))
    }

    /// How far it is to the next row of the output, and of what it is added to.
    pub fn steps(&self) -> (usize, Option<usize>) {
        (self.row, self.from.map(|(_, step)| step))
    }
}
