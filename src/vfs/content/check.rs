//! The checksum of a version, computed as its bytes come from the server.
//!
//! Only bytes that come in order count, from the first to the last: those of a file that is copied
//! or read through, whichever connections they came by. What a reader who jumps about got is not
//! compared.

use crate::sync::Locked;
use crate::vfs::checksum::{Algorithm, Checksum, Running};
use crate::vfs::error::Error;

/// See the module.
#[derive(Debug)]
pub(super) struct Check(Locked<State>);

#[derive(Debug)]
enum State {
    Off,
    Running(Box<Running>),
    Passed,
    Failed(Error),
}

impl Check {
    /// `None`: nothing is compared.
    pub(super) fn new(algorithm: Option<Algorithm>) -> Self {
        let state = algorithm.map_or(State::Off, |algorithm| {
            State::Running(Box::new(algorithm.begin()))
        });
        Self(Locked::new(state))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.with(|state| !matches!(state, State::Off))
    }

    /// `bytes` came, which lie at `offset`.
    pub(super) fn add(&self, offset: u64, bytes: &[u8]) {
        self.0.with(|state| {
            let State::Running(sum) = state else { return };
            let known = sum.len().checked_sub(offset);
            let known = known.and_then(|known| usize::try_from(known).ok());
            if let Some(new) = known.and_then(|known| bytes.get(known..)) {
                sum.add(new);
            }
        });
    }

    /// The checksum of all `size` bytes, if they have come in order and were not compared yet.
    pub(super) fn of_all(&self, size: u64) -> Option<Checksum> {
        self.0.with(|state| match state {
            State::Running(sum) if sum.len() == size => Some(Running::clone(sum).end()),
            _ => None,
        })
    }

    /// It is the server's.
    pub(super) fn pass(&self) {
        self.0.with(|state| *state = State::Passed);
    }

    /// It is not.
    pub(super) fn fail(&self, err: &Error) {
        self.0.with(|state| *state = State::Failed(err.clone()));
    }

    /// How the comparison ended, if badly.
    pub(super) fn failure(&self) -> Option<Error> {
        self.0.with(|state| match state {
            State::Failed(err) => Some(err.clone()),
            _ => None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_order_count_once_and_others_not_at_all() {
        let check = Check::new(Some(Algorithm::Crc32));
        check.add(0, b"1234");
        check.add(6, b"789");
        check.add(0, b"1234");
        check.add(2, b"3456");
        assert_eq!(check.of_all(9), None);
        check.add(4, b"56789");
        assert_eq!(check.of_all(8), None);
        assert_eq!(check.of_all(9).unwrap().digits, "cbf43926");
        check.pass();
        assert_eq!(check.of_all(9), None);
        assert!(check.is_on() && !Check::new(None).is_on());
    }
}
