//! The driver without a model: deterministic text, latencies and faults, as a script asks.
//!
//! It is mounted as `sim:` and a script of `name=value` pairs, such as `sim:seed=7,text=markov,pool=1024`; every
//! name stands in [`Script`]. The vocabulary is the 256 bytes and a few special tokens. It keeps real KV
//! cells with real sharing, and what it generates is a function of the whole content of a sequence as the cells
//! hold it, so any error of the kernel in paging, forking or replaying changes the text. Requests that break the
//! contract of [`crate::driver`] are refused with EINVAL instead of being repaired.
//!
//! Time is a cost model: a step reports what the script says that it took, and sleeps as long only on a clock
//! that can sleep. So tests of the kernel run this driver in their own process at full speed.

mod clock;
mod load;
mod sample;
mod script;
mod step;
mod swap;
mod text;
mod worker;

pub use clock::{Clock, RealClock, UnitClock};
pub use load::{estimate, load, load_with, load_with_swap};
pub use script::{SCHEME, Script, TextMode};
pub use step::SimDriver;
pub use swap::SimSwap;
pub use text::{ASSISTANT_START, BOS, EOS, IM_END, IM_START, SimText};
pub use worker::{Died, SimWorker};
