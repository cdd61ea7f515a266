//! Words that end in a full stop without ending a sentence, and words that begin one.
//!
//! The lists are of the languages together: an abbreviation of one is hardly ever the last word of a sentence in
//! another. All are lower case and without their last full stop.

/// Never the end of a sentence: something always follows.
const BEFORE_A_WORD: &[&str] = &[
    // English
    "mr", "mrs", "ms", "mx", "dr", "prof", "rev", "hon", "gen", "col", "capt", "cpt", "lt", "sgt", "maj",
    "cmdr", "adm", "gov", "sen", "rep", "pres", "supt", "st", "mt", "messrs", "mmes", "vs", "e.g", "i.e",
    "cf", "viz", "approx", "ca", "circa", "esp", "incl", "eds", "resp", "dept", // German
    "z.b", "d.h", "d.i", "u.u", "i.d.r", "v.a", "o.g", "s.o", "s.u", "bzw", "bspw", "evtl", "ggf", "vgl",
    "sog", "inkl", "exkl", "zzgl", "zw", "hl", "hr", "fr", "frl", "dipl", "ing", "stellv", "insb", "geb",
    "gest", "verh", "vorm", "ehem", "urspr", "lat", "griech", "engl", "frz", "dt", // French
    "mme", "mlle", "mgr", "p.ex", "c.-à-d", "av", "apr", // Spanish, Portuguese, Italian
    "sra", "srta", "dra", "ud", "uds", "p.ej", "dña", "exmo", "sig", "sigg", "dott", "avv", "egr",
    // Dutch, Scandinavian
    "dhr", "mevr", "bijv", "d.w.z", "f.eks", "bl.a", "t.ex", "dvs", // Slavic
    "т.е", "г-н", "г-жа", "ул", "np", "tzn", "tj", "napr", "např",
];

/// The end of a sentence only where the next word can begin one.
const BEFORE_OR_LAST: &[&str] = &[
    "etc", "inc", "ltd", "co", "corp", "bros", "jr", "sr", "u.s", "u.k", "u.n", "a.m", "p.m", "ph.d", "m.d",
    "b.a", "m.a", "b.c", "a.d", "al", "ed", "est", "usw", "usf", "u.a", "u.ä", "o.ä", "o.a", "n.chr",
    "v.chr", "chr", "mio", "mrd", "tel", "str", "jh", "jhd", "jhdt", "ecc", "enz", "т.д", "т.п", "др", "гг",
    "jan", "feb", "apr", "aug", "sep", "sept", "oct", "okt", "nov", "dec", "dez",
];

/// Not the end of a sentence where a number follows.
const BEFORE_A_NUMBER: &[&str] = &[
    "no", "nos", "nr", "num", "núm", "p", "pp", "s", "vol", "bd", "fig", "figs", "abb", "tab", "eq", "sec",
    "sect", "ch", "chap", "kap", "art", "abs", "ziff", "anm", "op", "ver", "v", "n", "№", "стр", "рис",
];

/// Words that begin a sentence when they are written large, in the languages that the lists above cover.
const STARTERS: &[&str] = &[
    // English
    "the", "this", "that", "these", "those", "he", "she", "it", "we", "they", "you", "i", "in", "on", "at",
    "but", "and", "however", "if", "when", "while", "there", "after", "before", "as", "for", "his", "her",
    "its", "their", "our", "my", "a", "an", "what", "who", "why", "how", "where", "so", "then", "although",
    "since", "no", "not", "yes", "both", "many", "most", "some", "such", "with", "by", "from",
    "to", // German
    "der", "die", "das", "ein", "eine", "er", "sie", "es", "wir", "ihr", "ich", "im", "am", "auf", "aber",
    "und", "doch", "wenn", "als", "da", "dann", "dies", "diese", "dieser", "dieses", "nach", "vor", "mit",
    "bei", "für", "zu", "auch", "was", "wer", "wie", "wo", "warum", "man", "dabei", "damit", "dort", "hier",
    "jedoch", "nicht", // French, Spanish, Italian, Portuguese, Dutch
    "le", "la", "les", "un", "une", "il", "elle", "ils", "elles", "nous", "vous", "je", "ce", "cette", "ces",
    "mais", "et", "dans", "en", "pour", "el", "los", "las", "una", "pero", "y", "lo", "gli", "nel", "ma",
    "o", "os", "as", "um", "uma", "mas", "de", "het", "een", "maar",
];

/// Languages that write ordinal numbers with a full stop: the 3. of March.
const ORDINAL_LANGUAGES: &[&str] = &[
    "de", "da", "no", "nb", "nn", "fi", "et", "lv", "cs", "sk", "pl", "hu", "hr", "sr", "sl", "bs", "is",
    "tr",
];

/// Whether the full stop behind `word` leaves the sentence open. `next` is the word that follows, and `language`
/// the code of the text's language where it is known.
pub fn leaves_open(word: &str, next: &str, language: Option<&str>) -> bool {
    let Some(stem) = word.strip_suffix('.') else { return false };
    if stem.is_empty() || stem.ends_with('.') {
        return false;
    }
    let lower = stem.to_lowercase();
    let next_starts = STARTERS.contains(&next.to_lowercase().as_str());
    if BEFORE_A_WORD.contains(&lower.as_str()) || language == Some("fr") && lower == "m" {
        return true;
    }
    if BEFORE_A_NUMBER.contains(&lower.as_str()) && next.starts_with(|c: char| c.is_numeric()) {
        return true;
    }
    if BEFORE_OR_LAST.contains(&lower.as_str()) || is_initials(stem) {
        return !next_starts;
    }
    is_ordinal(stem) && language.is_some_and(|l| ORDINAL_LANGUAGES.contains(&l)) && !next_starts
}

/// Single letters with full stops between them: J, z.B, U.S.A.
fn is_initials(stem: &str) -> bool {
    stem.split('.').all(|part| {
        let mut chars = part.chars();
        matches!((chars.next(), chars.next()), (Some(c), None) if c.is_alphabetic() && part.len() <= 2)
    })
}

fn is_ordinal(stem: &str) -> bool {
    stem.len() <= 2 && stem.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a stretch of text is no more than the number or letter of a list item.
pub fn is_list_marker(text: &str) -> bool {
    let text = text.trim().trim_start_matches(['(', '[']);
    let Some(stem) = text.strip_suffix(['.', ')', ']']) else { return false };
    let short = stem.chars().count() <= 5;
    let number = stem.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let roman = !stem.is_empty() && stem.bytes().all(|b| b"IVXivx".contains(&b));
    short && (number || roman)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_lower_case_without_a_last_full_stop() {
        for list in [BEFORE_A_WORD, BEFORE_OR_LAST, BEFORE_A_NUMBER, STARTERS] {
            for word in list {
                assert_eq!(*word, word.to_lowercase(), "{word}");
            }
        }
    }

    #[test]
    fn list_markers_are_known() {
        for marker in ["1.", "12)", "(3)", "iv.", "2.1."] {
            assert!(is_list_marker(marker), "{marker}");
        }
        for text in ["Yes.", "1984 was cold.", "", "."] {
            assert!(!is_list_marker(text), "{text}");
        }
    }
}
