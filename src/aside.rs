//! What is found out beside something else on the terminal: no program started for it may ask or say anything there.
//!
//! In: a future. Out: the same, with `current` telling whoever starts a program for it. Absent: which programs these are.

use std::io;
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;

tokio::task_local! {
    static ASIDE: Aside;
}

/// What all that is found out beside one thing shares.
#[derive(Debug, Clone, Default)]
pub struct Aside {
    /// Where ssh puts its connection, which outlives each question.
    folder: Arc<OnceLock<Arc<TempDir>>>,
}

impl Aside {
    pub async fn run<T>(self, doing: impl Future<Output = T>) -> T {
        ASIDE.scope(self, doing).await
    }

    /// Made when it is first wanted.
    pub fn folder(&self, make: impl FnOnce() -> io::Result<TempDir>) -> io::Result<Arc<TempDir>> {
        match self.folder.get() {
            Some(folder) => Ok(folder.clone()),
            None => {
                let made = Arc::new(make()?);
                Ok(self.folder.get_or_init(|| made).clone())
            }
        }
    }
}

/// `None`: the terminal is ours.
pub fn current() -> Option<Aside> {
    ASIDE.try_with(Aside::clone).ok()
}
