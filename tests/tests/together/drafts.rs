//! Text that repeats what stands before it comes in fewer steps, and is the same text. With the starter, which has
//! learned to go on with what it reads.

use harness::Daemon;
use harness::said::{ROUNDING_QUANTISED, Said, assert_same_bits, assert_same_but_for_ties, say};
use syscalls::ContextId;
use syscalls::client::blocking::Client;

use super::{DETERMINISTIC, MODEL, PAGE, mount_file};

const GENERATE: u32 = 120;

/// A text that is to be edited, with a copy that has been begun.
fn prompt() -> String {
    "The prince looked at the old general and said nothing. ".repeat(4)
}

fn opened(client: &mut Client) -> ContextId {
    let context = client.open(Some(MODEL)).expect("opens").context;
    client.append_text(context, &prompt()).expect("appends");
    context
}

/// One token a call: there is nothing to guess in a generation of one token.
fn without_drafts(client: &mut Client) -> Said {
    let context = opened(client);
    let mut said = Said { tokens: Vec::new(), logprobs: Vec::new() };
    for _ in 0..GENERATE {
        let next = say(client, context, 1);
        said.tokens.extend(next.tokens);
        said.logprobs.extend(next.logprobs);
    }
    said
}

#[test]
fn output_that_repeats_is_drafted_and_is_the_same_as_token_by_token() {
    let daemon = Daemon::start();
    let starter = harness::starter();
    for deterministic in DETERMINISTIC {
        let mut client = daemon.client();
        mount_file(&daemon, &starter, 8 * PAGE, deterministic);
        let plain = without_drafts(&mut client);
        let before = client.stat(None, Some(MODEL)).expect("counts");
        assert_eq!(before.tokens_drafted, 0, "{before:?}");
        mount_file(&daemon, &starter, 8 * PAGE, deterministic);
        let context = opened(&mut client);
        let drafted = say(&mut client, context, GENERATE);
        let stats = client.stat(None, Some(MODEL)).expect("counts");
        assert!(stats.tokens_accepted > 0, "{stats:?}");
        // Each guess that was right saved a step; one with operations alone may come on top.
        assert!(stats.steps + stats.tokens_accepted <= u64::from(GENERATE) + 1, "{stats:?}");
        if deterministic {
            assert_same_bits(&[plain], &[drafted], "drafted");
        } else {
            assert_same_but_for_ties(&[plain], &[drafted], ROUNDING_QUANTISED, "drafted");
        }
    }
}
