//! Random operations and faults, compared with a `Vec<u8>` after each, and the server with it after
//! each commit.

use ferryfs::vfs::error::ErrorKind;
use proptest::prelude::*;

use super::*;
use crate::support::memory::Op;

#[derive(Debug, Clone)]
enum Step {
    Write(u64, usize, u8),
    Append(usize, u8),
    Read(u64, usize),
    SetLen(u64),
    Commit,
    /// Another handle, perhaps with `O_TRUNC`.
    Reopen(bool),
    /// The last handle goes, another opens.
    Close,
    Fault(Op, ErrorKind),
    Cut(bool, u64),
    End(u64, bool),
}

/// Sizes are small beside the file so that ranges touch, overlap and leave holes.
const SIZE: u64 = 3000;

fn step() -> impl Strategy<Value = Step> {
    let op = prop::sample::select(vec![
        Op::Retrieve,
        Op::Read,
        Op::Finish,
        Op::Store,
        Op::Append,
        Op::Write,
        Op::Publish,
        Op::StatNow,
    ]);
    let trouble = prop::sample::select(vec![
        ErrorKind::Disconnected,
        ErrorKind::TimedOut,
        ErrorKind::NoSpace,
    ]);
    prop_oneof![
        6 => (0..SIZE, 1..400_usize, any::<u8>()).prop_map(|(at, len, b)| Step::Write(at, len, b)),
        3 => (1..200_usize, any::<u8>()).prop_map(|(len, b)| Step::Append(len, b)),
        6 => (0..SIZE, 1..2000_usize).prop_map(|(at, len)| Step::Read(at, len)),
        2 => (0..SIZE).prop_map(Step::SetLen),
        4 => Just(Step::Commit),
        1 => any::<bool>().prop_map(Step::Reopen),
        2 => Just(Step::Close),
        2 => (op, trouble).prop_map(|(op, kind)| Step::Fault(op, kind)),
        1 => (any::<bool>(), 0..SIZE).prop_map(|(read, at)| Step::Cut(read, at)),
        1 => (0..SIZE, any::<bool>()).prop_map(|(at, agrees)| Step::End(at, agrees)),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    appends: bool,
    sizes: bool,
    budget: usize,
    new: bool,
    short: usize,
}

fn setting() -> impl Strategy<Value = Setting> {
    let budget = prop::sample::select(vec![0, 1000, 64 << 10, 64 << 20]);
    (
        any::<bool>(),
        any::<bool>(),
        budget,
        any::<bool>(),
        50..5000_usize,
    )
        .prop_map(|(appends, sizes, budget, new, short)| Setting {
            appends,
            sizes,
            budget,
            new,
            short,
        })
}

/// The file as it should be, beside the file as it is.
struct Pair {
    mount: Mount,
    file: Handle,
    ours: Vec<u8>,
    theirs: Option<Vec<u8>>,
    /// What failed commits tried to bring there since.
    tried: Vec<Vec<u8>>,
}

impl Pair {
    fn new(setting: Setting) -> Self {
        let mount = Mount::on(MemoryServer::new(), setting.budget);
        mount.server.allow_append(setting.appends);
        mount.server.tell_sizes(setting.sizes);
        mount.faulty.short_reads(setting.short);
        let old = (!setting.new).then(|| pattern(2000));
        if let Some(old) = &old {
            mount.server.put("a", old.clone());
        }
        let file = mount.open("a", if setting.new { CREATE } else { WRITE });
        Self {
            mount,
            file,
            ours: old.clone().unwrap_or_default(),
            theirs: old,
            tried: Vec::new(),
        }
    }

    fn resize(&mut self, len: u64) {
        self.ours.resize(len as usize, 0);
    }

    fn write(&mut self, at: u64, data: &[u8]) {
        // An upload's refusal may be told here; then nothing was written.
        if self.file.try_write(at, data).is_ok() {
            let end = at as usize + data.len();
            if self.ours.len() < end {
                self.resize(end as u64);
            }
            self.ours[at as usize..end].copy_from_slice(data);
        }
    }

    fn commit(&mut self) {
        match self.file.try_commit() {
            Ok(()) => {
                assert!(!self.file.file.is_dirty());
                self.theirs = Some(self.ours.clone());
                self.tried.clear();
            }
            Err(err) => {
                assert_ne!(err.kind(), ErrorKind::Stale, "nobody else was there: {err}");
                assert!(self.file.file.is_dirty());
                // A broken append may have left a part of the tail, never a change below.
                self.tried.push(self.ours.clone());
                let there = self.mount.server.get("a");
                let prefix = |there: &Vec<u8>| {
                    let tail = |tried: &Vec<u8>| tried.starts_with(there);
                    there.starts_with(self.theirs.as_ref().unwrap()) && self.tried.iter().any(tail)
                };
                assert!(there == self.theirs || there.as_ref().is_some_and(prefix));
            }
        }
    }

    fn close(&mut self) {
        self.mount.faulty.heal();
        self.commit();
        self.file.close().unwrap();
        assert_eq!(self.mount.server.get("a"), self.theirs);
        assert_eq!(self.mount.server.in_use(), 0);
        self.file = self.mount.open("a", WRITE);
    }

    fn take(&mut self, step: &Step, setting: Setting) {
        match *step {
            Step::Write(at, len, byte) => self.write(at, &vec![byte; len]),
            Step::Append(len, byte) => self.write(self.ours.len() as u64, &vec![byte; len]),
            Step::Read(at, len) => {
                if let Ok(read) = self.file.try_read(at, len) {
                    let end = self.ours.len().min(at as usize + len);
                    assert_eq!(read, self.ours[end.min(at as usize)..end]);
                }
            }
            Step::SetLen(len) => {
                if self.file.file.set_len(&path("a"), len).is_ok() {
                    self.resize(len);
                }
            }
            Step::Commit => self.commit(),
            Step::Reopen(truncate) => {
                let how = OpenHow { truncate, ..WRITE };
                let known = self.mount.server.peek("a");
                let known = known.filter(|_| !self.file.file.is_dirty());
                let reopened = self.file.file.reopen(&path("a"), known.as_ref(), how);
                if truncate && reopened.is_ok() {
                    self.resize(0);
                }
            }
            Step::Close => {
                self.close();
                self.mount.faulty.short_reads(setting.short);
            }
            Step::Fault(op, kind) => self.mount.faulty.fail(op, kind),
            Step::Cut(read, at) => {
                let op = if read { Op::Read } else { Op::Write };
                self.mount.faulty.cut(op, at, ErrorKind::Disconnected);
            }
            Step::End(at, agrees) => {
                // Without a size, a server that lies about the end cannot be found out.
                self.mount.faulty.end(at, agrees && setting.sizes);
            }
        }
        if setting.sizes || self.file.file.is_dirty() {
            assert_eq!(self.file.size(), Some(self.ours.len() as u64));
        }
    }
}

fn run(steps: &[Step], setting: Setting) {
    let mut pair = Pair::new(setting);
    for step in steps {
        pair.take(step, setting);
    }
    pair.mount.faulty.heal();
    assert_eq!(pair.file.read_all(777), pair.ours);
    pair.close();
    assert_eq!(pair.file.read_all(777), pair.ours);
    assert!(pair.mount.state("lost+found").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_sequence_agrees_with_a_vector(
        steps in proptest::collection::vec(step(), 0..40),
        setting in setting(),
    ) {
        run(&steps, setting);
    }
}

#[test]
fn what_is_cut_after_a_broken_append_is_still_ours() {
    let setting = Setting {
        appends: true,
        sizes: true,
        budget: 0,
        new: false,
        short: 50,
    };
    let steps = [
        Step::Fault(Op::Publish, ErrorKind::NoSpace),
        Step::Write(2128, 291, 0),
        Step::Commit,
        Step::SetLen(1),
        Step::Commit,
    ];
    run(&steps, setting);
}
