//! A file becomes a driver and its description.

use std::sync::{Arc, Once};

use drivers::Driver;
use drivers::estimate::Estimate;
use drivers::files::{Headers, ModelFiles};
use drivers::gguf;
use drivers::gguf::estimate::{
    CONTEXT_TOKENS_DEFAULT, POOL_TOKENS_MULTIPLE, SEQUENCES_KEPT, cells_alone, sequences,
};
use drivers::wire::{DriverFault, LoadRequest, ModelDescription, PAGE_TOKENS};
use llama_cpp_sys_2 as sys;
use syscalls::Errno;
use syscalls::call::Attention;

use super::accelerator::{self, Kernel};
use super::alone::{self, Alone, BLOCK_TOKENS};
use super::arithmetic::{self, Arithmetic};
use super::attention;
use super::backends;
use super::context::{Context, ContextSettings, UBATCH_TOKENS};
use super::devices;
use super::embed::Abilities;
use super::log;
use super::measured::Measured;
use super::model::{Model, ModelSettings, Packing, Place};
use super::paging;
use super::step::{Generating, LlamaDriver};
use super::swap::Swap;
use super::text::LlamaText;

/// Tokens of one step: four graphs, so that the kernel can fill them from many sequences.
const BATCH_TOKENS: u32 = 2048;

/// Rows that ggml's matrix products on the processor take at a time: a pass of 13 tokens takes as long as one of 16, as
/// `llama-bench -p 13,16` shows. Of graphics devices nothing is claimed here.
const ROW_TILE_CPU: u32 = 4;

/// Tokens of a step that can have output, if there are not more sequences: rows that sample, and guesses. Memory is
/// kept ready for all of them, a row of logits each.
const OUTPUTS_MIN: u32 = 128;

/// What the weights in a file must begin at a multiple of to be mapped where they are; those of other files are read.
const MAPPED_ALIGNMENT: u64 = 32;

static BACKEND: Once = Once::new();

/// Loads a GGUF file.
///
/// # Errors
///
/// ENOENT, EACCES or ENOEXEC where the file is no model that llama.cpp runs; ENOMEM where its pool does not fit;
/// ENODEV where this build does not run on this CPU.
pub fn load(request: &LoadRequest, progress: &mut dyn FnMut(f32)) -> Result<Box<dyn Driver>, DriverFault> {
    let files = ModelFiles::of(request)?;
    let headers = files.headers()?;
    let measured = Measured::new(request.cache_dir.as_deref());
    let arithmetic = arithmetic::find_out(&measured)?;
    let mut wanted = vec![Kernel::Products];
    wanted.extend(
        matches!(request.attention, Attention::Auto | Attention::Blocked).then_some(Kernel::Attention),
    );
    for kernel in wanted.into_iter().filter(|kernel| kernel.is_known()) {
        if !arithmetic::trusts(kernel, arithmetic, &measured) {
            accelerator::distrust(kernel);
        }
    }
    load_with(request, &files, headers, arithmetic, progress)
}

/// Loads files whose headers are sound, with the kernels that this CPU runs.
pub fn load_with(
    request: &LoadRequest,
    files: &ModelFiles,
    Headers { first: header, others }: Headers,
    arithmetic: Arithmetic,
    progress: &mut dyn FnMut(f32),
) -> Result<Box<dyn Driver>, DriverFault> {
    start_backend(arithmetic);
    let swap = Swap::new(request.swap)?;
    let measured = Measured::new(request.cache_dir.as_deref());
    let packing = if arithmetic == Arithmetic::Packed { Packing::Best } else { Packing::None };
    let settings = ModelSettings { gpu_layers: request.gpu_layers, packing };
    let mut told = 0.0;
    let mut seldom = |fraction: f32| {
        if fraction - told >= 0.05 {
            told = fraction;
            progress(fraction);
        }
    };
    let place = Place {
        files,
        mapped: header.data_offset.is_multiple_of(MAPPED_ALIGNMENT),
        devices: &devices::chosen(request)?,
    };
    let model = Model::load_on(&place, &settings, &mut seldom)?;
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
    description.bytes = bytes_of(files)?;
    description.fingerprint = header.fingerprint;
    description.threads = threads;
    let generating = if abilities.encoder {
        None
    } else {
        description.attention = attention(&header, request, &description, &measured);
        if request.deterministic && description.attention == Attention::Blocked {
            // Its sums are grouped by who else is in the pass.
            description.attention = Attention::Flash;
        }
        let estimate = gguf::estimate(&header, &others, request);
        let estimate = estimate.map_err(|error| error.into_fault(files.name()))?;
        let pool = pool_tokens(&estimate, request);
        Some(match request.deterministic {
            true => deterministic_context(&model, pool, &mut description)?,
            false => generating_context(&model, pool, request, &mut description)?,
        })
    };
    Ok(Box::new(LlamaDriver::new(
        model,
        generating,
        swap,
        Arc::new(text),
        description,
        request.deterministic,
    )))
}

/// Sets llama.cpp up, once in a process.
pub fn start_backend(arithmetic: Arithmetic) {
    BACKEND.call_once(|| {
        log::capture();
        // SAFETY: called once, before anything else of llama.cpp.
        unsafe { sys::llama_backend_init() };
        backends::load(arithmetic);
        accelerator::register();
    });
}

fn bytes_of(files: &ModelFiles) -> Result<u64, DriverFault> {
    let unknown = |e| DriverFault::new(Errno::EIO, format!("{} cannot be read: {e}", files.name().display()));
    Ok(files.metadata().map_err(unknown)?.iter().map(std::fs::Metadata::len).sum())
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
    let (trained, embedding, parameters, weights_bytes, ranges) = unsafe {
        let whole = sys::llama_model_is_recurrent(raw)
            || sys::llama_model_is_hybrid(raw)
            || sys::llama_model_n_swa(raw) > 0;
        let trained = sys::llama_model_n_ctx_train(raw).max(1) as u32;
        let embedding = sys::llama_model_n_embd_out(raw).max(0) as u32;
        (trained, embedding, sys::llama_model_n_params(raw), sys::llama_model_size(raw), !whole)
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
        row_tile: if devices::name_for(request) == devices::MAIN_MEMORY { ROW_TILE_CPU } else { 1 },
        sequences: sequences(request) - SEQUENCES_KEPT,
        embedding,
        generates: !encoder,
        embeds: pools,
        chat_template: text.chats(),
        any_text: text.is_any(),
        ranges,
        attention: Attention::Plain,
        device: devices::name_for(request),
        threads: 0,
        drafts: ranges && !encoder,
        weights_bytes,
        ..ModelDescription::default()
    }
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

/// Cells of the pool: what the kernel has found room for, or what the estimate says that the mount wants.
fn pool_tokens(estimate: &Estimate, request: &LoadRequest) -> u32 {
    let tokens = request.pool_tokens.unwrap_or(estimate.pool_tokens);
    tokens.next_multiple_of(POOL_TOKENS_MULTIPLE).max(POOL_TOKENS_MULTIPLE)
}

/// The context of a model that generates; the description learns what it turned out to be.
fn generating_context(
    model: &Arc<Model>,
    pool: u32,
    request: &LoadRequest,
    description: &mut ModelDescription,
) -> Result<Generating, DriverFault> {
    let sequences = sequences(request);
    let settings = ContextSettings {
        tokens: pool,
        batch_tokens: pool.min(BATCH_TOKENS),
        ubatch_tokens: UBATCH_TOKENS,
        sequences,
        outputs: u32::from(sequences).max(OUTPUTS_MIN),
        threads: description.threads,
        attention: description.attention,
        embeddings: false,
    };
    let mut context = Context::new(model, &settings)?;
    if context.attention() != description.attention {
        tracing::warn!("the blocked attention kernel does not run here or with these heads; flash does");
        description.attention = context.attention();
    }
    description.pool_tokens = pool;
    description.batch_tokens = settings.batch_tokens;
    if description.ranges {
        description.page_bytes = paging::page_bytes(&mut context)?;
    }
    let bytes = context.memory_bytes();
    (description.pool_bytes, description.compute_bytes) = (bytes.pool, bytes.compute);
    Ok(Generating { context, settings, alone: None })
}

/// As [`generating_context`], of a model whose mount is deterministic.
fn deterministic_context(
    model: &Arc<Model>,
    pool: u32,
    description: &mut ModelDescription,
) -> Result<Generating, DriverFault> {
    if !description.ranges {
        let message =
            "this model keeps or loses whole sequences, and cannot be deterministic; mount it without";
        return Err(DriverFault::new(Errno::ENOSYS, message));
    }
    let settings = ContextSettings {
        tokens: cells_alone(description.context_tokens),
        batch_tokens: BLOCK_TOKENS,
        ubatch_tokens: BLOCK_TOKENS,
        sequences: alone::SEQUENCES,
        outputs: BLOCK_TOKENS,
        threads: description.threads,
        attention: description.attention,
        embeddings: false,
    };
    let mut context = Context::new(model, &settings)?;
    description.pool_tokens = pool;
    description.batch_tokens = pool.min(BATCH_TOKENS);
    description.page_bytes =
        paging::page_bytes(&mut context)? + u64::from(PAGE_TOKENS) * size_of::<u32>() as u64;
    let bytes = context.memory_bytes();
    description.pool_bytes = u64::from(pool / PAGE_TOKENS) * description.page_bytes;
    description.compute_bytes = bytes.pool + bytes.compute;
    let alone = Some(Alone::new(description.sequences));
    Ok(Generating { context, settings, alone })
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
