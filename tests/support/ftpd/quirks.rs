//! What a scripted server does otherwise than a plain, correct one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A switch for everything a server may do in its own way. The default is a faithful server with
/// MLST, MFMT, MDTM, SIZE, REST STREAM, TVFS, UTF8, EPSV and SITE CHMOD.
///
/// Rules name commands by a pattern: `RETR` is every RETR, `SITE CHMOD` that SITE command,
/// `STOR a.txt` the command with exactly this argument, `STOR a*` every argument with that
/// beginning, `*` everything.
#[derive(Clone)]
pub struct Quirks {
    /// What the server says when somebody connects, `\r\n` between several lines.
    pub banner: String,
    /// The one login that is accepted; any if `None`.
    pub login: Option<(String, String)>,
    /// Directory after the login.
    pub home: String,
    /// `PASS` is answered by 332, and `ACCT` must say this.
    pub account: Option<String>,
    /// Most sessions, and what the others are told.
    pub limit: Option<Limit>,
    /// Commands answered in these words, without doing anything. Words that begin with 421 also
    /// end the session.
    pub answers: Vec<Rule>,
    /// Commands that are carried out, and then answered in these words and not in the usual ones.
    pub instead: Vec<Rule>,
    /// Pause before a command is carried out.
    pub delays: Vec<(String, Duration)>,
    /// Commands that are never answered, as long as the rule stands. `*` stalls the banner too.
    pub stalls: Vec<String>,
    /// So many commands are carried out, counted from the last
    /// [`clear_log`](super::Ftpd::clear_log); those behind are never answered, as long as this is
    /// set.
    pub stall_after: Option<usize>,
    /// A command like this is answered only once so many like it have come, those that were answered
    /// included: whoever sends them without waiting sends them all.
    pub gathers: Option<(String, usize)>,
    /// What happens in the middle of transfers.
    pub faults: Vec<Fault>,
    /// Closes the control connection after so many bytes of replies in one session, in the middle
    /// of a line if it must be.
    pub control_cut_after: Option<usize>,
    /// Forgets what was received behind a command while it was carried out, as servers do that
    /// cannot be pipelined.
    pub drops_pipelined: bool,

    /// `AUTH TLS` works, with the certificate of [`tls`](super::tls).
    pub tls: bool,

    /// The line before the data (`150 …`); none if empty.
    pub opening: String,
    /// How the end of a transfer is told.
    pub completion: Completion,
    /// What becomes of a command that came with a listing.
    pub early: Early,
    /// Bytes per second of one transfer.
    pub rate: Option<u64>,
    /// The same of those that begin there.
    pub rate_from: Option<(std::ops::Range<u64>, u64)>,
    /// Address named by PASV replies.
    pub pasv_address: Option<Ipv4Addr>,
    /// PASV replies lack the parentheses.
    pub pasv_bare: bool,
    /// Given the address of a data listener, the port to announce (that of a relay to it).
    pub advertise: Option<Arc<dyn Fn(SocketAddr) -> u16 + Send + Sync>>,

    /// Format of LIST and STAT.
    pub dialect: Dialect,
    /// What `LIST -a` does.
    pub dash_a: DashA,
    /// LIST without `-a`, and NLST, do not show names that begin with a dot.
    pub hides_dot_files: bool,
    /// Seconds that LIST times are ahead of UTC.
    pub list_time_offset: i64,
    /// Facts of MLSx, in this order.
    pub facts: Vec<&'static str>,
    /// What MLSD says of symbolic links.
    pub mlsd_links: MlsdLinks,
    /// `.` and `..` are among the entries of MLSD.
    pub mlsd_dots: bool,
    /// Listings of directories that do not exist succeed and are empty.
    pub missing_is_empty: bool,
    /// What the listing of an empty directory is answered by, without a data connection.
    pub empty_listing: Option<String>,
    /// Names that every listing has besides the real ones, as files of 3 bytes.
    pub ghosts: Vec<Vec<u8>>,
    /// Listings of these directories (`/a/b`) by these commands are this text.
    pub canned: Vec<(&'static str, String, Vec<u8>)>,

    /// Every change is refused in these words.
    pub read_only: Option<String>,
    /// What RNTO onto an existing file is refused by.
    pub rnto_over_refused: Option<String>,
    /// After RNFR nothing but RNTO is answered (ProFTPD).
    pub rnfr_wants_rnto: bool,
    /// Names that differ in the case of ASCII letters only are one (Windows, macOS).
    pub case_insensitive: bool,
    /// What STOR behind a REST does.
    pub rest_stor: RestStor,
    /// REST is answered by 350, but the next RETR sends from the beginning.
    pub rest_ignored: bool,
    /// Bytes that may be stored altogether, and the words when they are used up.
    pub disk: Option<Disk>,
    /// Which `SITE UTIME` there is.
    pub site_utime: SiteUtime,
    /// `MDTM YYYYMMDDhhmmss name` sets the time.
    pub mdtm_sets: bool,
    /// The first byte of every piece of these transfers is another on the way.
    pub garbles: Option<String>,
    /// STAT of a path takes no options, and is answered in pyftpdlib's words.
    pub stat_bare: bool,
    /// Commands beyond the default ones: `MFF`, `SITE SYMLINK`, `AVBL`, `HASH SHA-256*;MD5`, `XCRC`.
    pub extras: Vec<&'static str>,
}

/// See [`Quirks::limit`].
#[derive(Clone)]
pub struct Limit {
    pub sessions: usize,
    /// `421 …` refuses the connection, `530 …` the login.
    pub reply: String,
}

/// See [`Quirks::answers`].
#[derive(Clone)]
pub struct Rule {
    pub pattern: String,
    pub reply: String,
    /// How often it still applies; always if `None`.
    pub left: Option<usize>,
}

/// Something that happens when a transfer by a command of `pattern` has moved `after` bytes.
#[derive(Clone)]
pub struct Fault {
    pub pattern: String,
    pub after: u64,
    pub what: Break,
    /// How often it still happens; always if `None`.
    pub left: Option<usize>,
}

/// See [`Fault`].
#[derive(Clone)]
pub enum Break {
    /// The data connection is closed as if all were sent, then this is said.
    CloseData(String),
    /// The data connection is reset, then this is said.
    ResetData(String),
    /// Both connections are reset.
    HangUp,
    /// Nothing moves any more, nothing is closed, while the rule stands.
    Stall,
}

/// See [`Quirks::completion`].
#[derive(Clone)]
pub enum Completion {
    /// `226` after the data connection is closed.
    Normal,
    /// `226` twice.
    Twice,
    /// `226` so long after the data connection was closed.
    Late(Duration),
    /// `226` when the next command has come, however soon; after so long at most.
    Asked(Duration),
    /// `226` so long before the data connection is closed.
    Early(Duration),
    /// `226` when the client has closed its side of the data connection (ProFTPD).
    Awaited,
    /// Nothing.
    Never,
}

/// See [`Quirks::early`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Early {
    /// It is carried out behind the listing.
    Waits,
    /// It is refused before the end of the listing is told.
    Refused,
    /// It is thrown away.
    Dropped,
    /// It is carried out instead of the rest of the listing, whose end is not told (pyftpdlib).
    BreaksOff,
    /// The same, and the listing is told to be complete.
    BreaksOffWell,
    /// The server hangs up.
    HangsUp,
}

/// See [`Quirks::dialect`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Unix,
    UnixWithoutGroup,
    Dos,
}

/// See [`Quirks::dash_a`].
#[derive(Clone)]
pub enum DashA {
    /// It is an option.
    Option,
    /// It is a name that matches nothing: an empty listing.
    Mask,
    /// These words.
    Refused(String),
}

/// See [`Quirks::mlsd_links`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MlsdLinks {
    /// `type=OS.unix=slink:target`.
    Target,
    /// `type=OS.unix=symlink` without target; dangling ones are left out (ProFTPD).
    Bare,
    /// As what they point to; dangling ones are left out (pyftpdlib).
    Followed,
}

/// See [`Quirks::rest_stor`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RestStor {
    /// It overwrites from there and keeps what lies behind.
    InPlace,
    /// It cuts the file off behind what it stored (Pure-FTPd).
    Truncates,
    /// The beginning becomes zeros (ftp-srv).
    ZeroFills,
}

/// See [`Quirks::disk`].
#[derive(Clone)]
pub struct Disk {
    pub bytes: u64,
    pub reply: String,
}

/// See [`Quirks::site_utime`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SiteUtime {
    None,
    /// `SITE UTIME YYYYMMDDhhmmss name`.
    Two,
    /// `SITE UTIME name atime mtime ctime UTC`.
    Five,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            banner: "220 Scripted server ready.".into(),
            login: None,
            home: "/".into(),
            account: None,
            limit: None,
            answers: Vec::new(),
            instead: Vec::new(),
            delays: Vec::new(),
            stalls: Vec::new(),
            stall_after: None,
            gathers: None,
            faults: Vec::new(),
            control_cut_after: None,
            drops_pipelined: false,
            tls: false,
            opening: "150 Here it comes.".into(),
            completion: Completion::Normal,
            early: Early::Waits,
            rate: None,
            rate_from: None,
            pasv_address: None,
            pasv_bare: false,
            advertise: None,
            dialect: Dialect::Unix,
            dash_a: DashA::Option,
            hides_dot_files: true,
            list_time_offset: 0,
            facts: vec![
                "type",
                "size",
                "modify",
                "perm",
                "unique",
                "UNIX.mode",
                "UNIX.owner",
                "UNIX.group",
            ],
            mlsd_links: MlsdLinks::Target,
            mlsd_dots: true,
            missing_is_empty: false,
            empty_listing: None,
            ghosts: Vec::new(),
            canned: Vec::new(),
            read_only: None,
            rnto_over_refused: None,
            rnfr_wants_rnto: false,
            case_insensitive: false,
            rest_stor: RestStor::InPlace,
            rest_ignored: false,
            disk: None,
            site_utime: SiteUtime::None,
            mdtm_sets: false,
            garbles: None,
            stat_bare: false,
            extras: Vec::new(),
        }
    }
}

impl Quirks {
    /// Without `commands` (`"MLSD"`, `"SITE CHMOD"`), which are unknown to it.
    pub fn without(mut self, commands: &[&str]) -> Self {
        for command in commands {
            self = self.answer(command, "500 Unknown command.");
        }
        self
    }

    /// Adds to [`answers`](Self::answers).
    pub fn answer(mut self, pattern: &str, reply: &str) -> Self {
        self.answers.push(Rule::new(pattern, reply, None));
        self
    }

    /// As [`answer`](Self::answer), for the first `times` times only.
    pub fn answer_times(mut self, pattern: &str, times: usize, reply: &str) -> Self {
        self.answers.push(Rule::new(pattern, reply, Some(times)));
        self
    }

    /// Adds to [`instead`](Self::instead).
    pub fn reply_instead(mut self, pattern: &str, reply: &str) -> Self {
        self.instead.push(Rule::new(pattern, reply, None));
        self
    }

    /// Adds to [`delays`](Self::delays).
    pub fn delay(mut self, pattern: &str, pause: Duration) -> Self {
        self.delays.push((pattern.into(), pause));
        self
    }

    /// Adds to [`stalls`](Self::stalls).
    pub fn stall(mut self, pattern: &str) -> Self {
        self.stalls.push(pattern.into());
        self
    }

    /// Adds to [`faults`](Self::faults), for the first `times` times.
    pub fn fault(mut self, pattern: &str, after: u64, times: usize, what: Break) -> Self {
        self.faults.push(Fault {
            pattern: pattern.into(),
            after,
            what,
            left: Some(times),
        });
        self
    }

    /// As vsftpd: no MLSx, no MFMT, MDTM sets times.
    pub fn like_vsftpd() -> Self {
        let mut quirks = Self::default().without(&["MLSD", "MLST", "MFMT", "OPTS MLST"]);
        quirks.mdtm_sets = true;
        quirks
    }

    /// As ProFTPD in what it is strict about: renames in two steps, appending not allowed.
    pub fn like_proftpd() -> Self {
        let refused = "451 Append/Restart not permitted, try again.";
        let mut quirks = Self::default().answer("APPE", refused);
        quirks.mlsd_links = MlsdLinks::Bare;
        quirks.rnfr_wants_rnto = true;
        quirks
    }

    /// As the least of servers: LIST, RETR, STOR and little else.
    pub fn like_a_router() -> Self {
        Self::default().without(&[
            "FEAT", "MLSD", "MLST", "MFMT", "MDTM", "SIZE", "REST", "APPE", "EPSV", "EPRT", "STAT",
            "SITE", "OPTS", "CLNT",
        ])
    }

    /// As IIS: DOS listings, no MLSx, RNTO over a file refused, no modes.
    pub fn like_iis() -> Self {
        let mut quirks = Self::default().without(&["MLSD", "MLST", "MFMT", "OPTS MLST", "SITE"]);
        quirks.dialect = Dialect::Dos;
        quirks.mdtm_sets = true;
        quirks.rnto_over_refused =
            Some("550 Cannot create a file when that file already exists.".into());
        quirks
    }
}

impl Rule {
    fn new(pattern: &str, reply: &str, left: Option<usize>) -> Self {
        Self {
            pattern: pattern.into(),
            reply: reply.into(),
            left,
        }
    }
}

/// Whether `line` is a command that `pattern` names; see [`Quirks`].
pub fn matches(pattern: &str, line: &str) -> bool {
    if let Some(beginning) = pattern.strip_suffix('*') {
        return starts_with(line, beginning);
    }
    starts_with(line, pattern)
        && line
            .as_bytes()
            .get(pattern.len())
            .is_none_or(|next| *next == b' ')
}

fn starts_with(line: &str, beginning: &str) -> bool {
    line.as_bytes()
        .get(..beginning.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(beginning.as_bytes()))
}
