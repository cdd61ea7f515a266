//! From a specification to everything that a run needs: vocabulary, data, model and optimiser.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;
use sha2::{Digest, Sha256};

use super::counts::Counts;
use super::error::RunError;
use super::evaluate::check_targets;
use super::free;
use super::lock::Lock;
use super::memory::{self, Memory};
use super::sample::sample;
use crate::checkpoint::{Checkpoint, CheckpointError, Fits, Folder, RunState};
use crate::data::{Collator, Examples, Order, Position, Reading, Search, Split, Task, TokenFile, prepare};
use crate::import::Pretrained;
use crate::models::build_at;
use crate::optim::{Optimiser, Schedule, State};
use crate::parameters::Place;
use crate::ranks::{Group, Mesh, Team, agree, together};
use crate::spec::{
    ModelSpec, PrecisionSpec, SampleSpec, TokeniserKind, TrainSpec, TuneSpec, ValidationSpec, classes_of,
};
use crate::token::{Family, Kind, Tokeniser, train, usual};
use crate::{Criterion, Model, ModelConfig};

/// Tokens of a vocabulary that is learned where the specification does not say.
const VOCABULARY: u32 = 8192;

/// Everything that a run needs.
pub struct Setup {
    pub spec: TrainSpec,
    pub tokeniser: Tokeniser,
    pub config: ModelConfig,
    pub model: Box<dyn Model>,
    pub optimiser: Box<dyn Optimiser>,
    /// What it does together with other ranks.
    pub team: Team,
    pub schedule: Schedule,
    pub criterion: Criterion,
    pub train: Collator,
    pub validation: Option<Collator>,
    pub memory: Memory,
    /// Steps in all.
    pub steps: u64,
    /// Where it goes on, if it was stopped before.
    pub resumed: Option<Checkpoint>,
    /// What was passed over on the way to it.
    pub passed: Vec<CheckpointError>,
    /// Where its data go on.
    pub position: Position,
    /// What must be the same for a run to go on.
    pub fits: Fits,
    /// Parameters of a trained model that its weights say nothing about: a head that is new.
    pub fresh: Vec<String>,
    /// The lock on the run's folder, on the rank that leads, where it goes on.
    pub lock: Option<Lock>,
}

impl Setup {
    /// Prepares a run. With `resume` it goes on from the newest checkpoint in its folder.
    ///
    /// # Errors
    ///
    /// Whatever keeps the run from beginning, before the first step.
    pub fn new(spec: &TrainSpec, cache: &Path, resume: bool) -> Result<Setup, RunError> {
        Setup::on(Mesh::alone(), spec, cache, resume)
    }

    /// Prepares one rank's part of a run. All ranks must see the data and the run's folder under the same paths.
    ///
    /// # Errors
    ///
    /// Whatever keeps the run from beginning, before the first step.
    pub fn on(mesh: Arc<Mesh>, spec: &TrainSpec, cache: &Path, resume: bool) -> Result<Setup, RunError> {
        let group = mesh.clone();
        let world = group.world();
        agreed(world, spec.check())?;
        agree(&mesh, spec)?;
        let task = agreed(world, task(spec))?;
        let folder = Folder::of(&spec.out);
        let lock = match resume && mesh.leads() && spec.out.is_dir() {
            true => Lock::take(&spec.out).map(Some),
            false => Ok(None),
        };
        let lock = agreed(world, lock)?;
        let (resumed, passed) = agreed(
            world,
            match resume {
                true => folder.newest().map(|(checkpoint, passed)| (Some(checkpoint), passed)),
                false => Ok((None, Vec::new())),
            },
        )?;
        agreed(world, same(&mesh, resumed.as_ref(), &spec.out))?;
        let search = Search::from_environment(cache);
        let train_files = in_turn(&mesh, || spec.data.train.files(Split::Train, &search))?;
        let tokeniser = match &resumed {
            Some(checkpoint) => agreed(world, Tokeniser::from_json(&checkpoint.tokeniser))?,
            None => first(&mesh, || tokeniser(spec, &train_files))?,
        };
        let (targets, ignore) = (task.targets(), spec.loss.ignore().cloned());
        let mut known = agreed(world, spec.model.classes(&task))?;
        if let Some(checkpoint) = resumed.as_ref().filter(|_| !known.is_empty()) {
            known = classes_of(&checkpoint.config, &task);
        }
        let reading = &Reading { length: task.length(), targets, ignore, known };
        let tokens = in_turn(&mesh, || prepare(&spec.data.train, &train_files, &tokeniser, reading, cache))?;
        let labels = &tokens.about().labels;
        let criterion = agreed(world, spec.loss.criterion(labels))?;
        let config = agreed(world, spec.model.config(&tokeniser, &task, labels))?;
        let other = match &spec.data.validation {
            ValidationSpec::From(source) => {
                let files = in_turn(&mesh, || source.files(Split::Validation, &search))?;
                // Some classes may be rare.
                let reading = &Reading { known: labels.clone(), ..reading.clone() };
                Some(in_turn(&mesh, || prepare(source, &files, &tokeniser, reading, cache))?)
            }
            _ => None,
        };
        let (train, validation) = agreed(world, examples(spec, &task, tokens, other))?;
        let (memory, model, fresh) =
            agreed(world, place(&mesh, spec).and_then(|place| model(&place, spec, &config, &task)))?;
        let mut optimiser = spec.optimiser.build();
        let fits = fits(spec, &tokeniser, &train, validation.as_ref());
        let mut position = Position::default();
        if let Some(checkpoint) = &resumed {
            let checked = checkpoint.check(&config, &fits, folder.path()).map_err(RunError::from);
            agreed(world, checked.and_then(|()| restore_weights(checkpoint, model.as_ref(), &folder)))?;
            position = agreed(world, position_of(&checkpoint.state, &fits, &train, spec))?;
        }
        let team = Team::new(mesh, spec.ranks.plans(), model.parameters())?;
        if let Some(checkpoint) = &resumed {
            let state = State { step: checkpoint.optimiser_step, tensors: checkpoint.optimiser.clone() };
            let loaded = team.load_state(optimiser.as_mut(), model.parameters(), &state);
            agreed(world, loaded)?;
        }
        agreed(world, try_sample(spec, model.as_ref(), &team, &tokeniser))?;
        let each = (spec.batch * spec.accumulate) as f64;
        let steps = match (spec.steps, spec.epochs) {
            (Some(steps), _) => steps,
            (None, epochs) => (epochs.unwrap_or(1.0) * train.count(0) as f64 / each).ceil().max(1.0) as u64,
        };
        let collator =
            |examples| Collator::new(examples, &tokeniser).map(|all| all.packed(spec.data.packing));
        let validation = validation.map(collator).transpose()?;
        if let Some(data) = &validation {
            agreed(world, check_targets(data, spec.batch, spec.evaluation.batches))?;
        }
        Ok(Setup {
            schedule: spec.schedule.build(spec.optimiser.rate(), steps),
            criterion,
            train: collator(train)?,
            validation,
            spec: spec.clone(),
            tokeniser,
            config,
            model,
            optimiser,
            team,
            memory,
            steps,
            resumed,
            passed,
            position,
            fits,
            fresh,
            lock,
        })
    }
}

/// Writes one token of a sample, so that a prompt or a model that texts cannot be written with is refused before the first
/// step and not at the first sample.
fn try_sample(
    spec: &TrainSpec,
    model: &dyn Model,
    team: &Team,
    tokeniser: &Tokeniser,
) -> Result<(), RunError> {
    if spec.samples.every == 0 {
        return Ok(());
    }
    let one = SampleSpec { tokens: 1, ..spec.samples.clone() };
    let written = sample(model, team, tokeniser, &one, spec.seed);
    written.map(drop).map_err(|error| RunError::Unfit(format!("`samples` cannot be written: {error}")))
}

fn fits(spec: &TrainSpec, tokeniser: &Tokeniser, train: &Examples, validation: Option<&Examples>) -> Fits {
    Fits {
        data: train.digest(),
        validation: validation.map(Examples::digest).unwrap_or_default(),
        optimiser: spec.optimiser.name().into(),
        precision: format!("{:?}", spec.precision),
        tokeniser: tokeniser.digest().into(),
        seed: spec.seed,
    }
}

/// Where the data go on: where the checkpoint says, in the data that it was made with. Others, if they are meant, begin
/// with an epoch of their own.
fn position_of(
    state: &RunState,
    fits: &Fits,
    train: &Examples,
    spec: &TrainSpec,
) -> Result<Position, RunError> {
    let position = state.position;
    // Checkpoints that say nothing of their data can only be asked whether the position is there.
    let same = match state.fits.data.is_empty() {
        true => position.place < train.count(position.epoch),
        false => state.fits.data == fits.data,
    };
    match (same, spec.data.changed) {
        (true, _) => Ok(position),
        (false, true) => Ok(Position { epoch: position.epoch + 1, place: 0, ..position }),
        (false, false) => Err(RunError::OtherData {
            path: spec.out.clone(),
            why: format!(
                "the run was trained for {} steps on other training data than `data.train` now gives, or with rows or an \
                 order of them that are others",
                state.step
            ),
        }),
    }
}

/// What the run's model learns, where it can over these ranks.
fn task(spec: &TrainSpec) -> Result<Task, RunError> {
    let task = spec.task()?;
    let parts = spec.ranks.plans().micro_batches;
    if matches!(task, Task::Similar { .. }) && parts > 1 {
        return Err(RunError::Unfit(format!(
            "pairs of texts are compared with all others of their batch, so it cannot be computed in {parts} parts \
             one after another; set `ranks.micro_batches` to 1"
        )));
    }
    Ok(task)
}

/// The examples that are trained on, and those that are not, which may be of a file of their own.
fn examples(
    spec: &TrainSpec,
    task: &Task,
    tokens: Arc<TokenFile>,
    other: Option<Arc<TokenFile>>,
) -> Result<(Examples, Option<Examples>), RunError> {
    let all = Examples::new(tokens.clone(), task.clone(), spec.data.order, spec.seed)?;
    if let Some(other) = other {
        check_labels(&tokens, &other)?;
        return Ok((all, Some(Examples::new(other, task.clone(), Order::Sequential, spec.seed)?)));
    }
    match spec.data.validation {
        ValidationSpec::Share(share) => Ok(all.split(share).map(|(train, rest)| (train, Some(rest)))?),
        _ => Ok((all, None)),
    }
}

/// Refuses another checkpoint than that of the rank that leads: on machines that have a folder each under the path of the
/// run's, ranks would go on from different weights, or some of them begin anew.
fn same(mesh: &Mesh, resumed: Option<&Checkpoint>, out: &Path) -> Result<(), RunError> {
    if mesh.is_alone() {
        return Ok(());
    }
    let digest = |checkpoint: &Checkpoint| {
        let state = serde_json::to_vec(&checkpoint.state).expect("a state has a form in JSON");
        Sha256::digest(state).to_vec()
    };
    let own = resumed.map(digest).unwrap_or_default();
    let mut first = own.clone();
    mesh.world().broadcast(&mut first, 0)?;
    if own == first {
        return Ok(());
    }
    let found =
        resumed.map_or_else(|| "none".to_owned(), |found| format!("that of step {}", found.state.step));
    Err(RunError::Unfit(format!(
        "{}: of its checkpoints this rank goes on from {found}, and the first rank from another; give all ranks the same folder \
         under this path",
        out.display()
    )))
}

/// Has all ranks refuse what one of them refuses, as [`together`].
fn agreed<T, E>(world: &dyn Group, done: Result<T, E>) -> Result<T, RunError>
where
    RunError: From<E>,
{
    together(world, done.map_err(RunError::from))
}

/// Has one rank learn the vocabulary, and gives it to all.
fn first(mesh: &Mesh, make: impl FnOnce() -> Result<Tokeniser, RunError>) -> Result<Tokeniser, RunError> {
    if mesh.is_alone() {
        return make();
    }
    let learned = || Ok::<_, RunError>(make()?.to_json()?.into_bytes());
    let mut text = agreed(mesh.world(), if mesh.leads() { learned() } else { Ok(Vec::new()) })?;
    mesh.world().broadcast(&mut text, 0)?;
    Ok(Tokeniser::from_json(&String::from_utf8_lossy(&text))?)
}

/// Has one rank do what the others then find done in the cache.
fn in_turn<T, E>(mesh: &Mesh, make: impl FnOnce() -> Result<T, E>) -> Result<T, RunError>
where
    RunError: From<E>,
{
    let mut make = Some(make);
    let mut made = None;
    for leads in [true, false] {
        let now = make.take_if(|_| mesh.leads() == leads).map(|make| make());
        made = agreed(mesh.world(), now.transpose())?.or(made);
    }
    Ok(made.expect("every rank has its turn"))
}

/// The vocabulary that the specification names, or learns.
fn tokeniser(spec: &TrainSpec, files: &[PathBuf]) -> Result<Tokeniser, RunError> {
    let family = spec.model.family()?;
    let kind = match (&spec.tokeniser.kind, &spec.model) {
        (TokeniserKind::Load(path), _) if path.extension().is_none_or(|ending| ending != "gguf") => {
            return Ok(Tokeniser::load(path)?);
        }
        (TokeniserKind::Load(path), _) | (TokeniserKind::Usual, ModelSpec::Pretrained(path)) => {
            return Ok(Pretrained::open(path)?.tokeniser()?);
        }
        (TokeniserKind::Train(_), ModelSpec::Pretrained(path)) => {
            return Err(RunError::Unfit(format!(
                "`tokeniser` learns a vocabulary, and {} was trained with one in which other tokens have these numbers; leave \
                 `tokeniser` out",
                path.display()
            )));
        }
        (TokeniserKind::Train(kind), _) => *kind,
        (TokeniserKind::Usual, _) => match family {
            Family::Decoder => Kind::Bpe(VOCABULARY),
            Family::Encoder => Kind::WordPiece(VOCABULARY),
            Family::EncoderDecoder => Kind::Unigram(VOCABULARY),
        },
    };
    let special = match &spec.tokeniser.special {
        Some(special) => special.clone(),
        None => usual(family).iter().map(|token| (*token).to_owned()).collect(),
    };
    let records = spec.data.train.records(files)?;
    let texts = records.flat_map(|marked| match marked {
        Ok(marked) => marked.record.into_texts().map(Ok).collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    });
    Ok(train(kind, &special, texts)?)
}

fn check_labels(train: &TokenFile, other: &TokenFile) -> Result<(), RunError> {
    let (ours, theirs) = (&train.about().labels, &other.about().labels);
    match ours == theirs {
        true => Ok(()),
        false => Err(RunError::Unfit(format!(
            "the training data have the labels {} and the validation data {}; the latter must have no others",
            ours.join(", "),
            theirs.join(", ")
        ))),
    }
}

/// A model with what it takes of memory, and those of its parameters that are new.
type Built = (Memory, Box<dyn Model>, Vec<String>);

/// Where this rank has its part of the model. Each of a machine's ranks has a card of its own.
fn place(mesh: &Arc<Mesh>, spec: &TrainSpec) -> Result<Place, RunError> {
    let rank = mesh.world().rank() % mesh.world().here();
    Ok(Place::of(mesh, spec.device.open(rank)?))
}

/// Builds the model, if there is memory for the run, and fills in what was trained before.
fn model(place: &Place, spec: &TrainSpec, config: &ModelConfig, task: &Task) -> Result<Built, RunError> {
    let mesh = &place.mesh;
    let of = |counts| Memory::of(spec, config, task, (mesh.layout(), place.kernels), counts);
    let whole = memory::whole(config, mesh.layout());
    // How much of a model is trained that is tuned in part is known when it is there, for which its weights must fit.
    let all = spec.tune == TuneSpec::All;
    let mut memory = of(if all { whole } else { Counts { trained: 0, ..whole } });
    let free = match spec.memory_mib {
        Some(mib) => mib << 20,
        None => free::on(&place.device, mesh.world().here() as u64),
    };
    memory.check(free, spec.recompute)?;
    let dtype = match spec.precision {
        PrecisionSpec::F32 | PrecisionSpec::Bf16 => DType::F32,
        PrecisionSpec::F64 => DType::F64,
    };
    let mut model = build_at(place, config, dtype, spec.seed)?;
    let mut fresh = Vec::new();
    if let ModelSpec::Pretrained(path) = &spec.model {
        let tensors = Pretrained::open(path)?.weights()?;
        fresh = model.parameters().load(&tensors)?.missing;
        // A head that is new is trained from the beginning; a body that is missing would be noise.
        let body: Vec<&String> = fresh.iter().filter(|name| !config.is_head(name)).collect();
        if let [first, more @ ..] = body.as_slice() {
            return Err(RunError::Unfit(format!(
                "{}: its weights have none for `{first}` and {} more; a file of them is missing, or it is another model \
                 than its configuration says",
                path.display(),
                more.len()
            )));
        }
    }
    spec.tune.apply(model.as_mut())?;
    spec.optimiser.group(model.parameters_mut())?;
    if !all {
        memory = of(Counts::of(model.parameters()));
        memory.check(free, spec.recompute)?;
    }
    Ok((memory, model, fresh))
}

/// Puts a checkpoint's weights into a model.
fn restore_weights(checkpoint: &Checkpoint, model: &dyn Model, folder: &Folder) -> Result<(), RunError> {
    let bad = |why: String| CheckpointError::Tensors { path: folder.path().to_owned(), why };
    let loaded = model.parameters().load(&checkpoint.weights)?;
    // Stages of a pipeline have a part of them each.
    let whole = model.parameters().mesh().layout().pipeline == 1;
    let unexpected = loaded.unexpected.first().filter(|_| whole);
    if let Some(name) = loaded.missing.first().or(unexpected) {
        return Err(bad(format!("tensor `{name}` is in one of checkpoint and model, and not in both")).into());
    }
    Ok(())
}
