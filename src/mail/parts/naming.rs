//! Names for files out of what a stranger wrote.

use std::collections::HashSet;

use crate::mail::media;
use crate::mail::structure::Part;
use crate::vfs::path::NAME_MAX;

/// Names that a directory of parts uses itself.
const TAKEN: [&str; 6] = ["headers", "text", "html", "reply", "reply-all", "forward"];

/// Extensions longer than this are no extensions.
const EXTENSION_MAX: usize = 20;

/// The names given in one directory so far.
#[derive(Debug)]
pub(super) struct Names(HashSet<String>);

impl Default for Names {
    fn default() -> Self {
        Self(TAKEN.into_iter().map(str::to_owned).collect())
    }
}

impl Names {
    /// `wanted` made safe, with a number if it is taken.
    pub(super) fn give(&mut self, wanted: &str) -> String {
        let name = safe(wanted);
        let (stem, end) = split(&name);
        let mut given = name.clone();
        for number in 2_u32.. {
            if self.0.insert(given.clone()) {
                break;
            }
            let suffix = format!("-{number}{end}");
            given = format!("{}{suffix}", cut(stem, NAME_MAX - suffix.len()));
        }
        given
    }
}

/// A name that is one component of a path, visible, and what it looks like.
fn safe(wanted: &str) -> String {
    // Windows programs send whole paths.
    let wanted = match wanted.rsplit_once('\\') {
        Some((_, last)) if wanted.get(1..3) == Some(":\\") => last,
        _ => wanted,
    };
    let mut name: String = wanted.trim().chars().map(harmless).collect();
    if name.starts_with('.') {
        name.replace_range(..1, "_");
    }
    if name.is_empty() {
        name.push('_');
    }
    if name.len() > NAME_MAX {
        let (stem, end) = split(&name);
        name = format!("{}{end}", cut(stem, NAME_MAX - end.len()));
    }
    name
}

const fn harmless(c: char) -> char {
    match c {
        '/' | '\0'..='\x1f' | '\x7f'..='\u{9f}' => '_',
        // Marks that turn the direction of writing make `exe.txt` of `txt.exe`.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '_',
        '\u{2028}' | '\u{2029}' | '\u{feff}' => '_',
        c => c,
    }
}

/// Stem and extension, the dot with the extension.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_MAX => name.split_at(dot),
        _ => (name, ""),
    }
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most))
        .unwrap_or_default()
}

/// What a part would like to be called; `number` counts the parts of its message.
pub(super) fn wanted(part: &Part, number: usize) -> String {
    if let Some(name) = part.file_name() {
        return name.to_owned();
    }
    let media = part.content_type.value.as_str();
    match media {
        "message/external-body" => return "external-body.txt".to_owned(),
        "message/delivery-status" => return "delivery-status.txt".to_owned(),
        "message/disposition-notification" => return "disposition-notification.txt".to_owned(),
        "text/rfc822-headers" => return "rfc822-headers.txt".to_owned(),
        "message/partial" => {
            let of = |name| part.content_type.get(name).unwrap_or("unknown");
            return format!("partial-{}-of-{}.txt", of("number"), of("total"));
        }
        "text/plain" => return "text.txt".to_owned(),
        "text/html" => return "text.html".to_owned(),
        _ => {}
    }
    let end = if media.starts_with("multipart/") {
        "mime"
    } else {
        media::extension_of(media).unwrap_or("bin")
    };
    format!("part-{number}.{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_made_safe() {
        for (wanted, name) in [
            ("a b.pdf", "a b.pdf"),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("..", "_."),
            (".bashrc", "_bashrc"),
            ("C:\\dir\\x.doc", "x.doc"),
            ("a\\b", "a\\b"),
            ("a\r\nb\0", "a__b_"),
            ("\u{202e}fdp.exe", "_fdp.exe"),
            ("  ", "_"),
        ] {
            assert_eq!(safe(wanted), name);
        }
        let long = safe(&format!("{}.pdf", "\u{e9}".repeat(300)));
        assert!(long.len() <= 255 && long.ends_with("\u{e9}.pdf"));
    }

    #[test]
    fn equal_names_are_numbered() {
        let mut names = Names::default();
        let given: Vec<String> = ["a.txt", "a.txt", "a-2.txt", "a.txt", "text", "x", "x"]
            .map(|n| names.give(n))
            .into();
        assert_eq!(
            given,
            [
                "a.txt",
                "a-2.txt",
                "a-2-2.txt",
                "a-3.txt",
                "text-2",
                "x",
                "x-2"
            ]
        );
    }

    proptest! {
        #[test]
        fn every_name_is_a_name(wanted in prop::collection::vec(any::<char>(), 0..300)) {
            let wanted: String = wanted.into_iter().collect();
            let mut names = Names::default();
            let (first, second) = (names.give(&wanted), names.give(&wanted));
            prop_assert!(first != second);
            for name in [first, second] {
                prop_assert!(crate::vfs::path::Name::new(name.as_bytes()).is_ok() && !name.starts_with('.'));
            }
        }
    }
}
