//! Attaching the filesystem to a directory, as root and through `fusermount3`.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use fuser::{Config, Session, SessionACL};
use rustix::io::FdFlags;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::Filesystem;

/// The kernel's end of a FUSE session.
const DEVICE: &str = "/dev/fuse";

/// The type `/proc/mounts` shows, after `fuse.`.
const FS_TYPE: &str = "ferryfs";

/// Threads that take requests from the kernel. What they answer themselves takes microseconds.
const EVENT_THREADS: usize = 3;

/// KiB the kernel reads ahead, where it lets us say so; its default of 128 KiB costs a third of
/// the speed of a big read.
const READ_AHEAD_KIB: &str = "1024";

/// How a mount looks to the system.
#[derive(Debug, Clone)]
pub(crate) struct MountView {
    /// What `/proc/mounts` shows as the source.
    pub(crate) source: String,
    /// Nothing can be changed.
    pub(crate) read_only: bool,
    /// Users other than ours may use it.
    pub(crate) allow_other: bool,
    /// Root may, beside us.
    pub(crate) allow_root: bool,
    /// The kernel checks permissions by mode, owner and group.
    pub(crate) default_permissions: bool,
    /// Programs may be run.
    pub(crate) exec: bool,
    /// Set-uid bits count; root only.
    pub(crate) suid: bool,
    /// Device files work; root only.
    pub(crate) dev: bool,
    /// Access times are kept, as far as the kernel does so by itself.
    pub(crate) atime: bool,
}

/// Mounts on `directory`; the session answers once it is run.
pub(crate) fn mount(
    filesystem: Filesystem,
    directory: &Path,
    view: &MountView,
) -> io::Result<Session<Filesystem>> {
    let mut config = Config::default();
    config.acl = match (view.allow_other, view.allow_root) {
        (true, _) => SessionACL::All,
        (false, true) => SessionACL::RootAndOwner,
        (false, false) => SessionACL::Owner,
    };
    config.n_threads = Some(EVENT_THREADS);
    // fuser could mount, too, but it would also unmount: after we have detached the directory, and
    // then perhaps what somebody else has mounted there since.
    let device = match attach(directory, view) {
        // Root without CAP_SYS_ADMIN, in a container, is an ordinary user.
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => fusermount(directory, view)?,
        attached => attached?,
    };
    let pages = filesystem.pages.clone();
    let session = Session::from_fd(filesystem, device, config.acl, config)?;
    pages.reach_by(session.notifier());
    Ok(session)
}

/// mount(2), which takes the FUSE device's descriptor among its options.
fn attach(directory: &Path, view: &MountView) -> io::Result<OwnedFd> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let named = |err: io::Error| io::Error::new(err.kind(), format!("{DEVICE}: {err}"));
    let device = File::options().read(true).write(true).open(DEVICE);
    let device = device.map_err(named)?;
    let mut options = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if view.default_permissions {
        options.push_str(",default_permissions");
    }
    if view.allow_other || view.allow_root {
        options.push_str(",allow_other");
    }
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, view.read_only);
    flags.set(MountFlags::NOEXEC, !view.exec);
    flags.set(MountFlags::NOSUID, !view.suid);
    flags.set(MountFlags::NODEV, !view.dev);
    flags.set(MountFlags::NOATIME, !view.atime);
    let options = CString::new(options)?;
    let kind = format!("fuse.{FS_TYPE}");
    rustix::mount::mount(&*view.source, directory, &*kind, flags, &*options)?;
    Ok(device.into())
}

/// Lets the set-uid helper mount, and takes the device from it: it sends the descriptor over the
/// socket whose number is in `_FUSE_COMMFD`.
fn fusermount(directory: &Path, view: &MountView) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?;
    let source = view.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut options = vec![
        format!("fsname={source}"),
        format!("subtype={FS_TYPE}"),
        if view.read_only { "ro" } else { "rw" }.to_owned(),
    ];
    // Set-uid programs and devices on somebody else's server are not for an ordinary user.
    options.extend(["nosuid".to_owned(), "nodev".to_owned()]);
    if view.default_permissions {
        options.push("default_permissions".to_owned());
    }
    if view.allow_other || view.allow_root {
        options.push("allow_other".to_owned());
    }
    if !view.exec {
        options.push("noexec".to_owned());
    }
    if !view.atime {
        options.push("noatime".to_owned());
    }
    let output = Command::new("fusermount3")
        .arg("-o")
        .arg(options.join(","))
        .arg("--")
        .arg(directory)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|err| io::Error::new(err.kind(), format!("fusermount3 (package fuse3): {err}")))?;
    drop(theirs);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().to_owned()));
    }
    receive_descriptor(&ours)
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(
        socket.as_fd(),
        &mut parts,
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    ancillary
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::other("fusermount3 sent no device"))
}

/// Asks the kernel for a larger read-ahead, which INIT does not allow; root only, and only a
/// matter of speed. `device` is the mount's `major:minor` in the mount table: a look at our own
/// mount could wait for ourselves.
pub(crate) fn raise_read_ahead(device: &str) {
    let _ = fs::write(
        format!("/sys/class/bdi/{device}/read_ahead_kb"),
        READ_AHEAD_KIB,
    );
}
