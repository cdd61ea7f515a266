#![allow(clippy::unwrap_used)]
use candle_core::{DType, IndexOp};
use drivers::gguf;

use super::*;
use crate::Model;
use crate::checkpoint::read_tensors;
use crate::models::build;
use crate::token::{Family, Kind, TokenError, train, usual};

pub(crate) const TEXT: &str =
    "to be or not to be that is the question, whether it is nobler in the mind to suffer";

pub(crate) struct Made {
    pub(crate) model: Box<dyn Model>,
    pub(crate) tokeniser: Tokeniser,
}

pub(crate) fn made(json: &str, kind: Kind, family: Family) -> Made {
    let special: Vec<String> = usual(family).iter().map(|token| (*token).to_owned()).collect();
    let texts = std::iter::repeat_with(|| Ok::<_, TokenError>(TEXT.to_owned())).take(20);
    let tokeniser = train(kind, &special, texts).unwrap();
    let config = json.replace("VOCABULARY", &tokeniser.size().to_string());
    let model = build(&ModelConfig::from_json(&config).unwrap(), DType::F32, 1).unwrap();
    Made { model, tokeniser }
}

pub(crate) fn gpt2(kind: Kind) -> Made {
    let json = r#"{"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 32,
        "vocab_size": VOCABULARY}"#;
    made(json, kind, Family::Decoder)
}

pub(crate) fn llama() -> Made {
    let json = r#"{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 32, "vocab_size": VOCABULARY}"#;
    made(json, Kind::Byte, Family::Decoder)
}

pub(crate) fn qwen2(rope_scaling: &str) -> Made {
    let json = r#"{"model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 32, "tie_word_embeddings": true,
        "rope_theta": 1000000.0, "vocab_size": VOCABULARY, "rope_scaling": ROPE}"#;
    made(&json.replace("ROPE", rope_scaling), Kind::Byte, Family::Decoder)
}

pub(crate) fn bert() -> Made {
    let json = r#"{"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 32, "vocab_size": VOCABULARY}"#;
    made(json, Kind::WordPiece(80), Family::Encoder)
}

pub(crate) fn t5() -> Made {
    let json = r#"{"model_type": "t5", "num_layers": 2, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4,
        "vocab_size": VOCABULARY}"#;
    made(json, Kind::Unigram(60), Family::EncoderDecoder)
}

pub(crate) fn write(made: &Made, format: Format, to: &Path) -> Result<(), ExportError> {
    let (config, weights) = (made.model.config(), made.model.parameters().tensors());
    Exported { config: &config, weights: &weights, tokeniser: &made.tokeniser, name: "test" }
        .write(format, to)
}

pub(crate) fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn folder_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    for made in [gpt2(Kind::Bpe(300)), llama(), qwen2("null"), bert(), t5()] {
        let at = folder.path().join("model");
        write(&made, Format::Hf, &at).unwrap();
        let config =
            ModelConfig::from_json(&std::fs::read_to_string(at.join("config.json")).unwrap()).unwrap();
        assert_eq!(config, made.model.config());
        let other = build(&config, DType::F32, 2).unwrap();
        let loaded = other.parameters().load(&read_tensors(&at.join("model.safetensors")).unwrap()).unwrap();
        assert!(loaded.missing.is_empty() && loaded.unexpected.is_empty(), "{loaded:?}");
        for (name, tensor) in made.model.parameters().tensors() {
            assert_eq!(numbers(&other.parameters().tensors()[&name]), numbers(&tensor), "{name}");
        }
        assert_eq!(Tokeniser::load(&at).unwrap().digest(), made.tokeniser.digest());
    }
}

#[test]
fn model_that_cannot_be_written_whole_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let (older, newer) = (gpt2(Kind::Char), llama());
    let at = folder.path().join("model");
    let contents = || {
        let entries = std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap());
        let file = |entry: std::fs::DirEntry| (entry.file_name(), std::fs::read(entry.path()).unwrap());
        entries.map(file).collect::<BTreeMap<_, _>>()
    };
    write(&older, Format::Hf, &at).unwrap();
    let before = contents();
    // There is no place for the file that comes last.
    let in_the_way = at.join("tokenizer.json.partial");
    std::fs::create_dir(&in_the_way).unwrap();
    write(&newer, Format::Hf, &at).unwrap_err();
    std::fs::remove_dir(&in_the_way).unwrap();
    assert!(contents() == before, "a part of the newer one has come there");
    write(&newer, Format::Hf, &at).unwrap();
    assert!(contents() != before && contents().len() == before.len());

    for format in [Format::Safetensors, Format::Gguf(Matrices::F32), Format::Pt] {
        let file = folder.path().join(format!("{format:?}"));
        write(&older, format, &file).unwrap();
        let before = std::fs::read(&file).unwrap();
        std::fs::create_dir(folder.path().join(format!("{format:?}.partial"))).unwrap();
        write(&newer, format, &file).unwrap_err();
        assert!(std::fs::read(&file).unwrap() == before, "{format:?}");
    }
}

#[test]
fn place_of_a_model_keeps_its_mode_its_links_and_its_kind() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    let folder = tempfile::tempdir().unwrap();
    let [file, link, pipe] = ["file", "link", "pipe"].map(|name| folder.path().join(name));
    let made = llama();
    symlink("file", &link).unwrap();
    nix::unistd::mkfifo(pipe.as_path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for format in [Format::Safetensors, Format::Gguf(Matrices::F32), Format::Pt] {
        let _ = std::fs::remove_file(&file);
        write(&made, format, &file).unwrap();
        let wanted = std::fs::read(&file).unwrap();

        std::fs::write(&file, "older").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        write(&made, format, &link).unwrap();
        assert!(link.is_symlink() && std::fs::read(&file).unwrap() == wanted, "{format:?}");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640, "{format:?}");

        if format == Format::Pt {
            // A zip has sizes before what they are of, and goes back for them.
            continue;
        }
        let reads = pipe.clone();
        let reader = std::thread::spawn(move || std::fs::read(reads).unwrap());
        write(&made, format, &pipe).unwrap();
        assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert!(reader.join().unwrap() == wanted, "{format:?}");
    }
}

#[test]
fn gguf_of_every_family_passes_the_checked_reader() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("model.gguf");
    let char_wide = {
        let mut made = gpt2(Kind::Char);
        let texts = std::iter::once(Ok::<_, TokenError>("今天 é".to_owned()));
        made.tokeniser = train(Kind::Char, &["<|endoftext|>".into()], texts).unwrap();
        made
    };
    for (made, architecture, vocabulary) in [
        (gpt2(Kind::Bpe(300)), "gpt2", "gpt2"),
        (gpt2(Kind::Char), "gpt2", "gpt2"),
        (char_wide, "gpt2", "llama"),
        (llama(), "llama", "gpt2"),
        (qwen2("null"), "qwen2", "gpt2"),
        (bert(), "bert", "bert"),
        (t5(), "t5", "t5"),
    ] {
        for matrices in [Matrices::F32, Matrices::F16, Matrices::BF16] {
            write(&made, Format::Gguf(matrices), &at).unwrap();
            let header = gguf::open(&at).unwrap_or_else(|fault| panic!("{architecture}: {fault:?}"));
            assert_eq!(header.architecture, architecture);
            assert_eq!(header.text("tokenizer.ggml.model"), Some(vocabulary));
        }
    }
}

#[test]
fn gguf_holds_the_numbers_as_llama_cpp_wants_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("model.gguf");
    let read = |name: &str| {
        let header = gguf::open(&at).unwrap();
        let bytes = std::fs::read(&at).unwrap();
        let tensor = header.tensor(name).unwrap();
        let begin = (header.data_offset + tensor.offset) as usize;
        let part = &bytes[begin..begin + tensor.bytes as usize];
        let numbers: Vec<f32> = part.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        (tensor.dimensions.clone(), numbers)
    };
    let made = gpt2(Kind::Byte);
    write(&made, Format::Gguf(Matrices::F32), &at).unwrap();
    let wide = made.model.parameters().tensors()["transformer.h.1.attn.c_attn.weight"].clone();
    assert_eq!(wide.dims(), [32, 96], "GPT-2's files have inputs as rows");
    assert_eq!(read("blk.1.attn_qkv.weight"), (vec![32, 96], numbers(&wide.t().unwrap())));

    let made = llama();
    write(&made, Format::Gguf(Matrices::F32), &at).unwrap();
    let keys = made.model.parameters().tensors()["model.layers.0.self_attn.k_proj.weight"].clone();
    let (_, turned) = read("blk.0.attn_k.weight");
    // Two heads of eight: of each head, the rows i and i + 4 become neighbours.
    for (row, from) in [(0, 0), (1, 4), (2, 1), (3, 5), (8, 8), (9, 12)] {
        assert_eq!(turned[row * 32..(row + 1) * 32], numbers(&keys.i(from).unwrap()), "row {row}");
    }
}

#[test]
fn models_that_gguf_has_not_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("model.gguf");
    let json = r#"{"model_type": "marian", "encoder_layers": 1, "decoder_layers": 1, "d_model": 32,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
        "max_position_embeddings": 32, "vocab_size": VOCABULARY}"#;
    let made = made(json, Kind::Unigram(60), Family::EncoderDecoder);
    let error = write(&made, Format::Gguf(Matrices::F32), &at).unwrap_err().to_string();
    assert!(error.contains("export it as hf"), "{error}");
    let mut endless = gpt2(Kind::Char);
    let texts = std::iter::once(Ok::<_, TokenError>(TEXT.to_owned()));
    endless.tokeniser = train(Kind::Char, &[], texts).unwrap();
    let error = write(&endless, Format::Gguf(Matrices::F32), &at).unwrap_err().to_string();
    assert!(error.contains("<|endoftext|>"), "{error}");
    assert!(!at.exists());
}

/// What a program without PyTorch can see: the entries, that none is compressed, where they begin, and the pickle.
#[test]
fn pt_is_a_plain_zip_with_a_pickle_of_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("model.pt");
    let made = gpt2(Kind::Byte);
    write(&made, Format::Pt, &at).unwrap();
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&at).unwrap()).unwrap();
    let weights = made.model.parameters().tensors();
    for (number, tensor) in weights.values().enumerate() {
        let mut entry = archive.by_name(&format!("archive/data/{number}")).unwrap();
        assert_eq!(entry.compression(), zip::CompressionMethod::Stored);
        assert_eq!(entry.data_start().unwrap() % 64, 0);
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        let found: Vec<f32> = bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        assert_eq!(found, numbers(tensor));
    }
    let mut pickle = Vec::new();
    std::io::Read::read_to_end(&mut archive.by_name("archive/data.pkl").unwrap(), &mut pickle).unwrap();
    let text = String::from_utf8_lossy(&pickle);
    assert!(pickle.starts_with(&[0x80, 2]) && pickle.ends_with(b"."));
    for name in weights.keys() {
        assert!(text.contains(name.as_str()), "{name}");
    }
    // These are what PyTorch allows under `weights_only`.
    for global in
        ["ctorch._utils\n_rebuild_tensor_v2\n", "ctorch\nFloatStorage\n", "ccollections\nOrderedDict\n"]
    {
        assert!(text.contains(global), "{global:?}");
    }
}
