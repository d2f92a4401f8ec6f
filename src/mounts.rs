//! The kernel's mount table, and leaving it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{UnmountFlags, unmount};

/// The type our mounts have in the table.
pub(crate) const FS_TYPE: &str = "fuse.ferryfs";

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `major:minor`, as `/sys/class/bdi` names it.
    pub(crate) device: String,
    /// Where it is mounted.
    pub(crate) dir: PathBuf,
    /// Its type, `fuse.ferryfs` for ours.
    pub(crate) fs_type: OsString,
    /// What is mounted, for ours the URL or `fsname=`.
    pub(crate) source: OsString,
}

impl Mount {
    /// Whether a ferryfs, dead or alive, made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// What is mounted on exactly `dir`, the topmost if there are several. `dir` is as [`resolve`]
/// returns it. The directory itself is not touched, so a dead or hung mount does no harm.
pub(crate) fn find(dir: &Path) -> io::Result<Option<Mount>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(parse(&table).filter(|mount| mount.dir == dir).last())
}

/// `dir` as the mount table spells it: absolute, without links. The last component is not touched
/// if something is mounted there.
pub(crate) fn resolve(dir: &Path) -> io::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    let unmounted = |dir: &Path| matches!(find(dir), Ok(None));
    if let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) {
        let below = parent.canonicalize()?.join(name);
        if !unmounted(&below) {
            return Ok(below);
        }
    }
    dir.canonicalize()
}

/// Takes the mount at `dir` away: refused while it is busy, or at once from everybody's sight with
/// `lazy`.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] where a process is still in there.
pub(crate) fn detach(dir: &Path, lazy: bool) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let flags = if lazy {
            UnmountFlags::DETACH
        } else {
            UnmountFlags::empty()
        };
        return Ok(unmount(dir, flags | UnmountFlags::NOFOLLOW)?);
    }
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|err| io::Error::new(err.kind(), format!("fusermount3: {err}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = if said.contains("busy") {
        io::ErrorKind::ResourceBusy
    } else {
        io::ErrorKind::Other
    };
    Err(io::Error::new(kind, said))
}

/// The lines of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn parse(table: &[u8]) -> impl Iterator<Item = Mount> {
    table.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.split(|b| *b == b' ');
        let device = fields.nth(2)?;
        let dir = fields.nth(1)?;
        // A variable number of optional fields ends with a single hyphen.
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let (fs_type, source) = (fields.next()?, fields.next()?);
        Some(Mount {
            device: String::from_utf8_lossy(device).into_owned(),
            dir: unescape(dir).into(),
            fs_type: OsStr::from_bytes(fs_type).to_owned(),
            source: unescape(source),
        })
    })
}

/// The kernel writes blank, tab, line end and backslash as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = after
            .get(if code.is_some() { 3 } else { 0 }..)
            .unwrap_or_default();
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_with_optional_fields_and_escapes() {
        let table =
            b"36 35 98:0 / /mnt/a\\040b rw,noatime master:1 shared:2 - fuse.ferryfs ftp://h/ rw\n\
                      37 35 0:5 / /proc rw - proc proc rw\n\
                      broken line\n\
                      38 35 0:6 / /x\\134 rw - tmpfs \\ rw\n";
        let mounts: Vec<Mount> = parse(table).collect();
        assert_eq!(mounts.len(), 3);
        let first = mounts.first().unwrap();
        assert!(first.is_ours());
        assert_eq!(first.dir, Path::new("/mnt/a b"));
        assert_eq!(first.device, "98:0");
        assert_eq!(first.source, "ftp://h/");
        assert_eq!(mounts.last().unwrap().dir, Path::new("/x\\"));
    }

    #[test]
    fn proc_is_mounted_and_its_parent_is_not_ours() {
        assert_eq!(find(Path::new("/proc")).unwrap().unwrap().fs_type, "proc");
        assert_eq!(
            resolve(Path::new("/proc/../proc/.")).unwrap(),
            Path::new("/proc")
        );
    }
}
