//! A sentence encoder in the Hugging Face layout becomes a GGUF that the reader accepts.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use drivers::gguf::{TensorType, convert, open};

/// The folder of shared test data, where this checkout has one beside it.
fn shared_model(name: &str) -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/models").join(name);
    path.is_dir().then_some(path)
}

#[test]
fn mini_lm_converted_is_a_runnable_bert() {
    let Some(folder) = shared_model("all-MiniLM-L6-v2") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("minilm.gguf");
    convert::bert_from_hf(&folder, &out).unwrap();
    let header = open(&out).unwrap();
    assert_eq!(header.architecture, "bert");
    assert_eq!(header.count("bert.pooling_type"), Some(1));
    assert_eq!(header.tensor("blk.5.ffn_down.weight").unwrap().kind, TensorType::F16);
    let tokens = header.texts("tokenizer.ggml.tokens").unwrap();
    assert_eq!((tokens[101].as_str(), tokens[1996].as_str()), ("[CLS]", "\u{2581}the"));
}
