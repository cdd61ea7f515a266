//! A store that comes back by itself: after an error or a panic it is closed, and opened again when it is next needed.
//!
//! sled refuses everything after one failed write, so that a full disk would make it useless until a restart; opened
//! anew it works as soon as there is room. It also panics where it finds damage, which must cost one call and not the
//! thread. While the disk lets it be read alone, it is open to be read, and each change tries to open it for good.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::StoreError;

/// What a store lets be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Full,
    ReadOnly,
}

/// What opens it.
type Open<T> = Box<dyn FnMut() -> Result<(T, Access), StoreError> + Send>;

/// Something on disk that is closed while it cannot be used.
pub(super) struct Healing<T> {
    /// What it is, in the log.
    what: &'static str,
    open: Open<T>,
    store: Option<(T, Access)>,
    /// The last use failed, and the log says so.
    failing: bool,
}

impl<T> Healing<T> {
    /// Opens it when it is first needed.
    pub fn new(
        what: &'static str,
        open: impl FnMut() -> Result<(T, Access), StoreError> + Send + 'static,
    ) -> Self {
        Healing { what, open: Box::new(open), store: None, failing: false }
    }

    /// Takes one that is open.
    pub fn opened(
        what: &'static str,
        store: (T, Access),
        open: impl FnMut() -> Result<(T, Access), StoreError> + Send + 'static,
    ) -> Self {
        Healing { store: Some(store), ..Healing::new(what, open) }
    }

    /// Reads from it.
    ///
    /// # Errors
    ///
    /// It cannot be opened or read now.
    pub fn read<R>(&mut self, act: impl FnOnce(&mut T) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let result = self.act(act);
        self.note(result)
    }

    /// Changes it.
    ///
    /// # Errors
    ///
    /// It cannot be opened or written now; what was under way may be done or not.
    pub fn change<R>(&mut self, act: impl FnOnce(&mut T) -> Result<R, StoreError>) -> Result<R, StoreError> {
        if matches!(self.store, Some((_, Access::ReadOnly))) {
            // The disk may let it be written by now.
            self.close();
        }
        let result = self.act(act);
        self.note(result)
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut T) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let doing = || {
            let (store, _) = match &mut self.store {
                Some(store) => store,
                closed => closed.insert((self.open)()?),
            };
            act(store)
        };
        catch_unwind(AssertUnwindSafe(doing))
            .unwrap_or_else(|panic| Err(StoreError::Damaged(super::sled::words_of(&*panic))))
    }

    /// Draws the conclusions, and says where a trouble begins and ends.
    fn note<R>(&mut self, result: Result<R, StoreError>) -> Result<R, StoreError> {
        let read_only = matches!(self.store, Some((_, Access::ReadOnly)));
        match &result {
            Ok(_) if read_only => {}
            Ok(_) if std::mem::take(&mut self.failing) => {
                tracing::info!("the store of {} works again", self.what);
            }
            Ok(_) => {}
            Err(e) => {
                if !read_only || matches!(e, StoreError::Damaged(_)) {
                    self.close();
                }
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

    fn close(&mut self) {
        let store = self.store.take();
        // sled may panic once more when it cannot flush; the error at hand says why.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
    }
}
