//! What the command line says of an FTP server, already checked.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net::bandwidth::Bandwidth;
use crate::net::proxy::Proxy;
use crate::net::trust::TlsOptions;
use crate::secret::Secret;

/// Everything a connection to one FTP server is made from.
#[derive(Debug, Clone)]
pub struct FtpOptions {
    /// Host name or address, as typed.
    pub host: String,
    /// Port of the control connection.
    pub port: u16,
    /// User name; `anonymous` where the URL has none.
    pub user: String,
    /// Password; for `anonymous` the e-mail-like one.
    pub password: Secret,
    /// Answer to `332 Need account for login` (RFC 959 section 4.1.1).
    pub account: Option<Secret>,
    /// The directory of the URL, percent-decoded. Relative to the login directory unless it
    /// begins with `/` (RFC 1738 section 3.2.2: `ftp://host/%2Fetc`).
    pub directory: Vec<u8>,
    /// Whether and how TLS is used.
    pub tls: TlsMode,
    /// Which certificates are trusted, and which TLS is spoken.
    pub trust: TlsOptions,
    /// Whether the data connections are encrypted where the control connection is.
    pub protection: Protection,
    /// The control connection goes back to clear text after the login (CCC, RFC 4217 section 5),
    /// for firewalls that want to read it.
    pub clear_control: bool,
    /// The way to the server.
    pub proxy: Option<Proxy>,
    /// Time limit of one wait for the server: connect, reply, stall of a transfer.
    pub timeout: Duration,
    /// Most connections to open at once; lowered when the server refuses more.
    pub connections: usize,
    /// How many more there may be for a moment, where several readers jump about in files.
    pub extra_connections: usize,
    /// How long a connection is kept that nobody uses. Servers hang up after one to five minutes.
    pub idle: Duration,
    /// Passive, or active with these addresses and ports.
    pub data: DataMode,
    /// Address family to use.
    pub family: Family,
    /// Local address to connect from.
    pub bind: Option<IpAddr>,
    /// Connect data connections to the address a PASV reply names, instead of the server's own.
    pub trust_pasv_address: bool,
    /// Names on the server are in this charset (a WHATWG label), not bytes taken as they are.
    pub charset: Option<&'static encoding_rs::Encoding>,
    /// How directories are listed.
    pub listing: ListingMode,
    /// Seconds the server's LIST times are ahead of UTC; `None`: measured.
    pub time_offset: Option<i64>,
    /// Ask the exact time (MDTM) of every file of a listing that shows it to the minute or the day:
    /// one more round trip for a directory, and a command for each of its files.
    pub exact_times: bool,
    /// What `chmod` does where the server cannot.
    pub chmod: ChmodPolicy,
    /// What becomes of symbolic links.
    pub links: LinkPolicy,
    /// How a new content gets its name.
    pub upload: UploadMode,
    /// What becomes of a version that an upload would replace and that nobody here has seen.
    pub conflict: Conflict,
    /// Whether contents are compared by checksum.
    pub verify: Verify,
    /// Whether transfers are packed.
    pub compress: Compress,
    /// How fast contents may go.
    pub bandwidth: Option<Arc<Bandwidth>>,
}

/// Whether TLS is used on the control and the data connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// `AUTH TLS` if the server offers it, clear text otherwise (`ftp://`, `tls=auto`).
    Auto,
    /// `AUTH TLS` or nothing (`ftpes://`, `tls=require`).
    Explicit,
    /// TLS from the first byte, port 990 (`ftps://`).
    Implicit,
    /// Clear text (`tls=off`).
    Off,
}

/// What PROT says (RFC 4217 section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// `PROT P`: data connections are encrypted.
    Private,
    /// `PROT C`: they are in clear text.
    Clear,
}

/// Who opens the data connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataMode {
    /// We do: EPSV, else PASV.
    Passive,
    /// The server does: EPRT, else PORT.
    Active {
        /// Ports to listen on, inclusive; any where `None`.
        ports: Option<(u16, u16)>,
        /// Address to announce instead of the control connection's own (behind NAT).
        address: Option<IpAddr>,
    },
}

/// Address family of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Whatever the name resolves to, in the resolver's order.
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Which command lists a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListingMode {
    /// MLSD, else `LIST -a`, else `LIST`, else NLST; learned per server.
    Auto,
    /// MLSD only.
    Mlsd,
    /// `LIST -a` only.
    ListAll,
    /// Plain LIST only.
    List,
    /// NLST with SIZE and MDTM for each name.
    Nlst,
}

/// What `chmod` does on a server that cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChmodPolicy {
    /// It fails with EOPNOTSUPP.
    Strict,
    /// It succeeds and does nothing.
    Ignore,
}

/// How symbolic links are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPolicy {
    /// As links; an absolute target inside the mount is made relative, one that leaves the mount
    /// is refused.
    Contain,
    /// As links; every absolute target is taken to mean the server's root and made relative.
    Transform,
    /// As what they point to, resolved by the server.
    Follow,
    /// As links, with the server's own words, wherever they lead.
    Raw,
}

/// Whether what was transferred whole is compared by a checksum that the server computes. Sizes
/// always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// No.
    Off,
    /// Where the server can.
    Auto,
    /// Always: a server that cannot is refused.
    Require,
}

/// Whether contents and listings are packed on their way (MODE Z), where the server offers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    /// On a slow link without TLS, except what is packed already.
    Auto,
    /// Always, except what is packed already.
    On,
    /// Never.
    Off,
}

/// How an upload becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadMode {
    /// Under a temporary name, renamed when complete; straight where the server refuses that.
    Auto,
    /// Always under a temporary name.
    Rename,
    /// Always straight to the final name.
    Direct,
}

/// What happens where somebody else changed a file between its opening and its upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The upload fails, and its content goes to `lost+found`.
    Fail,
    /// The other version is kept as `NAME.conflict-HOST-TIME`.
    Keep,
    /// The other version is replaced.
    Overwrite,
}
