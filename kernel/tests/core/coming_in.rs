//! Who comes into memory, and who has to wait although there are frames: where a running context had to give way, nobody
//! of its class comes in before a generation has ended, or they would take each other's pages in turns.

use kernel::core::event::ConnId;
use syscalls::CallId;
use syscalls::call::Class;

use crate::machine::{ADMIN, Machine, generate, generated, reference};

/// A prompt of so many tokens that begins like no other.
fn prompt(name: char, tokens: usize) -> String {
    name.to_string().repeat(tokens)
}

fn begin(machine: &mut Machine, class: Class, name: char, (length, more): (usize, u32)) -> (ConnId, CallId) {
    let conn = machine.connect_as(ADMIN, class, 0);
    let context = machine.open_with(conn, &prompt(name, length));
    (conn, machine.begin(conn, generate(context, more)))
}

fn frames(machine: &mut Machine, admin: ConnId, of: ConnId) -> u32 {
    let pid = machine.pid(of);
    machine.ps(admin).into_iter().find(|p| p.pid == pid).expect("it lives").frames
}

#[test]
fn nobody_comes_in_where_others_were_pushed_out_until_a_generation_has_ended() {
    // Sixteen frames. The first has eight and grows, so that the second, which has eight, is pushed out. Then somebody
    // of a higher class takes the frames of the first: eight are left, which the second would have room in, and it is
    // first in line, since it has had less of the device's time.
    let (mut machine, admin) = Machine::with_model("pool=1024,context=1024,step_us=900,row_us=100");
    let first = begin(&mut machine, Class::Normal, 'a', (500, 60));
    let second = begin(&mut machine, Class::Normal, 'b', (480, 32));
    while frames(&mut machine, admin, first.0) < 9 {
        assert!(machine.turn(), "the first never grows");
    }
    assert_eq!(frames(&mut machine, admin, second.0), 0, "it was pushed out");
    let urgent = begin(&mut machine, Class::Interactive, 'c', (470, 30));
    let mut beside = 0;
    while machine.reply(urgent.0, urgent.1).is_none() {
        if frames(&mut machine, admin, urgent.0) > 0 {
            let others = [first.0, second.0].map(|conn| frames(&mut machine, admin, conn));
            assert_eq!(others, [0, 0], "somebody has come in beside it");
            beside += 1;
        }
        assert!(machine.turn(), "the urgent one is never answered");
    }
    assert!(beside > 10, "it has run");
    for ((conn, call), (name, length, more)) in [(first, ('a', 500, 60)), (second, ('b', 480, 32))] {
        assert_eq!(generated(machine.finish(conn, call)).text, reference("", &prompt(name, length), more));
    }
}
