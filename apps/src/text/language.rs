//! Languages by any name that people use for them, and a guess of a text's language.

use std::fmt;

use syscalls::call::nearest;

/// The guess reads no more than this: it is as sure of the beginning as of the whole.
const GUESS_BYTES: usize = 4 << 10;

/// Names that the table of ISO 639 has under another one, and variants that are languages to people.
const ALIASES: &[(&str, &str)] = &[
    ("greek", "el"),
    ("farsi", "fa"),
    ("mandarin", "zh"),
    ("flemish", "nl-BE"),
    ("simplified chinese", "zh-Hans"),
    ("chinese simplified", "zh-Hans"),
    ("简体中文", "zh-Hans"),
    ("简体", "zh-Hans"),
    ("traditional chinese", "zh-Hant"),
    ("chinese traditional", "zh-Hant"),
    ("繁體中文", "zh-Hant"),
    ("繁體", "zh-Hant"),
    ("汉语", "zh"),
    ("漢語", "zh"),
    ("普通话", "zh"),
    ("brazilian portuguese", "pt-BR"),
    ("português brasileiro", "pt-BR"),
    ("british english", "en-GB"),
    ("american english", "en-US"),
    ("norsk", "no"),
    ("castellano", "es"),
    ("castilian", "es"),
    ("malay", "ms"),
    ("burmese", "my"),
    ("nepali", "ne"),
    ("swahili", "sw"),
];

/// What a tag behind the language says, where models know it by a name of its own.
const VARIANTS: &[(&str, &str, &str)] = &[
    ("zh", "hans", "Simplified"),
    ("zh", "cn", "Simplified"),
    ("zh", "sg", "Simplified"),
    ("zh", "hant", "Traditional"),
    ("zh", "tw", "Traditional"),
    ("zh", "hk", "Traditional"),
    ("pt", "br", "Brazilian"),
    ("pt", "pt", "European"),
    ("en", "gb", "British"),
    ("en", "us", "American"),
    ("fr", "ca", "Canadian"),
    ("de", "at", "Austrian"),
    ("de", "ch", "Swiss"),
    ("es", "mx", "Mexican"),
];

/// A language, or a variant of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Language {
    iso: isolang::Language,
    variant: Option<&'static str>,
}

/// A name that no language has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown language `{typed}`{}; give an ISO code such as `de` or a name such as `German`",
    .near.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
pub struct UnknownLanguage {
    typed: String,
    near: Option<String>,
}

impl Language {
    /// The language that is called so: an ISO 639 code, with a region or script if there is one (`de`, `deu`,
    /// `zh-Hant`, `pt_BR`), its English name, or its own name.
    ///
    /// # Errors
    ///
    /// No language is called so; the nearest name is suggested.
    pub fn named(typed: &str) -> Result<Language, UnknownLanguage> {
        let name = typed.trim().to_lowercase();
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, tag)| *tag);
        from_tag(alias.unwrap_or(&name)).or_else(|| from_name(&name)).ok_or_else(|| UnknownLanguage {
            typed: typed.trim().chars().take(64).collect(),
            near: suggestion(&name),
        })
    }

    /// The language of a text, where it is clear enough to act on.
    pub fn guess(text: &str) -> Option<Language> {
        let info = whatlang::detect(&text[..text.floor_char_boundary(GUESS_BYTES)])?;
        // Scripts of one language are sure at any length; trigrams need the library's own verdict.
        let sure = info.is_reliable() || whatlang_script_is_one_language(info.script());
        let code = match info.lang().code() {
            "cmn" => "zho",
            "pes" => "fas",
            "nob" => "nor",
            code => code,
        };
        let iso = isolang::Language::from_639_3(code).filter(|_| sure)?;
        Some(Language { iso, variant: None })
    }

    /// The ISO 639-1 code, or that of 639-3 where the first has none.
    pub fn code(self) -> &'static str {
        self.iso.to_639_1().unwrap_or_else(|| self.iso.to_639_3())
    }

    /// Whether both are the same language, in whatever variant.
    pub fn is_same_as(self, other: Language) -> bool {
        self.iso == other.iso
    }

    /// Whether its words are written without spaces between them.
    pub fn joins_words(self) -> bool {
        matches!(self.code(), "zh" | "ja" | "th" | "lo" | "km" | "my" | "yue")
    }
}

impl fmt::Display for Language {
    /// The English name, as prompts and messages use it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.iso.to_name() {
            "Modern Greek" | "Modern Greek (1453-)" => "Greek",
            name => name,
        };
        match self.variant {
            Some(variant) => write!(f, "{variant} {name}"),
            None => f.write_str(name),
        }
    }
}

fn whatlang_script_is_one_language(script: whatlang::Script) -> bool {
    use whatlang::Script::{Greek, Hangul, Hiragana, Katakana, Mandarin, Thai};
    matches!(script, Mandarin | Hiragana | Katakana | Hangul | Thai | Greek)
}

fn from_tag(tag: &str) -> Option<Language> {
    let mut parts = tag.split(['-', '_']);
    let code = parts.next()?.to_lowercase();
    let iso = match code.len() {
        2 => isolang::Language::from_639_1(&code),
        3 => isolang::Language::from_639_3(&code),
        _ => None,
    }?;
    let variant = parts.find_map(|part| {
        let part = part.to_lowercase();
        VARIANTS.iter().find(|(c, p, _)| iso.to_639_1() == Some(c) && *p == part).map(|(_, _, name)| *name)
    });
    Some(Language { iso, variant })
}

/// Looks among the languages with a two-letter code first: several share a name with a smaller relative.
fn from_name(name: &str) -> Option<Language> {
    let called = |l: &isolang::Language| {
        l.to_name().to_lowercase() == name || l.to_autonym().is_some_and(|own| own.to_lowercase() == name)
    };
    let iso = common().find(called).or_else(|| isolang::languages().find(called))?;
    Some(Language { iso, variant: None })
}

fn common() -> impl Iterator<Item = isolang::Language> {
    isolang::languages().filter(|l| l.to_639_1().is_some())
}

fn suggestion(name: &str) -> Option<String> {
    let names: Vec<(String, &str)> = common()
        .flat_map(|l| [Some(l.to_name()), l.to_autonym()])
        .flatten()
        .map(|name| (name.to_lowercase(), name))
        .collect();
    let lower: Vec<&str> = names.iter().map(|(lower, _)| lower.as_str()).collect();
    let near = nearest(name, &lower)?;
    names.iter().find(|(lower, _)| lower == near).map(|(_, shown)| (*shown).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, expect: &str) {
        let shown = match Language::named(typed) {
            Ok(language) => format!("{language} {}", language.code()),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expect, "{typed}");
    }

    #[test]
    fn language_by_code_is_found() {
        check("de", "German de");
        check("DEU", "German de");
        check("zh-TW", "Traditional Chinese zh");
        check("pt_BR", "Brazilian Portuguese pt");
        check("en-AU", "English en");
    }

    #[test]
    fn language_by_english_name_is_found() {
        check("german", "German de");
        check(" Greek ", "Greek el");
        check("Simplified Chinese", "Simplified Chinese zh");
        check("Cherokee", "Cherokee chr");
    }

    #[test]
    fn language_by_own_name_is_found() {
        for (own, code) in
            [("Deutsch", "de"), ("中文", "zh"), ("日本語", "ja"), ("Français", "fr"), ("русский", "ru")]
        {
            assert_eq!(Language::named(own).map(Language::code), Ok(code), "{own}");
        }
    }

    #[test]
    fn language_misspelt_suggests_the_right_one() {
        let sentence = Language::named("Germann").expect_err("no such language").to_string();
        assert!(sentence.contains("`Germann`") && sentence.contains("did you mean `German`?"), "{sentence}");
        let sentence = Language::named("qqqqqqqqqq").expect_err("no such language").to_string();
        assert!(!sentence.contains("did you mean"), "{sentence}");
    }

    #[test]
    fn guess_knows_scripts_and_words() {
        let guess = |text| Language::guess(text).map(Language::code);
        assert_eq!(guess("今天天气很好。"), Some("zh"));
        assert_eq!(guess("今日はいい天気ですね。"), Some("ja"));
        assert_eq!(
            guess("Der schnelle braune Fuchs springt über den faulen Hund, und niemand hält ihn auf."),
            Some("de")
        );
        assert_eq!(
            guess("Whereas recognition of the inherent dignity of all members of the human family"),
            Some("en")
        );
        assert_eq!(guess(""), None);
        assert_eq!(guess("12345"), None);
    }
}
