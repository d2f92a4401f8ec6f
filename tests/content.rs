//! Open files over `Transfers`, against the model in memory.

use std::sync::Arc;

use ferryfs::vfs::backend::{Backend, OpenHow};
use ferryfs::vfs::content::Contents;

use crate::support::memory::{MemoryBackend, MemoryServer, path};

#[test]
fn what_is_written_and_committed_is_on_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = MemoryServer::new();
    let contents = Contents::new(dir.path(), 64 << 20).unwrap();
    let backend = MemoryBackend::new(&server, &contents);
    let how = OpenHow {
        write: true,
        create: Some(0o640),
        ..OpenHow::default()
    };
    let file = backend.open(&path("a"), None, how).unwrap();
    file.write_at(&path("a"), 0, b"hello").unwrap();
    assert!(file.is_dirty());
    file.commit(&path("a")).unwrap();
    assert!(!file.is_dirty());
    assert_eq!(server.get("a").as_deref(), Some(&b"hello"[..]));
    assert_eq!(server.peek("a").unwrap().mode, Some(0o640));
    drop(Arc::clone(&file));
}
