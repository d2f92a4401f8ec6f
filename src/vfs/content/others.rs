//! Whether anything moves but what one moves oneself.

use std::time::{Duration, Instant};

/// Others rest when nothing has moved for so long.
const LULL: Duration = Duration::from_millis(300);

/// See the module.
#[derive(Default)]
pub(super) struct Others {
    moved: u64,
    since: Option<Instant>,
    /// What moved by our own doing.
    own: u64,
}

impl Others {
    /// So many bytes moved by our own doing.
    pub(super) const fn own(&mut self, bytes: u64) {
        self.own += bytes;
    }

    /// They are waited for from now on.
    pub(super) const fn begin_rest(&mut self) {
        self.since = None;
    }

    /// Whether something moved since it was last asked that is not ours, of all `bytes` so far.
    pub(super) fn move_on(&mut self, bytes: u64) -> bool {
        let moved = bytes.saturating_sub(self.own);
        let news = moved != self.moved || self.since.is_none();
        if news {
            (self.moved, self.since) = (moved, Some(Instant::now()));
        }
        news
    }

    /// Whether nothing has for a while.
    pub(super) fn rest(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= LULL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_moves_oneself_is_no_others() {
        let mut others = Others::default();
        assert!(others.move_on(100) && !others.rest());
        others.own(50);
        assert!(!others.move_on(150) && others.move_on(151));
        assert!(!others.rest());
        std::thread::sleep(LULL);
        assert!(others.rest() && !others.move_on(151));
        others.begin_rest();
        assert!(!others.rest());
    }
}
