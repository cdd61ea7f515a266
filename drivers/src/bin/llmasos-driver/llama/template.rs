//! The chat template from the model's file, run by minijinja.
//!
//! Templates are programs from a stranger. They get the messages and the date and nothing else, and an amount of
//! fuel that no honest one uses up.

use drivers::wire::DriverFault;
use llama_cpp_sys_2 as sys;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use syscalls::Errno;
use syscalls::call::Message;

use super::model::Model;

/// Instructions of one rendering: the largest template known to us takes about 2,000 and 150 for each message.
const FUEL: u64 = 10_000_000;

/// Bytes of a rendered conversation; more cannot fit any context.
const RENDERED_BYTES_MAX: usize = 64 << 20;

/// Where the template stands in its environment.
const NAME: &str = "chat";

/// A chat template, or why it cannot be used.
pub struct Template {
    environment: Result<Environment<'static>, String>,
    begin: String,
    end: String,
}

impl Template {
    /// Reads the template of a model.
    pub fn new(model: &Model, source: String) -> Template {
        let text_of = |role| {
            let mut bytes = Vec::new();
            model.special(role).into_iter().for_each(|token| model.piece(token, true, &mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Template::read(source, text_of(sys::llama_vocab_bos), text_of(sys::llama_vocab_eos))
    }

    /// Reads a template. One that cannot be read is kept as the reason, which every use answers.
    fn read(source: String, begin: String, end: String) -> Template {
        Template { environment: environment(source), begin, end }
    }

    /// Puts the conversation into the template, with the assistant's turn opened.
    ///
    /// # Errors
    ///
    /// EINVAL with the template's reason.
    pub fn render(&self, messages: &[Message]) -> Result<String, DriverFault> {
        self.put(messages, true)
    }

    /// Puts messages into the template as the beginning of a conversation that goes on. A template that wants
    /// somebody to have said something gets an empty message of the user behind them.
    ///
    /// # Errors
    ///
    /// EINVAL with the template's reason.
    pub fn render_beginning(&self, messages: &[Message]) -> Result<String, DriverFault> {
        self.put(messages, false).or_else(|_| {
            let said = Message { role: "user".into(), content: String::new() };
            self.put(&[messages, &[said]].concat(), false)
        })
    }

    fn put(&self, messages: &[Message], assistant_next: bool) -> Result<String, DriverFault> {
        let refused = |why: &str| {
            DriverFault::new(Errno::EINVAL, format!("the model's chat template refuses the messages: {why}"))
        };
        let environment = self.environment.as_ref().map_err(|why| {
            DriverFault::new(Errno::EINVAL, format!("the model's chat template cannot be read: {why}"))
        })?;
        let template = environment.get_template(NAME).map_err(|e| refused(&reason(&e)))?;
        let variables = context! {
            messages => Value::from_serialize(messages),
            add_generation_prompt => assistant_next,
            bos_token => self.begin,
            eos_token => self.end,
        };
        let mut out = Bounded(Vec::new());
        template.render_captured_to(variables, &mut out).map_err(|e| refused(&reason(&e)))?;
        String::from_utf8(out.0).map_err(|_| refused("its output is not UTF-8"))
    }
}

fn environment(source: String) -> Result<Environment<'static>, String> {
    let mut environment = Environment::new();
    // As the tools do for which the templates were written.
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", to_json);
    environment.add_template_owned(NAME, source).map_err(|e| reason(&e))?;
    Ok(environment)
}

/// JSON without the escapes for HTML that Jinja itself would add.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<Value> = options.get("ensure_ascii")?;
    let _: Option<Value> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let failed = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let Some(indent) = indent else { return spaced_json(&value).map_err(failed) };
    let mut out = Vec::new();
    let spaces = " ".repeat(indent.min(16));
    let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(&value, &mut serializer).map_err(failed)?;
    Ok(String::from_utf8(out).expect("JSON is UTF-8"))
}

/// JSON on one line with a space behind commas and colons, as Python writes it: models saw it so in training.
fn spaced_json(value: &Value) -> serde_json::Result<String> {
    struct Spaced;
    impl serde_json::ser::Formatter for Spaced {
        fn begin_array_value<W: ?Sized + std::io::Write>(
            &mut self,
            out: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            if first { Ok(()) } else { out.write_all(b", ") }
        }
        fn begin_object_key<W: ?Sized + std::io::Write>(
            &mut self,
            out: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            if first { Ok(()) } else { out.write_all(b", ") }
        }
        fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
            out.write_all(b": ")
        }
    }
    let mut out = Vec::new();
    serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut out, Spaced))?;
    Ok(String::from_utf8(out).expect("JSON is UTF-8"))
}

/// The date and time of now, in a format of `strftime`.
fn strftime_now(format: String) -> Result<String, Error> {
    let format = std::ffi::CString::new(format)
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "a date format with a zero byte"))?;
    let mut buffer = [0u8; 256];
    // SAFETY: the buffer's length is passed, the format ends with a zero, and `localtime_r` fills `now` or
    // leaves the zeros, which are a valid date.
    let written = unsafe {
        let seconds = libc::time(std::ptr::null_mut());
        let mut now: libc::tm = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut now);
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &now)
    };
    Ok(String::from_utf8_lossy(&buffer[..written]).into_owned())
}

/// The sentence of an error, without the place in a template that the reader cannot see.
fn reason(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_string)
}

/// A buffer that refuses what no context could hold.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > RENDERED_BYTES_MAX {
            return Err(std::io::Error::other(format!("its output passes {RENDERED_BYTES_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[(&str, &str)]) -> Result<String, DriverFault> {
        let message =
            |(role, content): &(&str, &str)| Message { role: role.to_string(), content: content.to_string() };
        let messages: Vec<_> = messages.iter().map(message).collect();
        Template::read(source.into(), "<s>".into(), "</s>".into()).render(&messages)
    }

    /// The form that most models use, with the idioms of Python that such templates have.
    const CHATML: &str = "{{ bos_token }}{% for message in messages %}
    {%- if loop.first and messages[0]['role'] != 'system' %}
{{- '<|im_start|>system\nBe kind.<|im_end|>\n' }}
    {%- endif %}
{{- '<|im_start|>' + message.role + '\n' + message['content'].strip() + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
";

    #[test]
    fn conversation_is_put_into_the_template_with_the_assistants_turn_opened() {
        let text = render(CHATML, &[("user", " Hi <b>! "), ("assistant", "Hello."), ("user", "Bye")]);
        let expected = "<s><|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi <b>!<|im_end|>\n\
                        <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n\
                        <|im_start|>assistant\n";
        assert_eq!(text.as_deref(), Ok(expected));
    }

    #[test]
    fn beginning_of_a_conversation_ends_with_its_messages() {
        let read = |source: &str| Template::read(source.into(), "<s>".into(), "</s>".into());
        let system = [Message { role: "system".into(), content: "Be brief.".into() }];
        let text = read(CHATML).render_beginning(&system);
        assert_eq!(text.as_deref(), Ok("<s><|im_start|>system\nBe brief.<|im_end|>\n"));
        let inside = "{% if messages[1].role != 'user' %}{{ raise_exception('nobody speaks') }}{% endif %}\
                      [INST]{{ messages[0].content }}\n{{ messages[1].content }}[/INST]";
        assert_eq!(read(inside).render_beginning(&system).as_deref(), Ok("[INST]Be brief.\n[/INST]"));
    }

    #[test]
    fn refusal_of_a_template_is_told_in_its_own_words() {
        let source =
            "{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}";
        let fault = render(source, &[("tool", "x")]).expect_err("it raises");
        assert_eq!(fault.errno, Errno::EINVAL);
        assert!(fault.message.contains("roles must alternate"), "{fault}");
        let fault = render("{% if %}", &[]).expect_err("no template");
        assert!(fault.message.contains("cannot be read"), "{fault}");
    }

    #[test]
    fn template_without_an_end_runs_out_of_fuel() {
        let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        assert_eq!(render(endless, &[]).expect_err("no end").errno, Errno::EINVAL);
    }

    #[test]
    fn json_and_dates_are_as_python_writes_them() {
        assert_eq!(
            render("{{ messages[0] | tojson }}", &[("user", "<ü>")]).as_deref(),
            Ok("{\"role\": \"user\", \"content\": \"<ü>\"}")
        );
        let year = render("{{ strftime_now('%Y') }}", &[]).expect("a year");
        assert!(year.len() == 4 && year.parse::<u32>().is_ok_and(|year| year > 2000), "{year}");
        assert_eq!(render("{{ missing }}{% if tools is defined %}x{% endif %}", &[]).as_deref(), Ok(""));
    }
}
