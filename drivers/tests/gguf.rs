//! What the reader accepts, what it refuses in which words, and that it reads what the writer wrote.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::path::{Path, PathBuf};

use drivers::gguf::random::{Family, Shape};
use drivers::gguf::write::Plan;
use drivers::gguf::{Array, TensorType, Value, open, read};
use syscalls::Errno;

fn tiny() -> Shape {
    Shape { embedding: 64, feed_forward: 64, vocabulary: 300, context: 64, ..Shape::preset("tiny").unwrap() }
}

/// A small model with one thing changed in its plan, as a file's bytes.
fn model_with(change: impl FnOnce(&mut Vec<(String, Value)>)) -> Vec<u8> {
    let text = |text: &str| Value::Text(text.to_owned());
    let tokens: Vec<String> = (0..4).map(|number| format!("t{number}")).collect();
    let mut metadata = vec![
        ("general.architecture".to_owned(), text("llama")),
        ("llama.block_count".to_owned(), Value::U32(1)),
        ("llama.context_length".to_owned(), Value::U32(64)),
        ("llama.embedding_length".to_owned(), Value::U32(32)),
        ("llama.attention.head_count".to_owned(), Value::U32(4)),
        ("llama.attention.head_count_kv".to_owned(), Value::U32(2)),
        ("tokenizer.ggml.model".to_owned(), text("gpt2")),
        ("tokenizer.ggml.tokens".to_owned(), Value::Array(Array::Text(tokens))),
        ("tokenizer.ggml.token_type".to_owned(), Value::Array(Array::I32(vec![1; 4]))),
    ];
    change(&mut metadata);
    let mut plan = Plan::default();
    metadata.into_iter().for_each(|(key, value)| plan.set(&key, value));
    plan.tensor("token_embd.weight", &[32, 4], TensorType::Q8_0);
    plan.tensor("output_norm.weight", &[32], TensorType::F32);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("m.gguf");
    plan.write(&path, |tensor, out| out.write_all(&vec![0; tensor.bytes as usize])).unwrap();
    std::fs::read(path).unwrap()
}

fn set(key: &'static str, value: Value) -> impl FnOnce(&mut Vec<(String, Value)>) {
    move |metadata| {
        metadata.retain(|(name, _)| name != key);
        metadata.push((key.to_owned(), value));
    }
}

/// Opens bytes as a file and gives the sentence without the path.
fn sentence_about(bytes: &[u8]) -> (Errno, String) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    match open(&path) {
        Ok(_) => panic!("the file was accepted"),
        Err(fault) => {
            let prefix = format!("{}: ", path.display());
            (fault.errno, fault.message.strip_prefix(&prefix).unwrap().to_owned())
        }
    }
}

#[track_caller]
fn check_refused(bytes: &[u8], wanted: &str) {
    let (errno, sentence) = sentence_about(bytes);
    assert_eq!(errno, Errno::ENOEXEC);
    assert!(sentence.contains(wanted), "`{sentence}` does not say `{wanted}`");
}

#[test]
fn unchanged_model_is_accepted() {
    let bytes = model_with(|_| ());
    let header = read(Cursor::new(&bytes), bytes.len() as u64).unwrap();
    drivers::gguf::check_runnable(&header).unwrap();
    assert_eq!((header.version, header.architecture.as_str()), (3, "llama"));
    assert_eq!(header.parameters(), 32 * 4 + 32);
}

#[test]
fn other_formats_are_refused_by_their_beginning() {
    check_refused(b"", "0 bytes in all");
    check_refused(b"PK\x03\x04 a zip archive", r#"begins with "PK\x03\x04" instead of "GGUF""#);
}

#[test]
fn wrong_versions_are_refused_by_their_number() {
    let mut bytes = model_with(|_| ());
    for (version, wanted) in
        [(1u32, "version 1"), (0, "version 0"), (4, "version 4"), (3u32.swap_bytes(), "big-endian")]
    {
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        check_refused(&bytes, wanted);
    }
}

#[test]
fn absurd_counts_are_refused_with_the_limit() {
    let mut bytes = model_with(|_| ());
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    check_refused(&bytes, "the number of tensors is 18446744073709551615; the limit is 65536");
    let mut bytes = model_with(|_| ());
    bytes[16..24].copy_from_slice(&100_000u64.to_le_bytes());
    check_refused(&bytes, "the number of metadata entries is 100000; the limit is 65536");
}

#[test]
fn every_truncation_is_refused() {
    let bytes = model_with(|_| ());
    for length in 0..bytes.len() {
        let (errno, _) = sentence_about(&bytes[..length]);
        assert_eq!(errno, Errno::ENOEXEC, "cut to {length} of {} bytes", bytes.len());
    }
    check_refused(&bytes[..bytes.len() - 1], "tensor `output_norm.weight` needs bytes");
    check_refused(&bytes[..100], "inside its header, in metadata entry");
}

#[test]
fn tensor_entries_that_cannot_be_are_refused_by_name() {
    let bytes = model_with(|_| ());
    let name = b"output_norm.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    let patched = |offset: usize, patch: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at + offset..at + offset + patch.len()].copy_from_slice(patch);
        bytes
    };
    check_refused(
        &patched(0, &9u32.to_le_bytes()),
        "dimensions of tensor `output_norm.weight` is 9; the limit is 4",
    );
    check_refused(&patched(4, &0u64.to_le_bytes()), "has a dimension of 0");
    check_refused(&patched(4, &(1u64 << 63).to_le_bytes()), "has too many elements");
    check_refused(&patched(4, &(1u64 << 61).to_le_bytes()), "is too large");
    check_refused(&patched(4, &(1u64 << 40).to_le_bytes()), "tensor `output_norm.weight` needs bytes");
    check_refused(&patched(12, &4u32.to_le_bytes()), "the type of tensor `output_norm.weight` is 4");
    check_refused(
        &patched(16, &u64::MAX.to_le_bytes()),
        "begins at byte 18446744073709551615 of the weights",
    );
}

#[test]
fn metadata_that_llama_cpp_aborts_on_is_refused() {
    let texts =
        |texts: &[&str]| Value::Array(Array::Text(texts.iter().map(|text| (*text).to_owned()).collect()));
    let cases = [
        (
            set("general.architecture", Value::Text("abacus".into())),
            "does not have its architecture, `abacus`",
        ),
        (set("general.architecture", Value::Text("clip".into())), "vision projector"),
    ];
    for (change, wanted) in cases {
        check_refused(&model_with(change), wanted);
    }
    for (key, value, wanted) in [
        ("llama.block_count", Value::U32(0), "its `llama.block_count` is 0"),
        ("llama.block_count", Value::U32(513), "is 513; the limit is 512"),
        ("llama.block_count", Value::Text("1".into()), "no number `llama.block_count`"),
        ("llama.embedding_length", Value::U32(64), "its embedding table is [32, 4]"),
        ("llama.attention.head_count", Value::U32(0), "attention heads is 0"),
        ("llama.attention.head_count", Value::U32(3), "cannot share 2 key-value heads"),
        ("llama.attention.head_count", Value::U32(6), "no multiple of its 6 heads"),
        ("llama.attention.head_count_kv", Value::U32(0), "cannot share 0 key-value heads"),
        ("llama.full_attention_interval", Value::U32(0), "its `llama.full_attention_interval` is 0"),
        ("llama.expert_count", Value::U32(8), "uses 0 of 8 experts"),
        ("llama.expert_used_count", Value::U32(2), "uses 2 of 0 experts"),
        ("llama.rope.scaling.type", Value::Text("odd".into()), "is `odd`; llama.cpp has none, linear"),
        ("llama.rope.dimension_count", Value::U32(16), "rotates 16 of the 8 numbers of a head"),
        ("general.alignment", Value::U32(48), "its alignment is 48"),
        ("tokenizer.ggml.tokens", texts(&["a", "b", "b", "c"]), r#"the token "b" twice"#),
        ("tokenizer.ggml.tokens", texts(&["a", "b"]), "its embedding table is [32, 4] for 2 tokens"),
        ("tokenizer.ggml.tokens", Value::Array(Array::U32(vec![1; 4])), "no list of texts"),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1; 3])), "has 3 entries for 4 tokens"),
        ("tokenizer.ggml.token_type", Value::Array(Array::F32(vec![1.0; 4])), "a list of another type"),
        ("tokenizer.ggml.merges", Value::U32(1), "no list of texts"),
    ] {
        check_refused(&model_with(set(key, value)), wanted);
    }
}

#[test]
fn duplicates_are_refused_by_name() {
    let twice = model_with(|metadata| metadata.push(("llama.block_count".into(), Value::U32(1))));
    check_refused(&twice, "metadata entry `llama.block_count` stands in it twice");
}

#[test]
fn what_is_no_file_is_refused_with_its_own_number() {
    let scratch = tempfile::tempdir().unwrap();
    let missing = open(&scratch.path().join("none.gguf")).unwrap_err();
    assert_eq!(missing.errno, Errno::ENOENT);
    let folder = open(scratch.path()).unwrap_err();
    assert!(folder.message.ends_with("it is a directory; give a .gguf file"), "{folder}");
}

#[test]
fn every_value_survives_writing_and_reading() {
    let values = [
        ("a", Value::U8(250)),
        ("b", Value::I8(-3)),
        ("c", Value::U16(65_000)),
        ("d", Value::I16(-300)),
        ("e", Value::U32(4_000_000_000)),
        ("f", Value::I32(-70_000)),
        ("g", Value::F32(0.1)),
        ("h", Value::Bool(true)),
        ("i", Value::Text("naïve 中文".into())),
        ("j", Value::U64(u64::MAX)),
        ("k", Value::I64(i64::MIN)),
        ("l", Value::F64(1e300)),
        ("m", Value::Array(Array::Text(vec!["".into(), "x".into()]))),
        ("n", Value::Array(Array::Bool(vec![true, false]))),
        ("o", Value::Array(Array::F64(vec![]))),
        ("p", Value::Array(Array::I16(vec![-1, 2]))),
    ];
    let bytes = model_with(|metadata| {
        metadata.extend(values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    });
    let header = read(Cursor::new(&bytes), bytes.len() as u64).unwrap();
    for (key, value) in &values {
        assert_eq!(header.metadata.get(*key), Some(value), "{key}");
    }
}

#[test]
fn made_up_models_of_every_family_and_type_are_accepted_and_repeatable() {
    let scratch = tempfile::tempdir().unwrap();
    for family in Family::ALL {
        for kind in [TensorType::F32, TensorType::F16, TensorType::BF16, TensorType::Q8_0, TensorType::Q4_0] {
            let shape = Shape { kind, ..tiny().of(family) };
            let (one, two) = (scratch.path().join("1.gguf"), scratch.path().join("2.gguf"));
            shape.write(&one).unwrap();
            shape.write(&two).unwrap();
            let header = open(&one).unwrap_or_else(|fault| panic!("{shape:?}: {fault}"));
            assert_eq!(header.tensor("token_embd.weight").unwrap().kind, kind);
            assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap(), "{shape:?}");
        }
    }
}

#[test]
fn models_of_other_seeds_have_other_fingerprints() {
    let scratch = tempfile::tempdir().unwrap();
    let fingerprint = |seed| {
        let path = scratch.path().join(format!("{seed}.gguf"));
        Shape { seed, ..tiny() }.write(&path).unwrap();
        open(&path).unwrap().fingerprint
    };
    assert_eq!(fingerprint(1), fingerprint(1));
    assert_ne!(fingerprint(1), fingerprint(2));
}

#[test]
fn shapes_that_cannot_be_say_why() {
    let trouble = |shape: Shape| shape.trouble().unwrap();
    assert!(trouble(Shape { heads: 5, kv_heads: 5, ..tiny() }).contains("no multiple of twice the 5 heads"));
    assert!(trouble(Shape { embedding: 72, heads: 2, ..tiny() }).contains("Q8_0 takes multiples of 32"));
    assert!(trouble(Shape { vocabulary: 100, ..tiny() }).contains("vocabulary is 100"));
    assert!(trouble(Shape { layers: 0, ..tiny() }).contains("a size is 0"));
    assert_eq!(Shape::preset("0.5b").unwrap().trouble(), None);
}

#[test]
fn starter_model_is_accepted_and_small() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("starter/starter.gguf");
    let header = open(&path).unwrap();
    assert!(header.bytes < 3_000_000, "{} bytes", header.bytes);
    assert_eq!(header.chat_template(), None);
    assert!(header.text("general.description").unwrap().contains("follows no instructions"));
}

/// All files below a folder that end in `.gguf`; none where the folder is not there.
fn ggufs_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { ggufs_below(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .collect()
}

#[test]
fn shared_models_are_accepted_and_bare_vocabularies_refused() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    for path in ggufs_below(&shared.join("models")) {
        open(&path).unwrap_or_else(|fault| panic!("{fault}"));
    }
    for path in ggufs_below(&shared.join("tokenizers")) {
        let fault = open(&path).unwrap_err();
        assert!(fault.message.contains("it holds no tensors, only a vocabulary"), "{fault}");
    }
}
