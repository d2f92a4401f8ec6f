//! What other programs call things: options of curlftpfs, sshfs, rclone and libfuse, of which an old
//! line in fstab is full, and what says the same here.

const SAID_BY_DEFAULT: &str = "leave it out, it is so without asking";

/// Names, and what to do instead.
const KNOWN: &[(&[&str], &str)] = &[
    (
        &["ssl", "ssl_control", "ssl_try", "tlsv1", "sslv3"],
        "write tls=require, or ftps:// or ftpes:// in the URL",
    ),
    (
        &[
            "no_verify_peer",
            "no_verify_hostname",
            "no_check_certificate",
        ],
        "name the certificate: fingerprint=, cafile= or tls_trust=first-use",
    ),
    (&["cacert", "capath"], "write cafile=FILE"),
    (&["key_type", "cert_type"], "leave it out, the file is PEM"),
    (
        &["iocharset", "codepage", "utf8"],
        "write charset=LABEL, of the server's names",
    ),
    (
        &[
            "cache",
            "cache_timeout",
            "cache_stat_timeout",
            "cache_dir_timeout",
            "cache_link_timeout",
            "dcache_timeout",
            "attr_timeout",
            "entry_timeout",
        ],
        "write dir_cache=DURATION for listings, cache_size=SIZE for contents",
    ),
    (&["connect_timeout"], "write timeout=DURATION"),
    (
        &["httpproxy", "proxytunnel", "socks4", "socks5"],
        "write proxy=URL",
    ),
    (&["ftp_port"], "write active or active_address=ADDRESS"),
    (&["interface"], "write bind=ADDRESS"),
    (
        &[
            "reconnect",
            "skip_pasv_ip",
            "tcp_nodelay",
            "big_writes",
            "auto_cache",
            "kernel_cache",
            "large_read",
            "auto_unmount",
        ],
        SAID_BY_DEFAULT,
    ),
    (
        &["remount"],
        "a mount is not changed in place; umount it and mount it again",
    ),
];

/// What to do instead of `name`, if another program has it.
pub(super) fn instead(name: &str) -> Option<&'static str> {
    let known = KNOWN.iter().find(|(names, _)| names.contains(&name));
    known.map(|(_, instead)| *instead)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::options::{OPTIONS, is_for_others, is_secret};
    use super::*;

    #[test]
    fn none_is_an_option_of_ours_and_what_is_advised_is() {
        for (names, instead) in KNOWN {
            for name in *names {
                let ours = OPTIONS.iter().any(|spec| spec.name == *name);
                assert!(!ours && !is_for_others(name) && !is_secret(name), "{name}");
            }
            for word in instead.split([' ', ',', ':']).filter(|w| w.contains('=')) {
                let (name, _) = word.split_once('=').unwrap();
                assert!(OPTIONS.iter().any(|spec| spec.name == name), "{word}");
            }
        }
        assert!(instead("ssl").unwrap().contains("tls=require"));
        assert_eq!(instead("tls"), None);
    }
}
