//! Requests to `llama-server`: greedy completions of token arrays, read as they stream in.
//!
//! Each request has a connection of its own: the server has few threads for connections, and an idle one holds its
//! thread for seconds.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use syscalls::Token;

use crate::system::{Agent, Answer, GoOn, LIKELY};

/// How long the server may take to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Tokens that are the first byte of a character of several. The server keeps a token back, and never sends it,
/// when its text ends in half a character, so they are banned: a conversation could not be continued.
const FIRST_BYTES: std::ops::RangeInclusive<u32> = 0xc0..=0xff;

/// Where a server is, and how it is asked.
#[derive(Clone, Debug)]
pub struct Http {
    agent: ureq::Agent,
    base: String,
    lean_sampling: bool,
    /// Whether copies are asked for in one request.
    pub copies_by_one_request: bool,
}

impl Http {
    /// Speaks to the server on this port.
    pub fn new(port: u16, lean_sampling: bool, copies_by_one_request: bool) -> Http {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        let base = format!("http://127.0.0.1:{port}");
        Http { agent: config.into(), base, lean_sampling, copies_by_one_request }
    }

    /// Whether the server has loaded its model.
    pub fn is_ready(&self) -> bool {
        let asked = self.agent.get(format!("{}/health", self.base));
        let answer = asked.config().timeout_global(Some(READY_TIMEOUT)).build().call();
        answer.is_ok_and(|a| a.status().is_success())
    }

    /// Completes a prompt, once or as often as there are answers to fill. A refusal is in the answers; an error is
    /// a connection that broke.
    pub fn stream(
        &self,
        prompt: &[Token],
        generate: u32,
        more: Value,
        answers: &mut [Answer],
        go_on: GoOn<'_>,
    ) -> Result<()> {
        let body = serde_json::to_vec(&self.request(prompt, generate, more))?;
        let sent = self.agent.post(format!("{}/completion", self.base));
        let sent = sent.header("content-type", "application/json").header("connection", "close");
        let mut response = sent.send(&body[..]).context("llama-server cannot be reached")?;
        if !response.status().is_success() {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            answers.iter_mut().for_each(|a| a.trouble = Some(message(&text)));
        } else {
            read_events(BufReader::new(response.into_body().into_reader()), answers, go_on)?;
        }
        answers.iter_mut().for_each(|a| a.finish(generate));
        Ok(())
    }

    /// The tokens most likely to follow a prompt, with the logarithms of their probabilities.
    pub fn likely(&self, prompt: &[Token]) -> Result<Vec<(Token, f64)>> {
        let body = self.request(prompt, 1, json!({ "stream": false, "n_probs": LIKELY }));
        let sent = self.agent.post(format!("{}/completion", self.base)).header("connection", "close");
        let mut response =
            sent.header("content-type", "application/json").send(&serde_json::to_vec(&body)?[..])?;
        let reply: Value = serde_json::from_str(&response.body_mut().read_to_string()?)?;
        let top = reply["completion_probabilities"][0]["top_logprobs"].as_array();
        let top = top.with_context(|| format!("llama-server reports no probabilities: {reply}"))?.iter();
        Ok(top.filter_map(|t| Some((Token(t["id"].as_u64()? as u32), t["logprob"].as_f64()?))).collect())
    }

    fn request(&self, prompt: &[Token], generate: u32, more: Value) -> Value {
        let banned: Vec<Value> = FIRST_BYTES.map(|token| json!([token, false])).collect();
        let mut request = json!({
            "prompt": prompt,
            "n_predict": generate,
            "temperature": 0,
            "ignore_eos": true,
            "logit_bias": banned,
            "cache_prompt": true,
            "stream": true,
            "return_tokens": true,
        });
        if self.lean_sampling {
            request["samplers"] = json!(["top_k"]);
            request["top_k"] = json!(1);
        }
        if let (Value::Object(request), Value::Object(more)) = (&mut request, more) {
            request.extend(more);
        }
        request
    }
}

/// Reads server-sent events to the end of the reply, or until the caller has enough.
fn read_events(mut lines: impl BufRead, answers: &mut [Answer], go_on: GoOn<'_>) -> Result<()> {
    let mut line = String::new();
    while lines.read_line(&mut line).context("llama-server broke off")? > 0 {
        let event = line.strip_prefix("data: ").map(str::trim_end);
        if let Some(event) = event.filter(|event| *event != "[DONE]")
            && !take_event(event, answers, go_on)?
        {
            return Ok(());
        }
        line.clear();
    }
    Ok(())
}

/// Takes one event; false means that the caller has enough.
fn take_event(event: &str, answers: &mut [Answer], go_on: GoOn<'_>) -> Result<bool> {
    let event: Value = serde_json::from_str(event).context("llama-server sent what is no JSON")?;
    if !event["error"].is_null() {
        answers
            .iter_mut()
            .filter(|a| a.evaluated == 0)
            .for_each(|a| a.trouble = Some(message(&event.to_string())));
        return Ok(true);
    }
    let index = event["index"].as_u64().unwrap_or(0) as usize;
    let Some(answer) = answers.get_mut(index) else {
        bail!("llama-server answers number {index}, which nobody asked")
    };
    let tokens = event["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    answer.take(tokens.iter().filter_map(Value::as_u64).map(|token| Token(token as u32)));
    let count = |name: &str| event["timings"][name].as_u64().unwrap_or(0) as u32;
    if event["stop"] == true {
        (answer.evaluated, answer.shared) = (count("prompt_n"), count("cache_n"));
        return Ok(true);
    }
    Ok(go_on(answer.tokens.len()))
}

/// What the server says in an error.
fn message(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    value["error"]["message"].as_str().unwrap_or(text).to_owned()
}

/// A program that keeps what was said and sends all of it each time.
pub struct Conversation {
    http: Http,
    said: Vec<Token>,
}

impl Conversation {
    /// A new one.
    pub fn new(http: Http) -> Conversation {
        Conversation { http, said: Vec::new() }
    }
}

impl Agent for Conversation {
    fn turn(&mut self, new: &[Token], generate: u32, go_on: GoOn<'_>) -> Result<Answer> {
        self.said.extend(new);
        let mut answers = [Answer::begun()];
        self.http.stream(&self.said, generate, json!({}), &mut answers, go_on)?;
        let [answer] = answers;
        self.said.extend(&answer.tokens);
        Ok(answer)
    }

    fn likely(&mut self, new: &[Token]) -> Result<Vec<(Token, f64)>> {
        self.said.extend(new);
        self.http.likely(&self.said)
    }
}
