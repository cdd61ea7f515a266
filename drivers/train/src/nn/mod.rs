//! Layers: which parameters an operation takes, and under which names.

pub mod attention;
pub mod cache;
pub mod feed_forward;
pub mod layer;
pub mod linear;
pub mod norm;
pub mod scope;

pub use attention::{Attention, Projections};
pub use cache::Cache;
pub use feed_forward::FeedForward;
pub use layer::{Context, Layer, Order};
pub use linear::{Linear, Lora, Split};
pub use norm::Norm;
pub use scope::Scope;
