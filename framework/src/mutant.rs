//! Rules that simulations break on purpose, one at a time, to see that it is noticed (`sim/`). In all other builds none
//! is broken.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static BROKEN: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Whether this rule is broken.
#[inline]
pub(crate) fn broken(rule: &'static str) -> bool {
    #[cfg(test)]
    return BROKEN.get() == Some(rule);
    #[cfg(not(test))]
    {
        let _ = rule;
        false
    }
}

/// Breaks this rule, or none, on this thread.
#[cfg(test)]
pub(crate) fn break_rule(rule: Option<&'static str>) {
    BROKEN.set(rule);
}
