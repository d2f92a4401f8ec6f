//! For whom a thread works: whoever may wait long looks whether anybody still wants the outcome.

use std::cell::RefCell;

/// Whether who asked has gone.
type IsGone = Box<dyn Fn() -> bool>;

thread_local! {
    static CALLER: RefCell<Option<IsGone>> = const { RefCell::new(None) };
}

/// Sets the thread back when work ends, however that is.
struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        CALLER.with_borrow_mut(|caller| *caller = None);
    }
}

/// Does `work` for somebody, who may go meanwhile.
pub(crate) fn on_behalf<R>(is_gone: impl Fn() -> bool + 'static, work: impl FnOnce() -> R) -> R {
    CALLER.with_borrow_mut(|caller| *caller = Some(Box::new(is_gone)));
    let _reset = Reset;
    work()
}

/// Whether this thread works for somebody who is still there. What is done behind, for nobody in
/// particular, is never waited for.
#[must_use]
pub(crate) fn waits() -> bool {
    CALLER.with_borrow(|caller| caller.as_ref().is_some_and(|is_gone| !is_gone()))
}

/// Whether this thread works for somebody who is not there any more.
#[must_use]
pub(crate) fn has_gone() -> bool {
    CALLER.with_borrow(|caller| caller.as_ref().is_some_and(|is_gone| is_gone()))
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_caller_is_there_until_he_goes_or_the_work_ends() {
        assert!(!waits() && !has_gone());
        let gone = Rc::new(Cell::new(false));
        let looks = Rc::clone(&gone);
        on_behalf(
            move || looks.get(),
            || {
                assert!(waits() && !has_gone());
                gone.set(true);
                assert!(!waits() && has_gone());
            },
        );
        assert!(!waits());
        let caught = std::panic::catch_unwind(|| on_behalf(|| false, || panic!("on purpose")));
        assert!(caught.is_err() && !waits());
    }
}
