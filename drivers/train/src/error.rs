//! What can go wrong in tensors, models and optimisers.

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the training library; each message names what was given and what would have been right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Candle refused an operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// An operation was given tensors whose shapes do not go together.
    #[error("{op}: {what}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What does not fit.
        what: String,
    },
    /// A tensor to load has another shape than the model's parameter.
    #[error("tensor {name} has the shape {given:?}, and the model's configuration needs {wanted:?}")]
    Parameter {
        /// Name of the parameter.
        name: String,
        /// Shape of the tensor.
        given: Vec<usize>,
        /// Shape of the parameter.
        wanted: Vec<usize>,
    },
    /// A batch that the model cannot compute.
    #[error("batch: {0}")]
    Batch(String),
    /// A configuration that describes no model of this library.
    #[error("model configuration: {0}")]
    Config(String),
    /// An optimiser's state that belongs to other parameters.
    #[error("optimiser state: {0}")]
    State(String),
    /// Another rank is gone, or does not fit.
    #[error(transparent)]
    Ranks(#[from] crate::ranks::RankError),
    /// A configuration that is not JSON of the expected form.
    #[error("model configuration: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// One stage of a pipeline was asked for what only the whole model has.
    pub(crate) fn stage(what: &str) -> Error {
        Error::Config(format!(
            "one stage of a pipeline has no {what} alone; build the model with `pipeline: 1`"
        ))
    }
}

/// An error of shapes, for operations.
pub(crate) fn shape<T>(op: &'static str, what: impl Into<String>) -> Result<T> {
    Err(Error::Shape { op, what: what.into() })
}
