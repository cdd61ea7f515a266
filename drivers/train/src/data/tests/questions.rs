//! Questions about texts, and their answers.

use super::*;

/// Both forms of questions: SQuAD's own, and that of hubs. The second has no answer.
fn questions(folder: &Path) -> [Source; 2] {
    let context = "über abcdefghijklmnopqrstuvwxyz";
    let nested = serde_json::json!({"data": [{"paragraphs": [{"context": context, "qas": [
        {"id": "1", "question": "qu", "answers": [{"text": "wxy", "answer_start": 27}]},
        {"id": "2", "question": "no", "answers": [], "is_impossible": true},
    ]}]}]});
    let lines = format!(
        "{}\n{}\n",
        serde_json::json!({"context": context, "question": "qu", "answers": {"text": ["wxy"], "answer_start": [27]}}),
        serde_json::json!({"context": context, "question": "no", "answers": {"text": [], "answer_start": []}})
    );
    let files = [write(folder, "a.json", nested.to_string()), write(folder, "a.jsonl", lines)];
    files.map(|file| Source::Questions { file, stride: Some(4) })
}

#[test]
fn answers_are_in_the_parts_that_have_them() {
    let folder = tempfile::tempdir().unwrap();
    let task = || Task::Answer { length: LENGTH };
    let [nested, lines] = questions(folder.path());
    let collators = [nested, lines].map(|source| collator(folder.path(), &source, task(), Family::Encoder));
    // 32 bytes in parts of 19, of which neighbours have 4 in common.
    assert_eq!(collators[0].examples().count(0), 4);
    let (batch, _) = collators[0].batch(Position::default(), 4);
    assert_eq!(batch, collators[1].batch(Position::default(), 4).0);
    assert_eq!(batch.targets, [0, 0, 17, 19, 0, 0, 0, 0]);
    let row = &batch.input.tokens[LENGTH..];
    let text: Vec<u8> = row[17..=19].iter().map(|id| (id - 5) as u8).collect();
    assert_eq!(text, b"wxy");
    assert_eq!(batch.input.types.unwrap()[..5], [0, 0, 0, 0, 1]);
}

#[test]
fn answer_that_stands_elsewhere_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{\"context\": \"abc\", \"question\": \"q\", \"answers\": {\"text\": [\"b\"], \"answer_start\": [2]}}\n";
    let file = write(folder.path(), "a.jsonl", text);
    let error = refusal(&Source::Questions { file, stride: None }, folder.path());
    assert!(error.contains("a.jsonl:1") && error.contains("\"b\" does not stand"), "{error}");
    let nested = "{\"data\": [{\"paragraphs\": [{\"context\": \"abc\",\n\"qas\": [\n{\"question\": \"q\", \"id\": \"x\",\n\
                  \"answers\": [{\"text\": \"b\", \"answer_start\": 2}]}]}]}]}";
    let file = write(folder.path(), "a.json", nested);
    let error = refusal(&Source::Questions { file, stride: None }, folder.path());
    assert!(error.contains("a.json:3: question x: ") && error.contains("\"b\" does not stand"), "{error}");
    let file = write(folder.path(), "c.json", "{\"data\": [\n{\"paragraphs\": 7}]}");
    let error = refusal(&Source::Questions { file, stride: None }, folder.path());
    assert!(error.contains("c.json:2: "), "{error}");
    let text = text.replace("context", "contxt");
    let file = write(folder.path(), "b.jsonl", text);
    let error = refusal(&Source::Questions { file, stride: None }, folder.path());
    assert!(error.contains("b.jsonl:1") && error.contains("no field `context`"), "{error}");
}
