//! Media types by the ends of file names, and back.

/// Extension, type. The first extension of a type names its parts.
const TYPES: &[(&str, &str)] = &[
    ("txt", "text/plain"),
    ("text", "text/plain"),
    ("html", "text/html"),
    ("htm", "text/html"),
    ("asc", "text/plain"),
    ("conf", "text/plain"),
    ("log", "text/plain"),
    ("ini", "text/plain"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("tsv", "text/tab-separated-values"),
    ("ics", "text/calendar"),
    ("vcf", "text/vcard"),
    ("md", "text/markdown"),
    ("markdown", "text/markdown"),
    ("rst", "text/x-rst"),
    ("diff", "text/x-diff"),
    ("patch", "text/x-diff"),
    ("c", "text/x-c"),
    ("h", "text/x-c"),
    ("rs", "text/x-rust"),
    ("py", "text/x-python"),
    ("sh", "text/x-shellscript"),
    ("tex", "text/x-tex"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("toml", "application/toml"),
    ("json", "application/json"),
    ("xml", "application/xml"),
    ("js", "text/javascript"),
    ("sql", "application/sql"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("heic", "image/heic"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("bmp", "image/bmp"),
    ("ico", "image/vnd.microsoft.icon"),
    ("svg", "image/svg+xml"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("oga", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("flac", "audio/flac"),
    ("wav", "audio/vnd.wave"),
    ("m4a", "audio/mp4"),
    ("mid", "audio/midi"),
    ("mp4", "video/mp4"),
    ("m4v", "video/mp4"),
    ("mpg", "video/mpeg"),
    ("mpeg", "video/mpeg"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
    ("mkv", "video/matroska"),
    ("avi", "video/vnd.avi"),
    ("pdf", "application/pdf"),
    ("ps", "application/postscript"),
    ("eps", "application/postscript"),
    ("rtf", "application/rtf"),
    ("doc", "application/msword"),
    ("xls", "application/vnd.ms-excel"),
    ("ppt", "application/vnd.ms-powerpoint"),
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    (
        "pptx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("epub", "application/epub+zip"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("tgz", "application/gzip"),
    ("bz2", "application/x-bzip2"),
    ("xz", "application/x-xz"),
    ("zst", "application/zstd"),
    ("tar", "application/x-tar"),
    ("7z", "application/x-7z-compressed"),
    ("rar", "application/vnd.rar"),
    ("jar", "application/java-archive"),
    ("deb", "application/vnd.debian.binary-package"),
    ("iso", "application/x-iso9660-image"),
    ("exe", "application/vnd.microsoft.portable-executable"),
    ("sqlite", "application/vnd.sqlite3"),
    ("wasm", "application/wasm"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("p7s", "application/pkcs7-signature"),
    ("p7m", "application/pkcs7-mime"),
    ("sig", "application/pgp-signature"),
    ("key", "application/pgp-keys"),
    ("bin", "application/octet-stream"),
    ("eml", "message/rfc822"),
];

/// The part of `name` behind its last dot, in lower case; nothing if only a dot is in front of it.
#[must_use]
pub fn extension(name: &[u8]) -> Option<String> {
    let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0)?;
    let end = std::str::from_utf8(name.get(dot + 1..)?).ok()?;
    Some(end.to_ascii_lowercase())
}

/// The type that a file's name promises; `None` if it promises nothing known.
#[must_use]
pub fn by_name(name: &[u8]) -> Option<&'static str> {
    let wanted = extension(name)?;
    TYPES
        .iter()
        .find(|(end, _)| *end == wanted)
        .map(|(_, media)| *media)
}

/// The extension of a type (in lower case).
#[must_use]
pub fn extension_of(media: &str) -> Option<&'static str> {
    match media {
        "message/delivery-status" | "message/disposition-notification" | "text/rfc822-headers" => {
            return Some("txt");
        }
        "image/jpg" => return Some("jpg"),
        _ => {}
    }
    let known = TYPES
        .iter()
        .find(|(_, known)| *known == media)
        .map(|(end, _)| *end);
    known.or_else(|| media.starts_with("text/").then_some("txt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_promise_types() {
        assert_eq!(by_name(b"a.b.PDF"), Some("application/pdf"));
        for nothing in [
            "",
            "pdf",
            ".pdf",
            "Mr. Smith",
            "v1.2",
            "a.",
            "caf\u{e9}.\u{e9}",
        ] {
            assert_eq!(by_name(nothing.as_bytes()), None, "{nothing}");
        }
        assert_eq!(extension_of("image/jpeg"), Some("jpg"));
        assert_eq!(extension_of("text/x-unheard-of"), Some("txt"));
        assert_eq!(extension_of("x/y"), None);
    }
}
