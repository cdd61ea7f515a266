//! A store that comes back by itself: after an error or a panic it is closed, and opened again when it is next needed.
//!
//! sled refuses everything after one failed write, so that a full disk would make it useless until a restart; opened
//! anew it works as soon as there is room. It also panics where it finds damage, which must cost one call and not the
//! thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::StoreError;

/// What opens it.
type Open<T> = Box<dyn FnMut() -> Result<T, StoreError> + Send>;

/// Something on disk that is closed while it cannot be used.
pub(super) struct Healing<T> {
    /// What it is, in the log.
    what: &'static str,
    open: Open<T>,
    store: Option<T>,
    /// The last use failed, and the log says so.
    failing: bool,
}

impl<T> Healing<T> {
    /// Opens it when it is first needed.
    pub fn new(what: &'static str, open: impl FnMut() -> Result<T, StoreError> + Send + 'static) -> Self {
        Healing { what, open: Box::new(open), store: None, failing: false }
    }

    /// Takes one that is open.
    pub fn opened(
        what: &'static str,
        store: T,
        open: impl FnMut() -> Result<T, StoreError> + Send + 'static,
    ) -> Self {
        Healing { store: Some(store), ..Healing::new(what, open) }
    }

    /// Uses it.
    ///
    /// # Errors
    ///
    /// It cannot be opened or used now; what was under way may be done or not.
    pub fn act<R>(&mut self, act: impl FnOnce(&mut T) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let result = self.try_act(act);
        match &result {
            Ok(_) if std::mem::take(&mut self.failing) => {
                tracing::info!("the store of {} works again", self.what);
            }
            Ok(_) => {}
            Err(e) => {
                self.close();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(
                        "the store of {} cannot be used: {e}; trying again when needed",
                        self.what
                    );
                }
            }
        }
        result
    }

    fn try_act<R>(&mut self, act: impl FnOnce(&mut T) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let doing = || {
            let store = match &mut self.store {
                Some(store) => store,
                closed => closed.insert((self.open)()?),
            };
            act(store)
        };
        catch_unwind(AssertUnwindSafe(doing))
            .unwrap_or_else(|panic| Err(StoreError::Damaged(super::sled::words_of(&*panic))))
    }

    fn close(&mut self) {
        let store = self.store.take();
        // sled may panic once more when it cannot flush; the error at hand says why.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
    }
}
