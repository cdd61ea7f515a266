//! A line of those who want something one at a time. Users are served in turns, and those of one user in the order in which
//! they asked: whoever has a thousand connections gets no more of it than a user with one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Whose connection it is; nobody's yet of those who are not let in.
pub type Whose = Option<u32>;

/// The line.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Mutex<State>>);

/// Nobody waits for what nobody has.
#[derive(Debug, Default)]
struct State {
    taken: bool,
    /// Those of each user who has some in line; whose turn is next stands first.
    users: VecDeque<(Whose, VecDeque<oneshot::Sender<Taken>>)>,
}

/// What one had to wait for, until this is dropped.
#[derive(Debug)]
pub struct Taken(Option<Line>);

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(line) = self.0.take() {
            line.pass_on();
        }
    }
}

impl Line {
    /// Waits for one's turn.
    pub async fn take(&self, whose: Whose) -> Taken {
        match self.enter(whose) {
            None => Taken(Some(self.clone())),
            Some(turn) => turn.await.expect("nobody leaves the line but at its head"),
        }
    }

    /// Stands in line, unless nobody is there.
    fn enter(&self, whose: Whose) -> Option<oneshot::Receiver<Taken>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut state.taken, true) {
            return None;
        }
        let (turn, waits) = oneshot::channel();
        match state.users.iter_mut().find(|(user, _)| *user == whose) {
            Some((_, own)) => own.push_back(turn),
            None => state.users.push_back((whose, VecDeque::from([turn]))),
        }
        Some(waits)
    }

    /// Gives what was taken to the next one who still wants it.
    fn pass_on(&self) {
        while let Some(next) = self.next() {
            match next.send(Taken(Some(self.clone()))) {
                Ok(()) => return,
                // It has left; what it was given is not to be passed on a second time.
                Err(mut unwanted) => drop(unwanted.0.take()),
            }
        }
    }

    /// The next in line; where there is none, it is free.
    fn next(&self) -> Option<oneshot::Sender<Taken>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((user, mut own)) = state.users.pop_front() else {
            state.taken = false;
            return None;
        };
        let next = own.pop_front();
        if !own.is_empty() {
            state.users.push_back((user, own));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{JoinSet, yield_now};

    use super::*;

    /// The order in which those are served who stand in line behind one who is served.
    async fn order(line: &Line, waiting: &[Whose]) -> Vec<Whose> {
        let first = line.take(None).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut all = JoinSet::new();
        for whose in waiting {
            let (line, whose, served) = (line.clone(), *whose, Arc::clone(&served));
            all.spawn(async move {
                let _turn = line.take(whose).await;
                served.lock().expect("nobody panics").push(whose);
            });
            yield_now().await;
        }
        drop(first);
        all.join_all().await;
        let served = served.lock().expect("nobody panics");
        served.clone()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn user_with_one_waits_for_one_of_a_user_with_a_thousand() {
        let mut waiting = vec![Some(1); 1000];
        waiting.extend([Some(2), None]);
        let served = order(&Line::default(), &waiting).await;
        assert_eq!(served[..4], [Some(1), Some(2), None, Some(1)]);
        assert_eq!(served.len(), 1002);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn line_is_free_when_those_in_it_have_left() {
        let line = Line::default();
        let first = line.take(Some(1)).await;
        let mut left = JoinSet::new();
        for _ in 0..10 {
            let line = line.clone();
            left.spawn(async move { drop(line.take(Some(1)).await) });
            yield_now().await;
        }
        left.shutdown().await;
        drop(first);
        assert!(line.enter(Some(2)).is_none(), "nobody is there");
        // One that leaves with its turn on the way gives it back.
        let on_the_way = line.enter(Some(3)).expect("it is taken");
        line.pass_on();
        drop(on_the_way);
        assert!(line.enter(Some(4)).is_none());
    }
}
