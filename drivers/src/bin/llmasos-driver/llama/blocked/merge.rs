//! What is left when a unit's cells are through: its rows' sums become results, at once or by way of those of the
//! group's other units.

use super::job::{Job, Scratch};
use super::micro::{UNSEEN, WIDTH_MAX, power_of_two};
use super::plan::Block;
use super::share::Unit;

/// Writes the rows of a block to where the operation wants them.
pub fn finish(job: &Job, block: &Block, head: usize, scratch: &mut Scratch) {
    let (width, sharers, heads) = (job.sizes.value, job.sizes.sharers, job.sizes.heads);
    for at in 0..block.rows * sharers {
        let (row, head) = (block.first + at / sharers, head * sharers + at % sharers);
        // SAFETY: the scratch has this row; the result has one for each row of the pass and head of queries, which
        // no other unit writes.
        let (sums, out, to) = unsafe {
            (
                std::slice::from_raw_parts(scratch.sums.as_mut_ptr().add(at * WIDTH_MAX), WIDTH_MAX),
                std::slice::from_raw_parts(scratch.out.as_mut_ptr().add(at * width), width),
                std::slice::from_raw_parts_mut(job.result.add((row * heads * sharers + head) * width), width),
            )
        };
        if scratch.tops[at] == UNSEEN {
            to.fill(0.0);
            continue;
        }
        let whole = 1.0 / sums.iter().sum::<f32>();
        for (to, sum) in to.iter_mut().zip(out) {
            *to = sum * whole;
        }
    }
}

/// Leaves the sums of a unit for the one that merges: for each row its maximum, its sum of weights, and its values.
pub fn leave_partial(job: &Job, block: &Block, place: usize, scratch: &mut Scratch) {
    let width = job.sizes.value;
    for at in 0..block.rows * job.sizes.sharers {
        let top = scratch.tops[at];
        // SAFETY: the scratch has this row; the partials have room for a block at each place, which is this unit's.
        unsafe {
            let to = job.partials.add(place * job.sizes.partial() + at * (2 + width));
            to.write(top);
            if top != UNSEEN {
                let sums =
                    std::slice::from_raw_parts(scratch.sums.as_mut_ptr().add(at * WIDTH_MAX), WIDTH_MAX);
                to.add(1).write(sums.iter().sum());
                to.add(2).copy_from_nonoverlapping(scratch.out.as_mut_ptr().add(at * width), width);
            }
        }
    }
}

/// Adds up what the units of a group have left, in their order.
pub fn merge(job: &Job, block: &Block, unit: &Unit, scratch: &mut Scratch) {
    let width = job.sizes.value;
    let group = &job.share.groups[unit.group];
    for at in 0..block.rows * job.sizes.sharers {
        let partial = |n: usize| {
            // SAFETY: all units of the group have written theirs, which the counter of unfinished ones orders before
            // this, and nobody writes them any more.
            unsafe {
                let from = job.partials.add((group.partials + n) * job.sizes.partial() + at * (2 + width));
                std::slice::from_raw_parts(from, 2 + width)
            }
        };
        let top = (0..group.units).map(|n| partial(n)[0]).fold(UNSEEN, f32::max);
        scratch.tops[at] = top;
        if top == UNSEEN {
            continue;
        }
        // SAFETY: the scratch has this row.
        let (sums, out) = unsafe {
            (
                std::slice::from_raw_parts_mut(scratch.sums.as_mut_ptr().add(at * WIDTH_MAX), WIDTH_MAX),
                std::slice::from_raw_parts_mut(scratch.out.as_mut_ptr().add(at * width), width),
            )
        };
        sums.fill(0.0);
        out.fill(0.0);
        for part in (0..group.units).map(partial).filter(|part| part[0] != UNSEEN) {
            let factor = power_of_two(part[0] - top);
            sums[0] += factor * part[1];
            for (sum, number) in out.iter_mut().zip(&part[2..]) {
                *sum += factor * number;
            }
        }
    }
}
