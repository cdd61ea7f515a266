//! Function words: they stand in every sentence and in every question, and tell none from another.

use super::language::Language;

const ENGLISH: &[&str] = &[
    "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by",
    "can", "could", "did", "do", "does", "during", "each", "for", "from", "had", "has", "have", "he", "her",
    "his", "how", "if", "in", "into", "is", "it", "its", "itself", "many", "may", "more", "most", "much",
    "no", "not", "of", "on", "one", "only", "or", "other", "our", "she", "should", "so", "some", "such",
    "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those", "through",
    "to", "under", "up", "us", "was", "we", "were", "what", "when", "where", "which", "while", "who", "whom",
    "whose", "why", "will", "with", "would", "you", "your", "i", "me", "my", "name", "don't", "doesn't",
    "isn't",
];

const GERMAN: &[&str] = &[
    "aber", "alle", "als", "am", "an", "auch", "auf", "aus", "bei", "bis", "da", "dann", "das", "dass",
    "dem", "den", "denen", "der", "deren", "des", "dessen", "dies", "diese", "diesem", "diesen", "dieser",
    "dieses", "durch", "ein", "eine", "einem", "einen", "einer", "eines", "er", "es", "für", "gab", "gibt",
    "haben", "hat", "hatte", "hatten", "ihm", "ihr", "ihre", "ihrem", "ihren", "ihrer", "im", "ist", "kann",
    "können", "konnte", "man", "mit", "nach", "nicht", "noch", "nur", "ob", "oder", "ohne", "sein", "seine",
    "seinem", "seinen", "seiner", "sich", "sie", "sind", "und", "unter", "um", "viel", "viele", "vielen",
    "vom", "von", "vor", "wann", "war", "waren", "warum", "was", "welche", "welchem", "welchen", "welcher",
    "welches", "wem", "wen", "wenn", "wer", "werden", "wessen", "wie", "wieso", "wird", "wo", "wobei",
    "wodurch", "wofür", "woher", "wohin", "womit", "woran", "worden", "wozu", "wurde", "wurden", "zu", "zum",
    "zur", "über", "die", "daß", "sowie", "bereits", "wieviel", "dort", "damit", "dabei", "etwa", "mehr",
    "sehr", "so", "ab", "je", "zwischen", "während", "gegen", "seit", "statt", "werde",
];

const FRENCH: &[&str] = &[
    "au", "aux", "avec", "ce", "ces", "cette", "comment", "combien", "dans", "de", "du", "elle", "en", "est",
    "et", "il", "ils", "la", "le", "les", "leur", "mais", "ne", "nous", "ou", "où", "par", "pas", "pour",
    "pourquoi", "quand", "que", "quel", "quelle", "quelles", "quels", "qui", "quoi", "sa", "ses", "son",
    "sont", "sur", "un", "une", "vous", "été", "était", "être", "l", "d", "qu", "a", "à", "se", "avait",
    "ont", "plus", "comme", "aussi", "fut", "cela", "dont", "lors", "entre", "y", "on", "je",
];

const SPANISH: &[&str] = &[
    "a", "al", "como", "con", "cuando", "cuándo", "cuál", "cuáles", "cuánto", "cuántos", "cuántas", "cómo",
    "de", "del", "donde", "dónde", "e", "el", "ella", "ellos", "en", "entre", "era", "es", "esta", "este",
    "esto", "está", "están", "fue", "fueron", "ha", "había", "han", "hay", "la", "las", "le", "les", "lo",
    "los", "más", "no", "nos", "o", "para", "pero", "por", "porque", "qué", "que", "quién", "quiénes", "se",
    "ser", "si", "sin", "sobre", "son", "su", "sus", "también", "un", "una", "uno", "unos", "y", "ya",
];

const ITALIAN: &[&str] = &[
    "a", "ai", "al", "alla", "alle", "anche", "che", "chi", "ci", "come", "con", "cosa", "da", "dal",
    "dalla", "dei", "del", "della", "delle", "di", "dove", "e", "ed", "era", "erano", "fu", "gli", "ha",
    "hanno", "i", "il", "in", "io", "l", "la", "le", "lo", "ma", "nei", "nel", "nella", "non", "o", "per",
    "perché", "più", "qual", "quale", "quali", "quando", "quanti", "quanto", "se", "si", "sono", "su", "sua",
    "suo", "un", "una", "uno", "è",
];

const PORTUGUESE: &[&str] = &[
    "a", "ao", "as", "com", "como", "da", "das", "de", "do", "dos", "e", "ela", "ele", "em", "entre", "era",
    "foi", "foram", "há", "mais", "mas", "na", "nas", "no", "nos", "não", "o", "onde", "os", "ou", "para",
    "pela", "pelo", "por", "porque", "qual", "quais", "quando", "quantos", "que", "quem", "se", "sem", "ser",
    "seu", "sua", "são", "também", "um", "uma", "é",
];

const DUTCH: &[&str] = &[
    "een", "het", "hoe", "hoeveel", "ik", "in", "is", "met", "naar", "niet", "of", "ook", "op", "te", "uit",
    "van", "voor", "waar", "waarom", "wanneer", "wat", "welk", "welke", "wie", "werd", "zijn", "de", "en",
    "aan", "als", "bij", "dan", "dat", "deze", "die", "dit", "door", "er", "haar", "had", "heeft", "hij",
    "hun", "kan", "maar", "meer", "om", "over", "wordt", "worden", "zich", "ze", "zo",
];

const RUSSIAN: &[&str] = &[
    "в",
    "где",
    "для",
    "и",
    "из",
    "как",
    "какая",
    "какие",
    "какой",
    "когда",
    "кто",
    "на",
    "не",
    "но",
    "о",
    "от",
    "по",
    "почему",
    "с",
    "сколько",
    "то",
    "у",
    "что",
    "это",
    "был",
    "была",
    "были",
    "а",
    "бы",
    "было",
    "быть",
    "во",
    "вы",
    "да",
    "до",
    "если",
    "есть",
    "же",
    "за",
    "или",
    "их",
    "ко",
    "ли",
    "мы",
    "над",
    "об",
    "он",
    "она",
    "они",
    "при",
    "со",
    "так",
    "там",
    "тем",
    "того",
    "только",
    "ты",
    "чем",
    "я",
];

// Pairs of characters, since that is what terms are there.
const CHINESE: &[&str] = &[
    "什么", "哪个", "哪些", "哪里", "怎么", "怎样", "多少", "为什", "如何", "是什", "谁是", "何时", "是谁",
    "是哪", "在哪", "一个", "这个", "那个", "他们", "我们", "可以", "以及", "因为", "所以",
];

const JAPANESE: &[&str] = &[
    "ます",
    "です",
    "した",
    "して",
    "という",
    "ない",
    "いる",
    "この",
    "その",
    "どの",
    "なに",
    "いつ",
    "どこ",
    "だれ",
];

/// The function words of a language, in lower case; those of English where the language is not known.
pub fn of(language: Option<Language>) -> &'static [&'static str] {
    match language.map(Language::code) {
        None | Some("en") => ENGLISH,
        Some("de") => GERMAN,
        Some("fr") => FRENCH,
        Some("es") => SPANISH,
        Some("it") => ITALIAN,
        Some("pt") => PORTUGUESE,
        Some("nl") => DUTCH,
        Some("ru") => RUSSIAN,
        Some("zh") => CHINESE,
        Some("ja") => JAPANESE,
        Some(_) => &[],
    }
}
