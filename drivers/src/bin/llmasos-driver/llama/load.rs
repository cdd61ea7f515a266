//! A file becomes a driver and its description.

use std::path::Path;
use std::sync::{Arc, Once};

use drivers::Driver;
use drivers::gguf;
use drivers::wire::{DriverFault, LoadRequest, ModelDescription};
use llama_cpp_sys_2 as sys;
use syscalls::Errno;
use syscalls::call::Attention;

use super::arithmetic::{self, Arithmetic};
use super::attention;
use super::backends;
use super::blocked;
use super::context::{Context, ContextSettings, UBATCH_TOKENS};
use super::embed::Abilities;
use super::log;
use super::measured::Measured;
use super::model::{Model, ModelSettings};
use super::step::LlamaDriver;
use super::text::LlamaText;

/// Tokens of the pool where the mount does not say: as much as the model was trained with, but not above this.
const CONTEXT_TOKENS_DEFAULT: u32 = 8192;

/// Bytes of KV entries up to which the pool is made larger than one context, where the mount does not say: models
/// with short contexts are small, and room for many of them costs little.
const POOL_BYTES_CHEAP: u64 = 256 << 20;

/// llama.cpp rounds its pool up to a multiple of this.
const POOL_TOKENS_MULTIPLE: u32 = 256;

/// Tokens of one step: four graphs, so that the kernel can fill them from many sequences.
const BATCH_TOKENS: u32 = 2048;

/// Sequences that llama.cpp can tell apart.
const SEQUENCES_MAX: u16 = 256;

/// Sequences that the driver keeps for itself: one, through which pages move.
const SEQUENCES_KEPT: u16 = 1;

static BACKEND: Once = Once::new();

/// Loads a GGUF file.
///
/// # Errors
///
/// ENOENT, EACCES or ENOEXEC where the file is no model that llama.cpp runs; ENOMEM where its pool does not fit;
/// ENODEV where this build does not run on this CPU.
pub fn load(request: &LoadRequest, progress: &mut dyn FnMut(f32)) -> Result<Box<dyn Driver>, DriverFault> {
    let header = gguf::open(Path::new(&request.path))?;
    let measured = Measured::new(request.cache_dir.as_deref());
    let arithmetic = arithmetic::find_out(&measured)?;
    if matches!(request.attention, Attention::Auto | Attention::Blocked)
        && !arithmetic::trusts_blocked(arithmetic, &measured)
    {
        blocked::distrust();
    }
    load_with(request, header, arithmetic, progress)
}

/// Loads a file whose header is sound, with the kernels that this CPU runs.
pub fn load_with(
    request: &LoadRequest,
    header: gguf::Header,
    arithmetic: Arithmetic,
    progress: &mut dyn FnMut(f32),
) -> Result<Box<dyn Driver>, DriverFault> {
    start_backend(arithmetic);
    let measured = Measured::new(request.cache_dir.as_deref());
    let packed = arithmetic == Arithmetic::Packed;
    let settings = ModelSettings { gpu_layers: request.gpu_layers, packed };
    let mut told = 0.0;
    let mut seldom = |fraction: f32| {
        if fraction - told >= 0.05 {
            told = fraction;
            progress(fraction);
        }
    };
    let model = Model::load(&request.path, &settings, &mut seldom)?;
    refuse_unsupported(&model)?;
    let threads = request.threads.unwrap_or_else(physical_cores).clamp(1, 512);
    let abilities = Abilities::of(&model)?;
    if abilities.encoder && !abilities.pools {
        let message =
            "the model is an encoder that does not say how it pools; convert it again with its pooling";
        return Err(DriverFault::new(Errno::ENOEXEC, message));
    }
    let text = LlamaText::new(&model, abilities.encoder)?;
    let mut description = describe(&model, request, &text, abilities);
    description.bytes = header.bytes;
    description.fingerprint = header.fingerprint;
    description.threads = threads;
    let context = if abilities.encoder {
        None
    } else {
        description.attention = attention(&header, request, &description, &measured);
        Some(generating_context(&model, request, &mut description)?)
    };
    Ok(Box::new(LlamaDriver::new(model, context, Arc::new(text), description)))
}

/// Sets llama.cpp up, once in a process.
pub fn start_backend(arithmetic: Arithmetic) {
    BACKEND.call_once(|| {
        log::capture();
        // SAFETY: called once, before anything else of llama.cpp.
        unsafe { sys::llama_backend_init() };
        backends::load(arithmetic);
        blocked::register();
    });
}

/// Models that llama.cpp loads but that this driver has no way to run.
fn refuse_unsupported(model: &Model) -> Result<(), DriverFault> {
    // SAFETY: the model is loaded.
    let (encoder, decoder, diffusion) = unsafe {
        (
            sys::llama_model_has_encoder(model.raw()),
            sys::llama_model_has_decoder(model.raw()),
            sys::llama_model_is_diffusion(model.raw()),
        )
    };
    if encoder && decoder {
        let message = "the llama driver runs no encoder-decoder models; use a decoder or an encoder";
        return Err(DriverFault::new(Errno::ENOEXEC, message));
    }
    if diffusion {
        let message = "the llama driver runs no diffusion models; use a model that generates token by token";
        return Err(DriverFault::new(Errno::ENOEXEC, message));
    }
    Ok(())
}

/// What can be said of a model before its pool is there.
fn describe(
    model: &Model,
    request: &LoadRequest,
    text: &LlamaText,
    abilities: Abilities,
) -> ModelDescription {
    let raw = model.raw();
    // SAFETY: the model is loaded; these read plain fields.
    let (trained, embedding, parameters, ranges) = unsafe {
        let whole = sys::llama_model_is_recurrent(raw)
            || sys::llama_model_is_hybrid(raw)
            || sys::llama_model_n_swa(raw) > 0;
        let trained = sys::llama_model_n_ctx_train(raw).max(1) as u32;
        let embedding = sys::llama_model_n_embd_out(raw).max(0) as u32;
        (trained, embedding, sys::llama_model_n_params(raw), !whole)
    };
    let Abilities { encoder, pools, window } = abilities;
    let name = model.metadata("general.name").filter(|name| !name.is_empty());
    // llama.cpp writes `?B` for sizes that it does not know by name.
    let kind = model.kind().replace(" ?B ", " ");
    ModelDescription {
        driver: "llama".into(),
        architecture: model.metadata("general.architecture").unwrap_or_default(),
        description: name.map_or_else(|| kind.clone(), |name| format!("{name} ({kind})")),
        parameters,
        bytes: 0,
        vocabulary: model.vocabulary_size(),
        context_tokens: if encoder { window } else { context_tokens(model, request, trained) },
        context_trained: trained,
        pool_tokens: window.next_multiple_of(POOL_TOKENS_MULTIPLE),
        batch_tokens: window,
        sequences: sequences(request) - SEQUENCES_KEPT,
        embedding,
        generates: !encoder,
        embeds: pools,
        chat_template: text.chats(),
        any_text: text.is_any(),
        ranges,
        attention: Attention::Plain,
        device: device(request),
        threads: 0,
        ..ModelDescription::default()
    }
}

/// Sequences of llama.cpp's context, those that the driver keeps included.
fn sequences(request: &LoadRequest) -> u16 {
    request.sequences_max.saturating_add(SEQUENCES_KEPT).clamp(1 + SEQUENCES_KEPT, SEQUENCES_MAX)
}

/// Tokens that one context can hold. Models with a learned vector for each position have no more positions than
/// they were trained with; the others may be stretched by who knows what he does.
fn context_tokens(model: &Model, request: &LoadRequest, trained: u32) -> u32 {
    // SAFETY: the model is loaded.
    let stretches = unsafe { sys::llama_model_rope_type(model.raw()) } != sys::LLAMA_ROPE_TYPE_NONE;
    let wanted = request.context_tokens.unwrap_or(trained.min(CONTEXT_TOKENS_DEFAULT)).max(1);
    if wanted <= trained {
        return wanted;
    }
    tracing::warn!("the model was trained with contexts of {trained} tokens; {wanted} are asked for");
    if stretches { wanted } else { trained }
}

/// The attention kernel: the one that is asked for, or what is faster. On graphics devices that is the fused one.
fn attention(
    header: &gguf::Header,
    request: &LoadRequest,
    description: &ModelDescription,
    measured: &Measured,
) -> Attention {
    match request.attention {
        Attention::Auto | Attention::Blocked if description.device != "cpu" => Attention::Flash,
        Attention::Auto => attention::choose(header, measured),
        chosen => chosen,
    }
}

/// Cells of the pool: one context of the size that the mount asks for, or, where it does not say, as many tokens
/// as the default context while they are cheap.
fn pool_tokens(model: &Model, request: &LoadRequest, context_tokens: u32) -> u32 {
    let wanted = request.context_tokens.unwrap_or_else(|| {
        let raw = model.raw();
        // SAFETY: the model is loaded; these read plain fields.
        let [layers, width, heads, shared] = unsafe {
            [
                sys::llama_model_n_layer(raw),
                sys::llama_model_n_embd(raw),
                sys::llama_model_n_head(raw),
                sys::llama_model_n_head_kv(raw),
            ]
        }
        .map(|count| count.max(1) as u64);
        // Keys and values, of two bytes a number.
        let token_bytes = (2 * 2 * layers * width * shared / heads).max(1);
        (POOL_BYTES_CHEAP / token_bytes).min(CONTEXT_TOKENS_DEFAULT.into()) as u32
    });
    wanted.max(context_tokens).next_multiple_of(POOL_TOKENS_MULTIPLE)
}

/// The context of a model that generates; the description learns what it turned out to be.
fn generating_context(
    model: &Arc<Model>,
    request: &LoadRequest,
    description: &mut ModelDescription,
) -> Result<Context, DriverFault> {
    let pool = pool_tokens(model, request, description.context_tokens);
    let sequences = sequences(request);
    let settings = ContextSettings {
        tokens: pool,
        batch_tokens: pool.min(BATCH_TOKENS),
        ubatch_tokens: UBATCH_TOKENS,
        sequences,
        outputs: u32::from(sequences).min(UBATCH_TOKENS),
        threads: description.threads,
        attention: description.attention,
        embeddings: false,
    };
    let context = Context::new(model, &settings)?;
    if context.attention() != description.attention {
        tracing::warn!("the blocked attention kernel does not run here or with these heads; flash does");
        description.attention = context.attention();
    }
    description.pool_tokens = pool;
    description.batch_tokens = settings.batch_tokens;
    Ok(context)
}

/// Where the weights go.
fn device(request: &LoadRequest) -> String {
    // SAFETY: looks into ggml's registry, which answers null for what it does not have.
    let gpu = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_GPU) };
    if gpu.is_null() || request.gpu_layers == Some(0) {
        return "cpu".into();
    }
    // SAFETY: the device is in the registry; its name lives as long.
    let name = unsafe { std::ffi::CStr::from_ptr(sys::ggml_backend_dev_name(gpu)) };
    let name = name.to_string_lossy().to_lowercase();
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
    format!("{kind}:{}", &name[kind.len()..])
}

/// Cores that this process may use, counting those that share one as one: ggml's arithmetic fills a core.
pub fn physical_cores() -> u32 {
    let allowed = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let mut cores = std::collections::BTreeSet::new();
    for cpu in std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten() {
        let read = |file: &str| std::fs::read_to_string(cpu.path().join("topology").join(file)).ok();
        if let (Some(core), Some(package)) = (read("core_id"), read("physical_package_id")) {
            cores.insert((package, core));
        }
    }
    if cores.is_empty() { allowed } else { allowed.min(cores.len() as u32) }
}
