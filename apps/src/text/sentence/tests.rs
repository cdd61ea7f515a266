use super::*;

#[track_caller]
fn check(text: &str, expect: &[&str]) {
    let ranges = sentences(text);
    let whole: String = ranges.iter().map(|r| &text[r.clone()]).collect();
    assert_eq!(whole, text, "the sentences tile the text");
    let parts: Vec<&str> = ranges.into_iter().map(|r| text[r].trim()).collect();
    assert_eq!(parts, expect);
}

#[test]
fn english_full_stops_end_sentences() {
    check("It rains. Why? Nobody knows! So be it.", &["It rains.", "Why?", "Nobody knows!", "So be it."]);
    check("He paid $3.50 for 2.5 kg. That is much.", &["He paid $3.50 for 2.5 kg.", "That is much."]);
}

#[test]
fn english_abbreviations_end_nothing() {
    check(
        "Mr. Smith met Dr. J. R. Jones, e.g. in the U.S. Army. They spoke.",
        &["Mr. Smith met Dr. J. R. Jones, e.g. in the U.S. Army.", "They spoke."],
    );
    check(
        "See Fig. 3 and No. 5, i.e. both. Apples, pears, etc. The rest went to Acme Inc. It was sold.",
        &[
            "See Fig. 3 and No. 5, i.e. both.",
            "Apples, pears, etc.",
            "The rest went to Acme Inc.",
            "It was sold.",
        ],
    );
    check("At 5 p.m. He left.", &["At 5 p.m.", "He left."]);
}

#[test]
fn quotes_and_brackets_stay_with_their_sentence() {
    check(
        "\"Go!\" he said. \"Now.\" She went. (It was late.) He slept.",
        &["\"Go!\" he said.", "\"Now.\"", "She went.", "(It was late.)", "He slept."],
    );
    check("“Is it?” she asked. Yes.", &["“Is it?” she asked.", "Yes."]);
}

#[test]
fn ellipses_end_a_sentence_before_a_new_one_only() {
    check(
        "Well... maybe. Wait… There it is. And so … on.",
        &["Well... maybe.", "Wait…", "There it is.", "And so … on."],
    );
}

#[test]
fn german_abbreviations_and_ordinals_end_nothing() {
    check(
        "Das gilt z.B. für Obst, d. h. Äpfel usw. und für Dr. Müller. Am 3. Oktober ist frei. Warum?",
        &[
            "Das gilt z.B. für Obst, d. h. Äpfel usw. und für Dr. Müller.",
            "Am 3. Oktober ist frei.",
            "Warum?",
        ],
    );
    check(
        "Im 19. Jahrhundert kam die Eisenbahn nach München. Sie war ca. 30 km/h schnell. „Halt!“ rief er. Dann war es still.",
        &[
            "Im 19. Jahrhundert kam die Eisenbahn nach München.",
            "Sie war ca. 30 km/h schnell.",
            "„Halt!“ rief er.",
            "Dann war es still.",
        ],
    );
}

#[test]
fn chinese_ends_without_spaces() {
    check(
        "今天天气很好。我们去公园吧！你来吗？好；走。",
        &["今天天气很好。", "我们去公园吧！", "你来吗？", "好；", "走。"],
    );
    check(
        "他说：“我走了。”然后他走了。（真的！）完",
        &["他说：“我走了。”", "然后他走了。", "（真的！）", "完"],
    );
    check("他走了。“你来吗？”她问。「はい」", &["他走了。", "“你来吗？”", "她问。", "「はい」"]);
    check(
        "圆周率是3.14，共有1,000人。真的吗？！是的……我不知道。",
        &["圆周率是3.14，共有1,000人。", "真的吗？！", "是的……我不知道。"],
    );
    check("我们等了他整整一个下午……他没有来。", &["我们等了他整整一个下午……", "他没有来。"]);
}

#[test]
fn japanese_quoted_speech_goes_on() {
    check(
        "「はい。」と彼は言った。雨が降っている。本当ですか？",
        &["「はい。」と彼は言った。", "雨が降っている。", "本当ですか？"],
    );
}

#[test]
fn mixed_scripts_split_by_their_own_marks() {
    check(
        "OpenAI发布了GPT-4。It was in 2023. 大家都很惊讶。",
        &["OpenAI发布了GPT-4。", "It was in 2023.", "大家都很惊讶。"],
    );
}

#[test]
fn other_scripts_have_their_terminators() {
    check("यह एक वाक्य है। यह दूसरा है।", &["यह एक वाक्य है।", "यह दूसरा है।"]);
    check("ما اسمك؟ اسمي علي.", &["ما اسمك؟", "اسمي علي."]);
}

#[test]
fn thai_phrases_split_at_spaces_once_they_are_long() {
    let long = "กรุงเทพมหานครเป็นเมืองหลวงและนครที่มีประชากรมากที่สุดของประเทศไทย";
    check(&format!("{long} {long}"), &[long, long]);
    check("สวัสดี ครับ", &["สวัสดี ครับ"]);
}

#[test]
fn wrapped_lines_are_one_sentence_and_items_are_not() {
    check(
        "The first line of this text is wrapped in the\nMiddle of its sentence. A second one.\n\nNew one",
        &[
            "The first line of this text is wrapped in the\nMiddle of its sentence.",
            "A second one.",
            "New one",
        ],
    );
    check("Shopping\n- bread\n- milk. And tea\n", &["Shopping", "- bread", "- milk.", "And tea"]);
    check("1. Wash. 2. Dry.", &["1. Wash.", "2. Dry."]);
}

#[test]
fn text_of_space_alone_is_one_range() {
    check("", &[]);
    assert_eq!(sentences(" \n \n"), vec![0..4]);
    check("\n\n  One.", &["One."]);
}

proptest::proptest! {
    #[test]
    fn ranges_tile_any_text(text in "[a-zA-Z0-9äß世界。！？；…「」“” .!?\n\r\t,()-]{0,200}") {
        let mut at = 0;
        for range in sentences(&text) {
            proptest::prop_assert_eq!(range.start, at);
            proptest::prop_assert!(range.end > range.start);
            at = range.end;
        }
        proptest::prop_assert_eq!(at, text.len());
    }
}
