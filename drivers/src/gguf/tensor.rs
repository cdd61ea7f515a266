//! Tensors as a header lists them, and ggml's types with the sizes of their blocks.

macro_rules! tensor_types {
    ($($(#[doc = $doc:literal])? $variant:ident $id:literal: $block:literal elements in $bytes:literal bytes;)+) => {
        /// How the elements of a tensor are stored: in blocks of some elements and some bytes.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum TensorType { $($(#[doc = $doc])? $variant,)+ }

        impl TensorType {
            /// The type with this number in a file.
            pub fn from_id(id: u32) -> Option<TensorType> {
                match id { $($id => Some(TensorType::$variant),)+ _ => None }
            }

            /// Its number in a file.
            pub fn id(self) -> u32 {
                match self { $(TensorType::$variant => $id,)+ }
            }

            /// Elements of one block.
            pub fn block_elements(self) -> u64 {
                match self { $(TensorType::$variant => $block,)+ }
            }

            /// Bytes of one block.
            pub fn block_bytes(self) -> u64 {
                match self { $(TensorType::$variant => $bytes,)+ }
            }

            /// Its name in ggml.
            pub fn name(self) -> &'static str {
                match self { $(TensorType::$variant => stringify!($variant),)+ }
            }
        }
    };
}

tensor_types! {
    F32 0: 1 elements in 4 bytes;
    F16 1: 1 elements in 2 bytes;
    Q4_0 2: 32 elements in 18 bytes;
    Q4_1 3: 32 elements in 20 bytes;
    Q5_0 6: 32 elements in 22 bytes;
    Q5_1 7: 32 elements in 24 bytes;
    Q8_0 8: 32 elements in 34 bytes;
    Q8_1 9: 32 elements in 36 bytes;
    Q2_K 10: 256 elements in 84 bytes;
    Q3_K 11: 256 elements in 110 bytes;
    Q4_K 12: 256 elements in 144 bytes;
    Q5_K 13: 256 elements in 176 bytes;
    Q6_K 14: 256 elements in 210 bytes;
    Q8_K 15: 256 elements in 292 bytes;
    IQ2_XXS 16: 256 elements in 66 bytes;
    IQ2_XS 17: 256 elements in 74 bytes;
    IQ3_XXS 18: 256 elements in 98 bytes;
    IQ1_S 19: 256 elements in 50 bytes;
    IQ4_NL 20: 32 elements in 18 bytes;
    IQ3_S 21: 256 elements in 110 bytes;
    IQ2_S 22: 256 elements in 82 bytes;
    IQ4_XS 23: 256 elements in 136 bytes;
    I8 24: 1 elements in 1 bytes;
    I16 25: 1 elements in 2 bytes;
    I32 26: 1 elements in 4 bytes;
    I64 27: 1 elements in 8 bytes;
    F64 28: 1 elements in 8 bytes;
    IQ1_M 29: 256 elements in 56 bytes;
    BF16 30: 1 elements in 2 bytes;
    TQ1_0 34: 256 elements in 54 bytes;
    TQ2_0 35: 256 elements in 66 bytes;
    MXFP4 39: 32 elements in 17 bytes;
    NVFP4 40: 64 elements in 36 bytes;
    Q1_0 41: 128 elements in 18 bytes;
    Q2_0 42: 64 elements in 18 bytes;
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its sizes, the fastest-moving first: a matrix of `rows` outputs and `columns` inputs is `[columns, rows]`.
    pub dimensions: Vec<u64>,
    /// How its elements are stored.
    pub kind: TensorType,
    /// Where it begins, from the beginning of the weights.
    pub offset: u64,
    /// Bytes that it takes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Elements of the tensor; the reader has checked that the product does not overflow.
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

/// Bytes of a tensor, or what is wrong with its sizes.
pub(super) fn tensor_bytes(dimensions: &[u64], kind: TensorType) -> Result<u64, String> {
    if dimensions.contains(&0) {
        return Err(format!("has a dimension of 0 in {dimensions:?}"));
    }
    let elements = dimensions.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let elements = elements.filter(|elements| i64::try_from(*elements).is_ok());
    let elements = elements.ok_or_else(|| format!("has too many elements: {dimensions:?}"))?;
    let row = dimensions.first().copied().unwrap_or(1);
    if !row.is_multiple_of(kind.block_elements()) {
        let block = kind.block_elements();
        return Err(format!("has rows of {row} elements, and {} takes multiples of {block}", kind.name()));
    }
    let bytes = (elements / kind.block_elements()).checked_mul(kind.block_bytes());
    bytes.filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(|| format!("is too large: {dimensions:?}"))
}
