//! How large what a trace tells is, and how it is cut for people: long texts and lists lose their ends.

use serde_json::Value;
use syscalls::Event;
use syscalls::limits::TRACE_SHOWN_MAX;

/// About how many bytes a value takes: those of its texts, and eight for whatever else is in it.
pub(super) fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(bytes).sum::<usize>() + 8,
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + bytes(value)).sum::<usize>() + 8
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

/// About how many bytes an event takes.
pub(super) fn event_bytes(event: &Event) -> usize {
    match event {
        Event::Called { args, .. } => bytes(args),
        Event::Returned { result, .. } => result.as_ref().map_or(0, bytes),
        Event::Held { tokens, .. } => tokens.len() * 8,
        _ => 0,
    }
}

/// Cuts an event.
pub(super) fn cut_event(event: &mut Event) {
    match event {
        Event::Called { args, .. } => cut(args),
        Event::Returned { result: Some(result), .. } => cut(result),
        _ => {}
    }
}

/// Cuts texts and lists in a value, and says so where it does.
fn cut(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(TRACE_SHOWN_MAX) {
                text.truncate(end);
                text.push('…');
            }
        }
        Value::Array(values) => {
            let more = values.len().saturating_sub(TRACE_SHOWN_MAX);
            values.truncate(TRACE_SHOWN_MAX);
            values.iter_mut().for_each(cut);
            if more > 0 {
                values.push(Value::String(format!("… {more} more")));
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(cut),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn long_texts_and_lists_lose_their_ends_and_say_so() {
        let mut value = json!({"text": "ü".repeat(65), "list": (0..70).collect::<Vec<_>>(), "n": 1});
        cut(&mut value);
        assert_eq!(value["text"], format!("{}…", "ü".repeat(64)));
        assert_eq!(value["list"].as_array().map(Vec::len), Some(65));
        assert_eq!((&value["list"][64], &value["n"]), (&json!("… 6 more"), &json!(1)));
        let mut short = json!({"text": "ü".repeat(64), "list": [1, 2]});
        let before = short.clone();
        cut(&mut short);
        assert_eq!(short, before);
    }

    #[test]
    fn size_counts_every_text_and_number() {
        assert_eq!(bytes(&json!("abc")), 3);
        assert!(bytes(&json!([1, 2, 3])) >= 24 && bytes(&json!({"a": {"b": "cdefghij"}})) >= 10);
    }
}
