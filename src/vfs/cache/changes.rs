//! Which of this mount's own changes overtook an answer of the server.

use std::collections::VecDeque;

use crate::vfs::path::RemotePath;

/// Changes remembered to tell whether an answer was overtaken by one. Whoever asked longer ago
/// than that is not believed.
const CHANGES: usize = 512;

/// A point in the order of this mount's own changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(u64);

/// The latest changes, in order.
#[derive(Debug, Default)]
pub(super) struct Changes {
    generation: Generation,
    latest: VecDeque<(Generation, RemotePath)>,
}

impl Changes {
    /// To be taken before anything is asked or changed, and shown with the outcome.
    pub(super) const fn generation(&self) -> Generation {
        self.generation
    }

    /// Something was changed at `path`, or perhaps was: answers on their way are out of date.
    pub(super) fn note(&mut self, path: &RemotePath) {
        self.generation.0 += 1;
        self.latest.push_back((self.generation, path.clone()));
        if self.latest.len() > CHANGES {
            self.latest.pop_front();
        }
    }

    /// Whether a change since then makes an answer about `path` doubtful.
    pub(super) fn overtook(&self, since: Generation, path: &RemotePath) -> bool {
        self.any(since, |changed| path.is_within(changed))
    }

    /// Whether a change since then makes a listing of `dir` doubtful.
    pub(super) fn overtook_listing(&self, since: Generation, dir: &RemotePath) -> bool {
        self.any(since, |changed| {
            dir.is_within(changed) || changed.parent().as_ref() == Some(dir)
        })
    }

    fn any(&self, since: Generation, affects: impl Fn(&RemotePath) -> bool) -> bool {
        let forgotten = self.generation.0 - self.latest.len() as u64;
        since.0 < forgotten
            || self
                .latest
                .iter()
                .rev()
                .take_while(|(at, _)| *at > since)
                .any(|(_, changed)| affects(changed))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_change_overtakes_its_name_what_is_below_and_the_listing_it_is_in() {
        let mut changes = Changes::default();
        let since = changes.generation();
        changes.note(&path("a/b"));
        for (asked, name, listing) in [
            ("a/b", true, true),
            ("a/b/c", true, true),
            ("a", false, true),
            ("a/bc", false, false),
            ("", false, false),
        ] {
            assert_eq!(changes.overtook(since, &path(asked)), name, "{asked}");
            assert_eq!(
                changes.overtook_listing(since, &path(asked)),
                listing,
                "{asked}"
            );
        }
        assert!(!changes.overtook(changes.generation(), &path("a/b")));
    }

    #[test]
    fn who_asked_before_all_remembered_changes_is_not_believed() {
        let mut changes = Changes::default();
        let since = changes.generation();
        for _ in 0..CHANGES {
            changes.note(&path("x"));
        }
        assert!(!changes.overtook(since, &path("y")));
        changes.note(&path("x"));
        assert!(changes.overtook(since, &path("y")));
    }
}
