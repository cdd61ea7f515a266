//! The manual of all calls as Markdown, from the types themselves.
//!
//! It is `syscalls/README.md`; a test compares the two. The introduction is written by hand and stands in a file of
//! its own; everything behind it comes from the schemas and the doc comments of calls, replies and events.

use std::collections::BTreeMap;
use std::fmt::Write;

use schemars::{Schema, schema_for};
use serde_json::{Map, Value};

use crate::call::{Described, described};
use crate::errno::Errno;
use crate::event::Event;
use crate::limits;
use crate::reply::Reply;

const INTRODUCTION: &str = include_str!("manual/introduction.md");

/// An object of JSON schema.
type Object = Map<String, Value>;

/// The types that calls, replies and events refer to, by name.
type Types = BTreeMap<String, Object>;

/// Writes the whole manual.
pub fn markdown() -> String {
    let calls = described();
    let replies = object(schema_for!(Reply));
    let events = object(schema_for!(Event));
    let mut types = Types::new();
    calls.iter().for_each(|call| collect(&mut types, &object(call.args.clone())));
    collect(&mut types, &replies);
    collect(&mut types, &events);

    let mut out = INTRODUCTION.to_owned();
    write_calls(&mut out, &calls, &replies);
    write_events(&mut out, &events);
    write_types(&mut out, &types);
    write_errors(&mut out);
    write_limits(&mut out);
    out
}

fn object(schema: Schema) -> Object {
    match schema.to_value() {
        Value::Object(object) => object,
        other => unreachable!("a derived schema is an object, not {other}"),
    }
}

fn collect(types: &mut Types, schema: &Object) {
    for (name, definition) in schema.get("$defs").and_then(Value::as_object).into_iter().flatten() {
        if let Value::Object(definition) = definition {
            types.insert(name.clone(), definition.clone());
        }
    }
}

fn write_calls(out: &mut String, calls: &[Described], replies: &Object) {
    out.push_str("\n## Calls\n\n");
    let links: Vec<String> = calls.iter().map(|c| format!("[`{0}`](#{0})", c.name)).collect();
    line(out, &links.join(" · "));
    for call in calls {
        line(out, &format!("\n### `{}`\n\n{}", call.name, one_line(call.doc)));
        write_fields(out, &object(call.args.clone()), "argument");
        write_reply(out, call.reply, replies);
    }
}

fn write_reply(out: &mut String, name: &str, replies: &Object) {
    let found = variants(replies).find_map(|v| v.get("properties")?.get(name));
    // What can be any JSON has the schema `true`.
    let any = Object::new();
    let reply = found.expect("every call names a reply that exists").as_object().unwrap_or(&any);
    match reply.get("properties") {
        Some(_) => {
            line(out, &format!("\nReplies `{name}`, with:"));
            write_fields(out, reply, "field");
        }
        None if reply.get("type") == Some(&"object".into()) => {
            line(out, &format!("\nReplies `{name}`, with nothing in it."));
        }
        None => line(out, &format!("\nReplies `{name}`: {}.", type_name(reply))),
    }
}

fn write_events(out: &mut String, events: &Object) {
    line(out, "\n## Events\n\nThey come before the reply, with its `id`; the field `event` names them.");
    for event in variants(events) {
        let name = event["properties"]["event"]["const"].as_str().expect("events are tagged");
        line(out, &format!("\n### Event `{name}`\n\n{}", description(event)));
        let mut fields = event.clone();
        if let Some(Value::Object(properties)) = fields.get_mut("properties") {
            properties.shift_remove("event");
        }
        write_fields(out, &fields, "field");
    }
}

fn write_types(out: &mut String, types: &Types) {
    out.push_str("\n## Types\n");
    for (name, schema) in types {
        line(out, &format!("\n### Type `{name}`\n\n{}", description(schema)));
        if schema.contains_key("properties") {
            write_fields(out, schema, "field");
        } else if schema.contains_key("oneOf") {
            out.push_str("\n| value | meaning |\n| --- | --- |\n");
            for value in variants(schema) {
                line(out, &format!("| `{}` | {} |", value["const"], description(value)));
            }
        } else {
            line(out, &format!("\nIt is {}.", with_article(&type_name(schema))));
        }
    }
}

fn write_errors(out: &mut String) {
    out.push_str("\n## Errors\n\n| errno | meaning |\n| --- | --- |\n");
    for (errno, meaning) in Errno::ALL {
        line(out, &format!("| {errno} | {} |", one_line(meaning)));
    }
}

fn write_limits(out: &mut String) {
    out.push_str("\n## Limits\n\n| limit | value | meaning |\n| --- | --- | --- |\n");
    for (name, value, meaning) in limits::ALL {
        line(out, &format!("| `{name}` | {value} | {} |", one_line(meaning)));
    }
}

/// The fields of an object as a table, in the order in which they are declared. Only what a program sends has
/// defaults; what it gets is there, or is marked as optional.
fn write_fields(out: &mut String, schema: &Object, heading: &str) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|p| !p.is_empty())
    else {
        return;
    };
    let is_sent =
        heading == "argument" || properties.values().any(|p| p.get("default").is_some_and(|d| !d.is_null()));
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|n| n == name));
    let (columns, rule) = if is_sent { ("type | default", "--- | ") } else { ("type", "") };
    line(out, &format!("\n| {heading} | {columns} | meaning |\n| --- | {rule}--- | --- |"));
    for (name, field) in properties {
        let Some(field) = field.as_object() else { continue };
        let (kind, meaning) = (type_name(field), description(field));
        let row = match (is_sent, is_required(name)) {
            (true, true) => format!("| `{name}` | {kind} | required | {meaning} |"),
            (true, false) => format!("| `{name}` | {kind} | {} | {meaning} |", default(field)),
            (false, true) => format!("| `{name}` | {kind} | {meaning} |"),
            (false, false) => format!("| `{name}` | {kind}, optional | {meaning} |"),
        };
        line(out, &row);
    }
}

fn default(field: &Object) -> String {
    match field.get("default") {
        None | Some(Value::Null) => "absent".into(),
        Some(Value::Object(_)) => "its defaults".into(),
        // Numbers are f32 here; as such they have the short form that stands in the source.
        Some(Value::Number(n)) if n.is_f64() => format!("`{}`", n.as_f64().unwrap_or_default() as f32),
        Some(value) => format!("`{value}`"),
    }
}

/// The type of a field in words, with links to the types that have a section.
fn type_name(schema: &Object) -> String {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.rsplit('/').next().expect("rsplit gives at least one part");
        return format!("[`{name}`](#type-{})", name.to_lowercase());
    }
    if let Some(options) = schema.get("anyOf").and_then(Value::as_array) {
        let options =
            options.iter().filter_map(Value::as_object).filter(|o| o.get("type") != Some(&"null".into()));
        return options.map(type_name).collect::<Vec<_>>().join(" or ");
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|k| *k != "null"),
        kind => kind.and_then(Value::as_str),
    };
    match kind {
        Some("array") => array_name(schema),
        Some(kind) => kind.into(),
        None => "any JSON".into(),
    }
}

fn array_name(schema: &Object) -> String {
    let parts = schema.get("prefixItems").and_then(Value::as_array);
    let names =
        |parts: &Vec<Value>| parts.iter().filter_map(Value::as_object).map(type_name).collect::<Vec<_>>();
    match (parts, schema.get("items").and_then(Value::as_object)) {
        (Some(parts), _) => format!("pair of {}", names(parts).join(" and ")),
        (None, Some(items)) => format!("array of {}", type_name(items)),
        (None, None) => "array".into(),
    }
}

fn variants(schema: &Object) -> impl Iterator<Item = &Object> {
    schema.get("oneOf").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

fn description(schema: &Object) -> String {
    one_line(schema.get("description").and_then(Value::as_str).unwrap_or_default())
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// Doc comments have lines, table cells have none.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_in_readme_is_true() {
        expect_test::expect_file!["../README.md"].assert_eq(&markdown());
    }

    #[test]
    fn manual_has_every_call_errno_and_limit() {
        let manual = markdown();
        for call in crate::Call::NAMES {
            assert!(manual.contains(&format!("### `{call}`\n")), "{call}");
        }
        assert!(manual.contains("| ENOMEM | Not enough memory"));
        assert!(manual.contains("| `LINE_BYTES_MAX` | 8388608 |"));
        assert!(manual.contains("| `signal` | [`Signal`](#type-signal) | `\"TERM\"` | The signal. |"));
    }
}
