//! The ways of one server: which of several commands it takes for the same thing.

use std::time::Duration;

use super::listing::Dialect;
use super::options::ListingMode;

/// A command that sets a modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeCommand {
    /// `MFMT YYYYMMDDhhmmss path` (draft-somers-ftp-mfxx section 3).
    Mfmt,
    /// `SITE UTIME path atime mtime ctime UTC` (ncftpd, Pure-FTPd, ProFTPD).
    SiteUtimeFive,
    /// `SITE UTIME YYYYMMDDhhmmss path` (older ProFTPD, Serv-U).
    SiteUtimeTwo,
    /// `MDTM YYYYMMDDhhmmss path` (vsftpd, IIS, Serv-U).
    MdtmSet,
}

impl TimeCommand {
    /// In the order they are tried: the only one with a specification first. `MDTM` last: a server
    /// that does not know it takes the time for a part of the name.
    pub(crate) const ALL: [Self; 4] = [
        Self::Mfmt,
        Self::SiteUtimeFive,
        Self::SiteUtimeTwo,
        Self::MdtmSet,
    ];

    /// How `ferryfs status` calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mfmt => "MFMT",
            Self::SiteUtimeFive => "SITE UTIME (5 arguments)",
            Self::SiteUtimeTwo => "SITE UTIME (2 arguments)",
            Self::MdtmSet => "MDTM with a time",
        }
    }
}

/// How a new content gets its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewName {
    /// `.ferryfs-XXXX.part` beside the target.
    Dotted,
    /// `NAME.ferryfs-XXXX~`, where dot files are refused.
    Tilde,
    /// None: straight to the final name, where renaming is refused.
    Direct,
}

/// Whether REST before RETR is obeyed: at offsets that fit into 31 bits, into 32, and beyond.
/// Servers exist that keep only the lower half of a larger one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rest([Option<bool>; 3]);

impl Rest {
    const fn class(offset: u64) -> usize {
        (offset >> 31 != 0) as usize + (offset >> 32 != 0) as usize
    }

    pub(crate) fn known(self, offset: u64) -> Option<bool> {
        self.0.get(Self::class(offset)).copied().flatten()
    }

    /// What works there works at smaller offsets, too; what does not, does not at larger ones.
    pub(crate) fn learn(&mut self, offset: u64, obeys: bool) {
        let class = Self::class(offset);
        for (at, known) in self.0.iter_mut().enumerate() {
            if if obeys { at <= class } else { at >= class } {
                *known = Some(obeys);
            }
        }
    }
}

/// What was found out by trying, shared by all sessions; `None`: not tried yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ways {
    /// MLST and MLSD are understood.
    pub(crate) mlst: Option<bool>,
    /// MLST tells of a link's target as if it were the file (ProFTPD).
    pub(crate) mlst_follows: Option<bool>,
    /// How often MLST was doubted without reason.
    pub(crate) mlst_doubts: u8,
    /// The command that lists directories.
    pub(crate) listing: Option<ListingMode>,
    /// `LIST -a` means "all", not "the files called -a".
    pub(crate) list_all: Option<bool>,
    /// Whether the listings of this command begin with the directory itself (`.`, `cdir`).
    pub(crate) shows_itself: Option<(ListingMode, bool)>,
    /// What LIST is written in.
    pub(crate) dialect: Option<Dialect>,
    /// `STAT file` answers with the file's line.
    pub(crate) stat: Option<bool>,
    /// `STAT -a dir` shows what `LIST -a dir` shows, without a data connection.
    pub(crate) stat_listing: Option<bool>,
    /// `STAT dir` shows all there is, where `-a` is taken for a name (pyftpdlib).
    pub(crate) stat_bare: Option<bool>,
    /// Comparisons of the two that were made.
    pub(crate) stat_tries: u8,
    /// It is not asked before the listing that it is compared with has ended.
    pub(crate) compares_later: bool,
    /// STAT and MLST say of many directories what MLSD says, and sooner.
    pub(crate) named_listing: Option<bool>,
    /// Comparisons of the two that were made.
    pub(crate) named_tries: u8,
    /// A comparison is under way.
    pub(crate) named_trying: bool,
    /// Names that a directory listed so may have, and has.
    pub(crate) names_most: usize,
    pub(crate) names_usual: usize,
    /// What MLSD of one directory took at last.
    pub(crate) mlsd_took: Duration,
    /// Directories ahead that are left to MLSD now.
    pub(crate) names_pause: usize,
    /// SIZE is understood, and tells the truth.
    pub(crate) size: Option<bool>,
    /// MDTM is understood.
    pub(crate) mdtm: Option<bool>,
    /// REST before RETR is obeyed.
    pub(crate) rest: Rest,
    /// APPE is understood.
    pub(crate) append: Option<bool>,
    /// RNTO replaces a file.
    pub(crate) rename_over: Option<bool>,
    /// A time that was set is still shown when the file has got its name.
    pub(crate) keeps_times: Option<bool>,
    /// Which names a new content may have; only ever moved on to the next kind.
    pub(crate) new_name: Option<NewName>,
    /// A name may end in a space and keeps it.
    pub(crate) final_spaces: Option<bool>,
    /// SITE CHMOD is understood.
    pub(crate) chmod: Option<bool>,
    /// The command that sets times; `Some(None)`: none does.
    pub(crate) set_time: Option<Option<TimeCommand>>,
    /// Times of directories can be set.
    pub(crate) directory_times: Option<bool>,
    /// Seconds that LIST times are ahead of UTC, as measured.
    pub(crate) time_offset: Option<i64>,
    /// Checksums are claimed, and not known after all.
    pub(crate) no_checksums: bool,
    /// Measurements of the offset that found no suitable file.
    pub(crate) offset_tries: u8,
}

impl Ways {
    /// What is odd about this server, one line each, for `status` and `doctor`.
    pub(crate) fn quirks(&self) -> Vec<String> {
        let mut quirks = Vec::new();
        let mut say = |odd: bool, line: &str| {
            if odd {
                quirks.push(line.to_owned());
            }
        };
        say(
            self.mlst == Some(false),
            "no MLST: directories are listed with LIST",
        );
        say(
            self.mlst_follows == Some(true),
            "MLST hides symbolic links: directories with links are listed twice",
        );
        say(
            self.list_all == Some(false),
            "LIST -a is not understood: dot files may be hidden",
        );
        say(
            self.size == Some(false),
            "SIZE is unknown or lies: uploads are verified by MLST, STAT or the listing",
        );
        say(
            self.rest.known(0) == Some(false),
            "no REST: a read at an offset reads from the start",
        );
        say(
            self.append == Some(false),
            "no APPE: growing a file sends it whole",
        );
        say(
            self.rename_over == Some(false),
            "a rename does not replace a file: the old one is moved aside first",
        );
        say(
            self.new_name == Some(NewName::Tilde),
            "dot files are refused: temporary names end in ~",
        );
        say(
            self.new_name == Some(NewName::Direct),
            "no temporary names: a file is written in place",
        );
        say(
            self.final_spaces == Some(false),
            "names that end in a space would be changed: they are refused",
        );
        say(
            self.chmod == Some(false),
            "no SITE CHMOD: modes cannot be changed",
        );
        say(
            self.set_time == Some(None),
            "modification times cannot be set",
        );
        say(
            self.directory_times == Some(false),
            "modification times of directories cannot be set",
        );
        quirks
    }
}

#[cfg(test)]
mod tests {
    use super::Rest;

    #[test]
    fn rest_is_known_up_to_the_size_it_was_tried_at() {
        let mut rest = Rest::default();
        assert_eq!(rest.known(1), None);
        rest.learn(10, true);
        assert_eq!(rest.known(0x7fff_ffff), Some(true));
        assert_eq!(rest.known(0x8000_0000), None);
        rest.learn(0x8000_0001, false);
        assert_eq!(rest.known(1 << 32), Some(false));
        assert_eq!(rest.known(5), Some(true));
        let mut rest = Rest::default();
        rest.learn(1 << 40, true);
        assert_eq!(rest.known(0x9000_0000), Some(true));
    }
}
