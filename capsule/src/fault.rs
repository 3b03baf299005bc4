//! A fault in one part that must not be the end of the whole: what a program prints reaches code of ours and of others that
//! may panic on it, and would again in the next mux, which is given the same bytes. Absent: what is done instead.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// The result, or nothing after a panic; then whatever was worked on is to be thrown away. Not to be nested.
pub fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    CONTAINED.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(false);
    result.ok()
}

/// A panic on this thread will be caught: for hooks that would end the process.
pub fn is_contained() -> bool {
    CONTAINED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_is_nothing_and_leaves_nothing_behind() {
        assert_eq!(contained(is_contained), Some(true));
        assert_eq!(contained(|| panic!("a fault, on purpose")), None::<()>);
        assert!(!is_contained());
    }
}
