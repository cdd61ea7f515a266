//! Whether and where a model fits into what is free.
//!
//! A graphics device goes before main memory, and the one where most layers fit before the others. As many layers as
//! fit beside the pool and the buffers are there; the rest stays in main memory, with its part of the pool.

use drivers::estimate::Estimate;

use super::Placement;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub estimate: &'a Estimate,
    /// On this device and no other.
    pub device: Option<usize>,
    /// With so many layers on the graphics device; as many as fit if absent.
    pub gpu_layers: Option<u32>,
    /// The fused attention kernel will do in main memory.
    pub may_fuse: bool,
    /// The smallest pool that will do.
    pub pool_min: u32,
    /// The pool that is wanted.
    pub pool_tokens: u32,
}

impl Wish<'_> {
    /// The place with the largest pool up to the one that is wanted.
    pub(super) fn fit(&self, free: &[u64]) -> Option<Placement> {
        if let Some(placement) = self.place(self.pool_tokens, free) {
            return Some(placement);
        }
        let multiple = self.estimate.pool_multiple.max(1);
        // What fits is always below `above`, and `best` is the largest that was seen to fit.
        let (mut below, mut above) = (self.pool_min.div_ceil(multiple), self.pool_tokens.div_ceil(multiple));
        let mut best = None;
        while below < above {
            let middle = below + (above - below) / 2;
            match self.place(middle * multiple, free) {
                Some(placement) => (best, below) = (Some(placement), middle + 1),
                None => above = middle,
            }
        }
        best
    }

    /// Whether the smallest pool that will do has a place.
    pub(super) fn fits_at_least(&self, free: &[u64]) -> bool {
        self.place(self.pool_min.min(self.pool_tokens), free).is_some()
    }

    /// The place with a pool of this size.
    fn place(&self, pool_tokens: u32, free: &[u64]) -> Option<Placement> {
        let fused = || self.may_fuse.then(|| self.place_with(pool_tokens, true, free)).flatten();
        self.place_with(pool_tokens, false, free).or_else(fused)
    }

    fn place_with(&self, pool_tokens: u32, fused: bool, free: &[u64]) -> Option<Placement> {
        let main = Placement { device: 0, gpu_layers: 0, pool_tokens, fused };
        let graphics = match (self.device, self.gpu_layers) {
            (Some(0), _) | (_, Some(0)) => 0..0,
            (Some(device), _) => device..device + 1,
            (None, _) => 1..free.len(),
        };
        let on_graphics = graphics.clone().filter_map(|device| self.place_on(device, pool_tokens, free));
        // The first of those with most layers; of two that have all, the one with more room.
        let best = on_graphics.max_by_key(|p| (p.gpu_layers, free[p.device], std::cmp::Reverse(p.device)));
        let no_other = self.device.is_some_and(|device| device > 0) || self.gpu_layers.is_some_and(|n| n > 0);
        if best.is_some() || (no_other && !graphics.is_empty()) {
            return best;
        }
        self.fits(&main, free).then_some(main)
    }

    /// The place on one graphics device with the most layers.
    fn place_on(&self, device: usize, pool_tokens: u32, free: &[u64]) -> Option<Placement> {
        let most = self.estimate.layers_max();
        let numbers = match self.gpu_layers {
            Some(wanted) => wanted.min(most)..=wanted.min(most),
            None => 1..=most,
        };
        // Where a graphics device takes part, the fused kernel runs on both sides.
        let places =
            numbers.rev().map(|gpu_layers| Placement { device, gpu_layers, pool_tokens, fused: true });
        places.into_iter().find(|placement| self.fits(placement, free))
    }

    fn fits(&self, placement: &Placement, free: &[u64]) -> bool {
        placement.shares(self.estimate).iter().all(|(device, needs)| needs.total() <= free[*device])
    }
}

#[cfg(test)]
mod tests {
    use drivers::estimate::{Compute, Layer};

    use super::*;

    /// Eight layers of 100 bytes and one byte a token each; 10 bytes of input, 40 of output, 50 of buffers.
    fn model() -> Estimate {
        let compute = Compute { other_bytes: 50, ..Compute::default() };
        Estimate {
            layers: vec![Layer { weights_bytes: 100, packing_bytes: 0, token_bytes: 1, state_bytes: 0 }; 8],
            input_bytes: 10,
            output_bytes: 40,
            pool_multiple: 4,
            compute,
            fused_compute: Compute { other_bytes: 30, ..compute },
            ..Estimate::default()
        }
    }

    fn wish(estimate: &Estimate) -> Wish<'_> {
        Wish { estimate, device: None, gpu_layers: None, may_fuse: false, pool_min: 20, pool_tokens: 100 }
    }

    #[test]
    fn graphics_device_with_room_takes_all_layers() {
        let model = model();
        let placed = wish(&model).fit(&[10_000, 1670, 5000]);
        assert_eq!(placed, Some(Placement { device: 2, gpu_layers: 9, pool_tokens: 100, fused: true }));
        let placed = wish(&model).fit(&[10_000, 1670, 1669]);
        assert_eq!(placed, Some(Placement { device: 1, gpu_layers: 9, pool_tokens: 100, fused: true }));
    }

    #[test]
    fn graphics_device_too_small_takes_as_many_layers_as_fit() {
        let model = model();
        // The output, the buffers, and three layers with their parts of the pool.
        let placed = wish(&model).fit(&[10_000, 40 + 30 + 3 * 200 + 199]);
        assert_eq!(placed, Some(Placement { device: 1, gpu_layers: 4, pool_tokens: 100, fused: true }));
        let placed = wish(&model).fit(&[10_000, 69]);
        assert_eq!(placed, Some(Placement { device: 0, gpu_layers: 0, pool_tokens: 100, fused: false }));
        assert_eq!(wish(&model).fit(&[100, 40 + 30 + 3 * 200]), None, "the rest has no room");
    }

    #[test]
    fn pool_is_the_largest_that_fits() {
        let model = model();
        let all_but_pool = 10 + 800 + 40 + 50;
        let placed = |free: u64| wish(&model).fit(&[free]).map(|p| p.pool_tokens);
        assert_eq!(placed(all_but_pool + 8 * 100), Some(100));
        assert_eq!(placed(all_but_pool + 8 * 100 - 1), Some(96));
        assert_eq!(placed(all_but_pool + 8 * 20), Some(20));
        assert_eq!(placed(all_but_pool + 8 * 20 - 1), None);
    }

    #[test]
    fn place_that_the_mount_fixes_is_the_only_one() {
        let model = model();
        let roomy = [10_000, 10_000, 280];
        let here = |device, gpu_layers| Wish { device, gpu_layers, ..wish(&model) }.fit(&roomy);
        let placed = |device, gpu_layers| {
            Some(Placement { device, gpu_layers, pool_tokens: 100, fused: gpu_layers > 0 })
        };
        assert_eq!(here(Some(0), None), placed(0, 0));
        assert_eq!(here(None, Some(0)), placed(0, 0));
        assert_eq!(here(Some(2), None), placed(2, 2));
        assert_eq!(here(Some(2), Some(3)), None, "two layers have no room there");
        assert_eq!(here(None, Some(3)), placed(1, 3));
        assert_eq!(
            Wish { gpu_layers: Some(3), ..wish(&model) }.fit(&[10_000]),
            placed(0, 0),
            "no such device"
        );
    }

    #[test]
    fn fused_attention_is_chosen_before_a_smaller_pool_where_it_may_be() {
        let model = model();
        let free = [10 + 800 + 40 + 50 + 8 * 100 - 1];
        let placed = Wish { may_fuse: true, ..wish(&model) }.fit(&free);
        assert_eq!(placed, Some(Placement { device: 0, gpu_layers: 0, pool_tokens: 100, fused: true }));
    }
}
