//! A message that comes in pieces (message/partial, RFC 2046 section 5.2.2) is put together when the
//! last of them is there; the pieces stay what they are.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::mail::content::Content;
use crate::mail::failure::{Failure, Result};
use crate::mail::parts::{self, Piece};
use crate::mail::store::{Delivered, Store};

/// Where in a message its `Content-Type` is looked for, in bytes.
const LOOKED_AT: u64 = 16 * 1024;

/// Completes what has got its last piece by `delivered`. Trouble is logged: the pieces are there.
pub(super) fn join_pieces(store: &Store, delivered: &[Delivered]) {
    let new = store.maildir().join("new");
    let pieces = delivered
        .iter()
        .filter_map(|message| piece_at(&new.join(&*message.name)));
    let ids: BTreeSet<String> = pieces.map(|piece| piece.id).collect();
    if ids.is_empty() {
        return;
    }
    if let Err(err) = join_all(store, &ids) {
        log::warn!("a message in pieces was not put together: {err}");
    }
}

fn join_all(store: &Store, ids: &BTreeSet<String>) -> Result<()> {
    // They may have been read, and renamed, long ago.
    let here: Vec<(String, PathBuf)> = store
        .files()?
        .into_values()
        .filter_map(|path| Some((piece_at(&path)?.id, path)))
        .collect();
    for id in ids {
        let of_it = here.iter().filter(|(of, _)| of == id);
        let messages: Vec<&dyn Content> = of_it.map(|(_, path)| path as &dyn Content).collect();
        let mut draft = store.draft()?;
        let joined = parts::join(id, &messages, &mut draft);
        if joined.map_err(|err| Failure::local("message/partial", &err))? {
            let unique = format!("joined {id}");
            let letter = store.finish_own(draft, unique.as_bytes())?;
            store.commit(vec![letter], &|_| Ok(()))?;
        }
    }
    Ok(())
}

/// What piece the message at `path` is, if it is one.
fn piece_at(path: &Path) -> Option<Piece> {
    let mut start = Vec::new();
    let file = File::open(path).ok()?;
    file.take(LOOKED_AT).read_to_end(&mut start).ok()?;
    let word = b"message/partial";
    let mentioned = start
        .windows(word.len())
        .any(|at| at.eq_ignore_ascii_case(word));
    // Nearly no message is.
    mentioned.then(|| parts::piece(&start).ok().flatten())?
}
