//! A mailbox as a tree of files.
//!
//! ```text
//! new/ cur/ tmp/           the inbox, a Maildir
//! .Sent/{new,cur,tmp}      what was accepted
//! outbox/                  what is dropped here is sent; outbox/ADDRESS/, now/, at/TIME/
//! drafts/                  for preparing messages
//! failed/ID/               what was refused, and why
//! queue/ID                 how a message fares
//! parts/MESSAGE/           a message taken apart, and answers begun
//! aliases/NAME             who is behind a name; aliases/.aliases is the user's file
//! status ctl               how it goes; write to ctl what is to be done
//! ```
//!
//! Everything is on local disk, so everything is known at once; only a rename into `outbox/now/`
//! waits for anybody.

mod asked;
mod composing;
mod joining;
mod local;
mod moves;
mod orders;
mod outbox;
mod pickup;
mod receipts;
mod reports;
mod shelf;
mod status;
mod submitted;
mod text;
mod tree;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

pub use self::asked::look;
pub use self::pickup::hand_in;

use self::local::{LocalFile, failed};
use self::outbox::{Outbox, Times};
use self::receipts::Post;
use self::shelf::Shelf;
use self::text::{Orders, Text};
use self::tree::{ALIAS_FILE, Area, Areas, DIRECTORIES, FILES, Node, in_outbox};
use crate::mail::draft::{Place, is_unfinished};
use crate::mail::failure::Class;
use crate::mail::fetch::{Fetcher, ServerDelete};
use crate::mail::options::MailOptions;
use crate::mail::queue::{self, Entry, Id, Queue, QueueOptions};
use crate::mail::sender::{SendOptions, Sender};
use crate::mail::store::{Store, without_flags};
use crate::sync::Locked;
use crate::vfs::attr::{Attr, DirEntry, FileKind, SetAttr, Space};
use crate::vfs::backend::{Backend, Listener, OpenFile, OpenHow, Replaces};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

/// A message under way when the mount ends gets so long for the server's last word.
const LAST_WORD: Duration = Duration::from_secs(5);

/// How long a name of the inbox may be relied on; it changes through this mount only.
const SETTLED: Duration = Duration::from_secs(1);

/// One account, with its threads.
pub struct MailBackend {
    areas: Areas,
    store: Arc<Store>,
    queue: Arc<Queue>,
    outbox: Arc<Outbox>,
    shelf: Arc<Shelf>,
    delete: ServerDelete,
    account: String,
    started: SystemTime,
    fetcher: Locked<Option<Arc<Fetcher>>>,
    sender: Locked<Option<Arc<Sender>>>,
    /// For what lives longer than a call.
    me: Weak<Self>,
}

impl std::fmt::Debug for MailBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailBackend")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl MailBackend {
    /// Opens what is in `state_dir/mail` of the account, and begins to fetch and to send.
    /// `patience` is how long a call may wait for a server.
    ///
    /// # Errors
    /// `Busy` if another process has this mailbox; options that TLS cannot use; the disk's.
    pub fn start(state_dir: &Path, options: &MailOptions, patience: Duration) -> Result<Arc<Self>> {
        let fetch = &options.fetch;
        let (account, host) = (fetch.account(), fetch.endpoint.host.clone());
        let store = Arc::new(Store::open(state_dir, &account, &host)?);
        let maildir = store.maildir().to_owned();
        let root = maildir.parent().unwrap_or(&maildir).to_owned();
        for dir in ["Sent/new", "Sent/cur", "Sent/tmp", "drafts"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).map_err(|err| failed(&dir, &err))?;
        }
        let (queue, recovered) = Queue::open(&root.join("queue"), QueueOptions::default())?;
        for id in &recovered.in_doubt {
            log::warn!("mail {id}: may have been sent when ferryfs was stopped; see queue/{id}");
        }
        let queue = Arc::new(queue);
        let from = options.submission.as_ref().and(options.from.clone());
        let times = Times {
            linger: options.linger,
            patience,
        };
        let outbox = Outbox::open(&root, Arc::clone(&queue), &recovered, from, times)?;
        let outbox = Arc::new(outbox);
        let me = options.from.iter().map(|from| from.address.clone());
        let shelf = Arc::new(Shelf::new(maildir.clone(), me.collect()));
        let backend = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            areas: Areas {
                root: root.clone(),
                maildir,
            },
            store: Arc::clone(&store),
            queue: Arc::clone(&queue),
            outbox: Arc::clone(&outbox),
            shelf,
            delete: fetch.delete,
            account,
            started: SystemTime::now(),
            fetcher: Locked::new(None),
            sender: Locked::new(None),
        });
        if let Some(submission) = &options.submission {
            let name = rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned();
            let options = SendOptions::new(submission.clone(), name);
            let post = Post {
                root,
                host,
                store: Arc::clone(&store),
                outbox: Arc::clone(&outbox),
            };
            let sender = Arc::new(Sender::start(queue, options, Arc::new(post))?);
            outbox.sends_with(&sender);
            backend.sender.with(|kept| *kept = Some(sender));
        }
        let me = Arc::downgrade(&backend);
        let fetcher = Fetcher::start(store, fetch.clone(), move |delivered| {
            if let Some(backend) = me.upgrade() {
                backend.look_for_reports(delivered);
                joining::join_pieces(&backend.store, delivered);
            }
        })?;
        backend.fetcher.with(|kept| *kept = Some(Arc::new(fetcher)));
        Ok(backend)
    }

    /// Where there is nothing yet that could be shown or sent without the server: waits for the
    /// answer to the first login, `limit` at most.
    ///
    /// # Errors
    /// What only the user can mend: `PermissionDenied` for a wrong password, `Untrusted` for a
    /// refused certificate or a server without TLS. Not what time may mend.
    pub fn first_login(&self, limit: Duration) -> Result<()> {
        let has_mail = self
            .store
            .with_ledger(|ledger| ledger.iter().next().is_some());
        let Some(fetcher) = self.fetcher() else {
            return Ok(());
        };
        let waits = !has_mail && self.queue.is_empty();
        match fetcher.first_login(if waits { limit } else { Duration::ZERO }) {
            Err(failure) if waits && failure.class() == Class::Account => Err(failure.into()),
            Err(failure) => {
                log::warn!("fetching mail: {failure}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Ends fetching and sending; what is queued stays queued.
    pub fn stop(&self) {
        // Who uses one at this moment keeps it from being stopped in good order, no more.
        if let Some(fetcher) = self.fetcher.with(Option::take).and_then(Arc::into_inner) {
            fetcher.stop();
        }
        if let Some(sender) = self.sender.with(Option::take).and_then(Arc::into_inner) {
            sender.stop(LAST_WORD);
        }
    }

    fn fetcher(&self) -> Option<Arc<Fetcher>> {
        self.fetcher.with(|fetcher| fetcher.clone())
    }

    fn sender(&self) -> Option<Arc<Sender>> {
        self.sender.with(|sender| sender.clone())
    }

    fn node(&self, path: &RemotePath) -> Result<Node> {
        self.areas.node(path).ok_or_else(|| missing(path))
    }

    fn queued(&self, id: &Id) -> Result<Entry> {
        let queued = self.queue.list().into_iter().find(|entry| entry.id == *id);
        queued.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("queue/{id}: not queued")))
    }

    /// Attributes of what is made when it is read.
    fn text_attr(text: &str, changed: SystemTime) -> Attr {
        let mut attr = Attr::new(FileKind::File);
        attr.size = Some(text.len() as u64);
        attr.mtime = Some(changed);
        attr.mtime_exact = true;
        attr.mode = Some(0o400);
        attr
    }

    /// A directory that is made up: it changes when `real` does.
    fn directory_attr(&self, real: &str) -> Attr {
        let mut attr = Attr::new(FileKind::Directory);
        attr.mode = Some(0o700);
        attr.mtime = local::stat(&self.areas.root.join(real))
            .ok()
            .and_then(|of| of.mtime);
        attr.mtime_exact = true;
        attr
    }

    fn alias(&self, name: &str) -> Result<String> {
        let aliases = self.outbox.aliases();
        if !aliases.contains(name) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("aliases/{name}: no such alias"),
            ));
        }
        // A name that cannot be used is shown with the reason.
        Ok(aliases
            .text(name)
            .unwrap_or_else(|err| format!("# {err}\n")))
    }

    fn list_of(&self, dir: &RemotePath) -> Result<Vec<DirEntry>> {
        let entry =
            |name: &str, attr: Attr| Name::new(name).ok().map(|name| DirEntry { name, attr });
        match self.node(dir)? {
            Node::Root => {
                let names = DIRECTORIES.iter().chain(&FILES);
                let entries = names.filter_map(|name| {
                    let path = RemotePath::parse(name.as_bytes()).ok()?;
                    entry(name, self.stat(&path).ok()?)
                });
                Ok(entries.collect())
            }
            Node::Real(area, real) => match local::list(&real) {
                Err(err) if err.kind() == ErrorKind::NotFound && self.may_be(area, dir) => {
                    Ok(Vec::new())
                }
                listed => listed,
            },
            Node::Queue => {
                let entries = self.queue.list();
                let entries = entries.iter().filter_map(|queued| {
                    entry(
                        queued.id.as_str(),
                        queued_attr(queued, &queue::text(queued)),
                    )
                });
                Ok(entries.collect())
            }
            Node::Parts(below) => self.shelf.list(&below),
            Node::Aliases => {
                let file = self.areas.root.join("aliases");
                let mut entries: Vec<_> = local::stat(&file)
                    .ok()
                    .and_then(|attr| entry(ALIAS_FILE, attr))
                    .into_iter()
                    .collect();
                let aliases = self.outbox.aliases();
                entries.extend(aliases.names().filter_map(|name| {
                    let text = self.alias(name).ok()?;
                    entry(name, Self::text_attr(&text, SystemTime::UNIX_EPOCH))
                }));
                Ok(entries)
            }
            Node::Queued(_) | Node::Alias(_) | Node::Status | Node::Ctl => {
                Err(ErrorKind::NotADirectory.into())
            }
        }
    }

    /// Whether `path`, which is not on disk, is a directory all the same: `outbox/ADDRESS`.
    fn may_be(&self, area: Area, path: &RemotePath) -> bool {
        area == Area::Outbox
            && in_outbox(path).is_some_and(|place| self.outbox.may_be_directory(&place))
    }

    /// The file or directory on disk at `path`, to be changed.
    fn real(&self, path: &RemotePath) -> Result<(Area, std::path::PathBuf)> {
        if Areas::is_fixed(path) {
            return Err(Error::new(
                ErrorKind::NotPermitted,
                format!("{path}: belongs to the mailbox"),
            ));
        }
        match self.node(path)? {
            Node::Real(area, real) => Ok((area, real)),
            _ => Err(Error::new(
                ErrorKind::NotPermitted,
                format!("{path}: is made by ferryfs"),
            )),
        }
    }
}

fn missing(path: &RemotePath) -> Error {
    Error::new(ErrorKind::NotFound, format!("{path}: no such file"))
}

fn base_name(real: &Path) -> &str {
    let name = real.file_name().and_then(|name| name.to_str());
    name.map(without_flags).unwrap_or_default()
}

fn queued_attr(entry: &Entry, text: &str) -> Attr {
    let changed = entry.recipients.iter().map(|recipient| recipient.at).max();
    let changed = changed.unwrap_or_default().max(entry.queued_at);
    MailBackend::text_attr(text, SystemTime::UNIX_EPOCH + Duration::from_secs(changed))
}

impl Backend for MailBackend {
    fn stat(&self, path: &RemotePath) -> Result<Attr> {
        match self.node(path)? {
            Node::Root => Ok(self.directory_attr("")),
            Node::Real(area, real) => match local::stat(&real) {
                Err(err) if err.kind() == ErrorKind::NotFound && self.may_be(area, path) => {
                    Ok(self.directory_attr("outbox"))
                }
                found => found,
            },
            Node::Queue => Ok(self.directory_attr("queue/journal")),
            Node::Parts(below) => self.shelf.stat(&below),
            Node::Aliases => Ok(self.directory_attr("aliases")),
            Node::Queued(id) => {
                let entry = self.queued(&id)?;
                Ok(queued_attr(&entry, &queue::text(&entry)))
            }
            Node::Alias(name) => {
                let text = self.alias(&name)?;
                let changed = local::stat(&self.areas.root.join("aliases"))?.mtime;
                Ok(Self::text_attr(
                    &text,
                    changed.unwrap_or(SystemTime::UNIX_EPOCH),
                ))
            }
            Node::Status => Ok(self.live_attr(0o400)),
            Node::Ctl => Ok(self.live_attr(0o600)),
        }
    }

    fn list(&self, dir: &RemotePath) -> Result<Arc<[DirEntry]>> {
        self.list_of(dir).map(Into::into)
    }

    fn known(&self, path: &RemotePath) -> Option<(Result<Attr>, Duration)> {
        let settled = path.components().count() == 2
            && matches!(path.components().next(), Some(b"new" | b"cur"));
        let attr = self.stat(path);
        let validity = if settled && attr.is_ok() {
            SETTLED
        } else {
            Duration::ZERO
        };
        Some((attr, validity))
    }

    fn known_list(&self, dir: &RemotePath) -> Option<(Arc<[DirEntry]>, Duration)> {
        self.list(dir).ok().map(|listing| (listing, Duration::ZERO))
    }

    fn open(&self, path: &RemotePath, _: Option<&Attr>, how: OpenHow) -> Result<Arc<dyn OpenFile>> {
        match self.node(path)? {
            Node::Real(area, real) => {
                if area == Area::Outbox
                    && how.create.is_some()
                    && let Some(place) = in_outbox(path)
                {
                    self.outbox.may_send()?;
                    self.make_parent(&real, &place)?;
                }
                LocalFile::open(&real, path, how, &self.outbox)
            }
            Node::Queued(id) => {
                let entry = self.queued(&id)?;
                let text = queue::text(&entry);
                let attr = queued_attr(&entry, &text);
                Text::open(text, attr, how)
            }
            Node::Alias(name) => {
                let text = self.alias(&name)?;
                let attr = Self::text_attr(&text, SystemTime::UNIX_EPOCH);
                Text::open(text, attr, how)
            }
            Node::Parts(below) => self.shelf.open(&below, how),
            Node::Status => Text::open(self.status_text(), self.live_attr(0o400), how),
            Node::Ctl => {
                let me = Weak::clone(&self.me);
                Ok(Orders::open(Arc::new(move |line| {
                    me.upgrade().map_or(Ok(()), |backend| backend.obey(line))
                })))
            }
            Node::Root | Node::Queue | Node::Aliases => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn mkdir(&self, path: &RemotePath, _: Option<u32>) -> Result<()> {
        let (area, real) = self.real(path)?;
        match (area, in_outbox(path)) {
            (Area::Drafts | Area::Failed, _) => {}
            (Area::Outbox, Some(place)) => {
                self.outbox.may_send()?;
                if !is_unfinished(place.components().next_back().unwrap_or_default()) {
                    Place::of_directory(&place, &jiff::ZonedDateTime::now())?;
                }
                self.make_parent(&real, &place)?;
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::NotPermitted,
                    format!("{path}: no directories here"),
                ));
            }
        }
        fs::create_dir(&real).map_err(|err| failed(&real, &err))
    }

    fn unlink(&self, path: &RemotePath) -> Result<()> {
        if let Ok(Node::Queued(id)) = self.node(path) {
            return self.queue.cancel(&id);
        }
        let (area, real) = self.real(path)?;
        let place = in_outbox(path);
        match (area, &place) {
            (Area::Inbox, _) if path.components().next() != Some(b"tmp") => {
                self.removed_from_inbox(&real)?;
            }
            (Area::Outbox, Some(place)) => {
                self.outbox.withdraw(place)?;
                if let Some(dir) = place.parent() {
                    self.outbox.withdraw(&dir)?;
                }
            }
            _ => {}
        }
        fs::remove_file(&real).map_err(|err| failed(&real, &err))
    }

    fn rmdir(&self, path: &RemotePath) -> Result<()> {
        let (area, real) = self.real(path)?;
        match fs::remove_dir(&real) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound && self.may_be(area, path) => {
                Ok(())
            }
            done => done.map_err(|err| failed(&real, &err)),
        }
    }

    fn rename(&self, from: &RemotePath, to: &RemotePath, _: Replaces) -> Result<()> {
        let ((of, source), (into, target)) = (self.real(from)?, self.real(to)?);
        let ours = |area| matches!(area, Area::Drafts | Area::Outbox | Area::Failed);
        if of == into && of == Area::Inbox {
            return self.rename_in_inbox(&source, &target);
        }
        if of != into && !(ours(of) && ours(into)) {
            // Programs copy then.
            let line = format!("{from}, {to}: not moved but copied");
            return Err(Error::new(
                ErrorKind::Local(Errno::XDEV.raw_os_error()),
                line,
            ));
        }
        if let Some(place) = in_outbox(from) {
            self.outbox.withdraw(&place)?;
        }
        match in_outbox(to) {
            Some(place) => {
                self.outbox.may_send()?;
                self.rename_into_outbox(&source, &target, &place)?;
            }
            None => fs::rename(&source, &target).map_err(|err| failed(&source, &err))?,
        }
        if let Some(place) = in_outbox(from) {
            self.outbox.tidy(&place);
        }
        Ok(())
    }

    fn link(&self, from: &RemotePath, to: &RemotePath) -> Result<()> {
        let ((of, source), (into, target)) = (self.real(from)?, self.real(to)?);
        match (of, in_outbox(to)) {
            (Area::Drafts | Area::Failed, Some(place)) => {
                self.outbox.may_send()?;
                self.link_into_outbox(&source, &target, &place)
            }
            // A directory of the store is one filesystem.
            _ if of == into && of != Area::Outbox => {
                fs::hard_link(&source, &target).map_err(|err| failed(&target, &err))
            }
            _ => Err(Error::new(
                ErrorKind::NotPermitted,
                format!("{to}: no second name here"),
            )),
        }
    }

    fn tell(&self, listener: Arc<dyn Listener>) {
        let Ok(new) = RemotePath::parse(b"new") else {
            return;
        };
        self.store.announce_to(move |delivered| {
            let names = delivered
                .iter()
                .filter_map(|message| Name::new(&*message.name).ok());
            listener.appeared(&new, names.collect());
        });
    }

    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()> {
        match self.node(path)? {
            Node::Real(_, real) => local::set_attr(&real, change),
            // `touch ctl` and `install -m` of nothing.
            _ => Ok(()),
        }
    }

    fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        Err(Error::new(ErrorKind::Invalid, format!("{path}: no link")))
    }

    fn symlink(&self, _: &[u8], path: &RemotePath) -> Result<()> {
        Err(Error::new(
            ErrorKind::NotPermitted,
            format!("{path}: no links in a mailbox"),
        ))
    }

    fn space(&self) -> Result<Option<Space>> {
        let root = &self.areas.root;
        let space = rustix::fs::statvfs(root).map_err(|err| failed(root, &err.into()))?;
        Ok(Some(Space {
            total: Some(space.f_blocks.saturating_mul(space.f_frsize)),
            available: space.f_bavail.saturating_mul(space.f_frsize),
        }))
    }

    fn xattrs(&self, path: &RemotePath) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(match self.node(path)? {
            Node::Real(Area::Sent, real) => self.sent_attributes(&real),
            _ => Vec::new(),
        })
    }
}
