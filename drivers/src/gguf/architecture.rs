//! The model families that the llama.cpp inside this build runs.
//!
//! A test compares the list with llama.cpp's own source, so that a new release of it shows here.

/// Every architecture that llama.cpp knows, apart from `clip`, which is half a model and cannot run alone.
#[rustfmt::skip]
pub const ARCHITECTURES: &[&str] = &[
    "afmoe", "apertus", "arcee", "arctic", "arwkv7", "baichuan", "bailingmoe", "bailingmoe2", "bailingmoe3",
    "bert", "bitnet", "bloom", "chameleon", "chatglm", "clef", "codeshell", "cogvlm", "cohere2",
    "cohere2moe", "command-r", "dbrx", "deci", "deepseek", "deepseek2", "deepseek2-ocr", "deepseek32",
    "deepseek4", "dflash", "dots1", "dots3note", "dream", "eagle3", "ernie4_5", "ernie4_5-moe", "eurobert",
    "exaone", "exaone-moe", "exaone4", "falcon", "falcon-h1", "gemma", "gemma-embedding", "gemma2",
    "gemma3", "gemma3n", "gemma4", "gemma4-assistant", "glm-dsa", "glm4", "glm4moe", "glm5-next", "gpt-oss",
    "gpt2", "gptj", "gptneox", "granite", "granite_swa", "granitehybrid", "granitemoe", "graniteswitch",
    "grok", "grovemoe", "hrm_text", "hunyuan-dense", "hunyuan-moe", "hunyuan_vl", "hy_v3", "hy_v4",
    "internlm2", "jais", "jais2", "jamba", "jina-bert-v2", "jina-bert-v3", "kimi-k3", "kimi-linear",
    "laguna", "lfm2", "lfm2moe", "llada", "llada-moe", "llama", "llama-embed", "llama4", "maincoder",
    "mamba", "mamba2", "maple", "mellum", "mimo2", "minicpm", "minicpm3", "minimax-01", "minimax-m2",
    "minimax-m3", "mistral3", "mistral4", "modern-bert", "mpt", "muse-glimmer", "nanbeige", "nemotron",
    "nemotron_h", "nemotron_h_moe", "neo-bert", "nomic-bert", "nomic-bert-moe", "olmo", "olmo2", "olmoe",
    "openelm", "orion", "paddleocr", "pangu-embedded", "phi2", "phi3", "phimoe", "plamo", "plamo2",
    "plamo3", "plm", "pockettts", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen35", "qwen35moe",
    "qwen3moe", "qwen3next", "qwen3tts", "qwen3vl", "qwen3vlmoe", "qwen4exp", "refact", "rnd1", "rwkv6",
    "rwkv6qwen2", "rwkv7", "seed_oss", "smallthinker", "smollm3", "spark2_5", "stablelm", "starcoder",
    "starcoder2", "step35", "t5", "t5encoder", "talkie", "wavtokenizer-dec", "xverse",
];

/// Architectures without attention: their head counts are 0.
pub const RECURRENT: &[&str] = &["arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"];

/// Whether llama.cpp has this architecture.
pub fn is_supported(name: &str) -> bool {
    ARCHITECTURES.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The source of llama.cpp that this build compiles, where cargo keeps it on this machine.
    fn llama_cpp_source() -> Option<String> {
        let lock = include_str!("../../../Cargo.lock");
        let (_, after) = lock.split_once("name = \"llama-cpp-sys-2\"\nversion = \"")?;
        let version = after.split('"').next()?;
        let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
        let home =
            home.or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
        let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
        registries
            .filter_map(|entry| {
                let path = entry
                    .ok()?
                    .path()
                    .join(format!("llama-cpp-sys-2-{version}/llama.cpp/src/llama-arch.cpp"));
                std::fs::read_to_string(path).ok()
            })
            .next()
    }

    #[test]
    fn list_of_architectures_is_that_of_llama_cpp() {
        assert!(ARCHITECTURES.is_sorted(), "the list is searched by halves");
        let Some(source) = llama_cpp_source() else { return };
        let table = source.split_once("LLM_ARCH_NAMES = {").unwrap().1.split_once("};").unwrap().0;
        let mut names: Vec<&str> = table.split('"').skip(1).step_by(2).collect();
        names.retain(|name| *name != "clip" && *name != "(unknown)");
        names.sort_unstable();
        assert_eq!(names, ARCHITECTURES);
    }
}
