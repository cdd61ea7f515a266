//! Vocabularies of pieces, which the tokenizers library learns.
//!
//! The pieces are those of the models that made each kind known: BPE as in GPT-2, WordPiece as in BERT, Unigram as in
//! T5. So the file that comes out is read by every program that reads theirs.
//!
//! The same texts give the same vocabulary. The library's trainers keep words and characters in hash tables, whose order is
//! another one each time, and let it decide in places: those are taken from them here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use rayon::ThreadPoolBuilder;
use rayon::iter::{ParallelBridge, ParallelIterator};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::{Template, TemplateProcessing};
use tokenizers::{
    AddedToken, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizer, Tokenizer, Trainer, decoders,
};

use super::Tokeniser;
use super::error::TokenError;
use super::special::Special;
use super::train::Kind;

/// Words, and how often each stands in the texts.
type Counts = BTreeMap<String, u32>;

/// Learns pieces of a kind, behind the special tokens.
///
/// # Errors
///
/// [`TokenError::TooSmall`], or what the library has against it.
pub(super) fn learn(
    kind: Kind,
    special: &[String],
    texts: impl Iterator<Item = String> + Send,
) -> Result<Tokeniser, TokenError> {
    let size = kind.size();
    let least = special.len() + if matches!(kind, Kind::Bpe(_)) { 256 } else { 1 };
    if size < least {
        return Err(TokenError::TooSmall { kind: kind.name(), size, least });
    }
    let added: Vec<AddedToken> = special.iter().map(|token| AddedToken::from(token.clone(), true)).collect();
    let learned = match kind {
        Kind::WordPiece(_) => word_piece(size, added, texts),
        Kind::Unigram(_) => unigram(size, added, texts),
        _ => byte_pairs(size, added, texts),
    };
    // As its file is read: what was just trained can be written in another form than what was loaded, and a run that
    // goes on must find the vocabulary that it began with.
    let json = learned.and_then(|tokeniser| tokeniser.to_string(false));
    let json =
        json.map_err(|error| TokenError::Training { kind: kind.name(), size, why: error.to_string() })?;
    Tokeniser::from_json(&json)
}

fn byte_pairs(
    size: usize,
    special: Vec<AddedToken>,
    texts: impl Iterator<Item = String> + Send,
) -> tokenizers::Result<Tokenizer> {
    let mut tokeniser = Tokenizer::new(BPE::default());
    tokeniser.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokeniser.with_decoder(Some(ByteLevel::default()));
    let trainer = BpeTrainer::builder()
        .vocab_size(size)
        .show_progress(false)
        .special_tokens(special)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokeniser.train(&mut TrainerWrapper::BpeTrainer(trainer), texts)?;
    Ok(tokeniser)
}

fn word_piece(
    size: usize,
    special: Vec<AddedToken>,
    texts: impl Iterator<Item = String> + Send,
) -> tokenizers::Result<Tokenizer> {
    let unknown = special[find_unknown(&special)?].content.clone();
    let mut model = WordPiece::builder().unk_token(unknown).build()?;
    let mut tokeniser = Tokenizer::new(model.clone());
    tokeniser.with_normalizer(Some(NormalizerWrapper::from(BertNormalizer::default())))?;
    tokeniser.with_pre_tokenizer(Some(BertPreTokenizer));
    tokeniser.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
    let mut trainer = WordPieceTrainer::builder().vocab_size(size).show_progress(false).build();
    let inside: Mutex<BTreeSet<char>> = Mutex::default();
    trainer.feed(texts, |text| {
        let words = cut(&tokeniser, text)?;
        let characters = words.iter().flat_map(|word| word.chars().skip(1));
        inside.lock().unwrap_or_else(PoisonError::into_inner).extend(characters);
        Ok(words)
    })?;
    // The trainer numbers a character inside of words when it comes to the first word with it, unless it has its number
    // already; and of pairs that are equally frequent it takes the one with the lower numbers.
    let inside = inside.into_inner().unwrap_or_else(PoisonError::into_inner);
    let numbered = inside.into_iter().map(|character| AddedToken::from(format!("##{character}"), false));
    trainer.set_special_tokens(special.iter().cloned().chain(numbered).collect());
    trainer.train(&mut model)?;
    tokeniser.with_model(model);
    tokeniser.add_special_tokens(special)?;
    frame_with_specials(&mut tokeniser)?;
    Ok(tokeniser)
}

fn unigram(
    size: usize,
    special: Vec<AddedToken>,
    texts: impl Iterator<Item = String> + Send,
) -> tokenizers::Result<Tokenizer> {
    let unknown = find_unknown(&special)?;
    let spaces = || Metaspace::new('\u{2581}', PrependScheme::Always, true);
    let mut tokeniser = Tokenizer::new(Unigram::default());
    tokeniser.with_pre_tokenizer(Some(spaces()));
    tokeniser.with_decoder(Some(spaces()));
    let mut words = counted(&tokeniser, texts)?;
    // A character that pieces of several stand for everywhere loses its own, and the trainer gives it back with a score that
    // goes by the order of a hash table. As a word it keeps its own.
    let characters: BTreeSet<char> = words.keys().flat_map(|word| word.chars()).collect();
    characters.iter().for_each(|character| *words.entry(character.to_string()).or_default() += 1);
    let trainer = UnigramTrainer::builder()
        .vocab_size(size as u32)
        .show_progress(false)
        .special_tokens(special.clone())
        .unk_token(Some(special[unknown].content.clone()))
        .build()
        .map_err(|error| error.to_string())?;
    let (words, mut model) = (words.into_iter().collect(), Unigram::default());
    // The last bits of a sum go by the threads that it is divided over.
    let thread = ThreadPoolBuilder::new().num_threads(1).build()?;
    thread.install(|| trainer.do_train(words, &mut model))?;
    let mut pieces: Vec<(String, f64)> = model.iter().cloned().collect();
    pieces[special.len()..]
        .sort_by(|(piece, score), (other, than)| than.total_cmp(score).then_with(|| piece.cmp(other)));
    tokeniser.with_model(Unigram::from(pieces, Some(unknown), false)?);
    tokeniser.add_special_tokens(special)?;
    Ok(tokeniser)
}

/// Which of the special tokens stands for what the vocabulary lacks.
fn find_unknown(special: &[AddedToken]) -> Result<usize, TokenError> {
    let names = Special::Unknown.names();
    let found = special.iter().position(|token| names.contains(&token.content.as_str()));
    found.ok_or_else(|| Special::Unknown.missing())
}

fn counted(tokeniser: &Tokenizer, texts: impl Iterator<Item = String> + Send) -> tokenizers::Result<Counts> {
    let of_text = |text: String| -> tokenizers::Result<Counts> {
        let mut counts = Counts::new();
        cut(tokeniser, &text)?.into_iter().for_each(|word| *counts.entry(word).or_default() += 1);
        Ok(counts)
    };
    let add = |mut counts: Counts, more: Counts| {
        more.into_iter().for_each(|(word, count)| *counts.entry(word).or_default() += count);
        Ok(counts)
    };
    texts.par_bridge().map(of_text).try_reduce(Counts::new, add)
}

/// The words of a text, as the library cuts texts where it trains.
fn cut(tokeniser: &Tokenizer, text: &str) -> tokenizers::Result<Vec<String>> {
    let mut words = tokeniser.get_added_vocabulary().extract_and_normalize(tokeniser.get_normalizer(), text);
    if let Some(pre_tokeniser) = tokeniser.get_pre_tokenizer() {
        pre_tokeniser.pre_tokenize(&mut words)?;
    }
    let words = words.get_splits(OffsetReferential::Original, OffsetType::None);
    Ok(words.into_iter().map(|(word, _, _)| word.to_owned()).collect())
}

/// `[CLS] text [SEP]`, and `[CLS] text [SEP] text [SEP]` for two texts.
fn frame_with_specials(tokeniser: &mut Tokenizer) -> Result<(), String> {
    let (Some(class), Some(separator)) = (tokeniser.token_to_id("[CLS]"), tokeniser.token_to_id("[SEP]"))
    else {
        return Ok(());
    };
    let pair = Template::try_from("[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")?;
    let framing = TemplateProcessing::builder()
        .try_single("[CLS]:0 $A:0 [SEP]:0")?
        .pair(pair)
        .special_tokens(vec![("[CLS]", class), ("[SEP]", separator)])
        .build()
        .map_err(|error| error.to_string())?;
    tokeniser.with_post_processor(Some(framing));
    Ok(())
}
