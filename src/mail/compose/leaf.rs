//! One content and how it travels: its type, its charset, its encoding.

use std::io::{self, Write};

use super::fields::Header;
use crate::mail::content::Content;
use crate::mail::encode::{Base64, Crlf, Quoted, WholeLines};
use crate::mail::fields::text_of;
use crate::mail::filter::{Chain, Filter, pass};
use crate::mail::parameters::written;
use crate::mail::scan::Scan;

/// How octets become lines of ASCII, or do not have to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    SevenBit,
    EightBit,
    Quoted,
    Base64,
}

impl Encoding {
    /// As `Content-Transfer-Encoding` says it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::SevenBit => "7bit",
            Self::EightBit => "8bit",
            Self::Quoted => "quoted-printable",
            Self::Base64 => "base64",
        }
    }

    /// What keeps `scan` readable if it can be: quoted-printable unless half of it would be escaped.
    pub(super) const fn for_wire(scan: &Scan) -> Self {
        if scan.is_text() && !scan.utf16 && scan.escapes * 2 <= scan.size {
            Self::Quoted
        } else {
            Self::Base64
        }
    }

    /// The encoder; `lines` if the content is lines of text, whose ends may change.
    pub(super) fn filter(self, lines: bool) -> Box<dyn Filter> {
        match self {
            Self::SevenBit | Self::EightBit => Box::<Crlf>::default(),
            Self::Quoted => Box::<Quoted>::default(),
            // RFC 2045 section 6.8: text has CRLF before it is encoded.
            Self::Base64 if lines => Box::new(Chain::new(Crlf::default(), Base64::default())),
            Self::Base64 => Box::<Base64>::default(),
        }
    }
}

/// What a content is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// To be read in the message: its line ends are the mail's.
    Text,
    /// A file of this name: every octet counts.
    File(Vec<u8>),
}

/// A content with its labels.
pub(super) struct Leaf<'a> {
    content: &'a dyn Content,
    media: String,
    charset: Option<&'static str>,
    role: Role,
    pub(super) encoding: Encoding,
    /// Lines of text whose ends may become CRLF.
    lines: bool,
    id: Option<String>,
}

impl<'a> Leaf<'a> {
    /// Looks at `content`, a file called `name` that promises the type `promised`, and that is to be
    /// read in the message if `text`. What is no text becomes a file all the same. `None` if
    /// `boundary` occurs in it, where it would end the part.
    pub(super) fn new(
        content: &'a dyn Content,
        promised: Option<&str>,
        name: &[u8],
        text: bool,
        boundary: &str,
    ) -> io::Result<Option<Self>> {
        let scan = Scan::of(&mut content.open()?, Some(boundary))?;
        let role = match text && scan.is_text() {
            true => Role::Text,
            false => Role::File(name.to_vec()),
        };
        let media = match promised {
            Some(media) if !media.starts_with("text/") || scan.is_text() => media,
            None if scan.is_text() => "text/plain",
            _ => "application/octet-stream",
        };
        // A message must not be encoded (RFC 2046 section 5.2.1); one that would have to be is bytes.
        let is_message = media == "message/rfc822";
        let media = if is_message && !scan.fits_lines() {
            "application/octet-stream"
        } else {
            media
        };
        let lines = match role {
            Role::Text => !scan.utf16,
            // With CR in it the ends of its lines would change on the way.
            Role::File(_) => {
                media == "message/rfc822"
                    || media.starts_with("text/") && !scan.crlf && !scan.bare_cr && !scan.utf16
            }
        };
        let plain = if scan.high == 0 {
            Encoding::SevenBit
        } else {
            Encoding::EightBit
        };
        let encoding = match media {
            "message/rfc822" => plain,
            _ if !lines => Encoding::Base64,
            _ if scan.fits_lines() && !scan.from_line && !scan.dot_line => plain,
            // A lone CR survives only here.
            _ if scan.bare_cr => Encoding::Quoted,
            _ => Encoding::for_wire(&scan),
        };
        let clear = matches!(encoding, Encoding::SevenBit | Encoding::EightBit);
        if clear && scan.boundary {
            return Ok(None);
        }
        Ok(Some(Self {
            content,
            charset: media.starts_with("text/").then(|| scan.charset()),
            media: media.to_owned(),
            role,
            encoding,
            lines,
            id: None,
        }))
    }

    /// Whether it is attached.
    pub(super) fn is_file(&self) -> bool {
        self.role != Role::Text
    }

    /// Gives it a `Content-ID`, in its brackets.
    pub(super) fn identified(mut self, id: String) -> Self {
        self.id = Some(id);
        self
    }

    /// Its fields.
    pub(super) fn header(&self, header: &mut Header) {
        let mut media = self.media.clone();
        if let Some(charset) = self.charset {
            media += "; charset=";
            media += charset;
        }
        if let Role::File(name) = &self.role {
            media += &written("name", name);
        }
        header.ready("Content-Type", &media);
        header.ready("Content-Transfer-Encoding", self.encoding.name());
        if let Role::File(name) = &self.role {
            header.ready(
                "Content-Disposition",
                &format!("attachment{}", written("filename", name)),
            );
            header.text("Content-Description", &text_of(name));
        }
        if let Some(id) = &self.id {
            header.ready("Content-ID", id);
        }
    }

    /// Its body; `alone` if no boundary follows, so that its last line must have an end.
    pub(super) fn write(&self, alone: bool, out: &mut dyn Write) -> io::Result<u64> {
        let mut source = self.content.open()?;
        let mut filter = self.encoding.filter(self.lines && self.role == Role::Text);
        if alone {
            pass(
                &mut source,
                &mut Chain::new(filter, WholeLines::default()),
                out,
            )
        } else {
            pass(&mut source, &mut filter, out)
        }
    }
}
