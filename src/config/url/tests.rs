#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn url(text: &str) -> ServerUrl {
    ServerUrl::parse(text).unwrap_or_else(|line| panic!("{text}: {line}"))
}

fn refused(text: &str) -> String {
    match ServerUrl::parse(text) {
        Ok(url) => panic!("{text} was taken as {url:?}"),
        Err(line) => line,
    }
}

#[test]
fn the_schemes_say_tls_and_port() {
    assert_eq!(
        (url("ftp://h/").scheme, url("ftp://h/").port),
        (Scheme::Ftp(TlsMode::Auto), 21)
    );
    assert_eq!(
        (url("FTPS://h").scheme, url("ftps://h").port),
        (Scheme::Ftp(TlsMode::Implicit), 990)
    );
    assert_eq!(
        (url("ftpes://h").scheme, url("ftpes://h:2121").port),
        (Scheme::Ftp(TlsMode::Explicit), 2121)
    );
    assert!(refused("sftp://h/").contains("sshfs"));
    assert!(refused("http://h/").contains("ftp"));
}

#[test]
fn users_hosts_and_ports_are_decoded() {
    let full = url("ftp://an%40na@Ftp.Example.ORG:2121/a%20b/c");
    assert_eq!(full.user.as_deref(), Some("an@na"));
    assert_eq!((full.host.as_str(), full.port), ("ftp.example.org", 2121));
    assert_eq!(full.directory, b"a b/c");
    assert_eq!(url("ftp://a@b@host/").user.as_deref(), Some("a@b"));
    assert_eq!(url("ftp://@host/").user, None);
    assert_eq!(url("ftp://host:/").port, 21);
    assert_eq!(url("ftp://[::1]:2121/x").host, "::1");
    assert_eq!(url("ftp://[fe80::1%25eth0]/").host, "fe80::1%eth0");
}

#[test]
fn a_directory_is_below_the_login_unless_it_says_slash() {
    assert_eq!(url("ftp://h").directory, b"");
    assert_eq!(url("ftp://h/pub/").directory, b"pub");
    assert_eq!(url("ftp://h/%2Fetc//x/./").directory, b"/etc/x");
    assert_eq!(url("ftp://h//etc").directory, b"/etc");
    assert_eq!(url("ftp://h/%2F").directory, b"/");
    assert_eq!(url("ftp://h/caf%E9").directory, b"caf\xe9");
}

#[test]
fn what_is_shown_parses_to_the_same() {
    for text in [
        "ftp://h/",
        "ftp://anna@h:2121/a%20b/caf%E9/%25",
        "ftps://a%2Fb%40c%3Ad@h/%2Fetc/x",
        "ftpes://[fe80::1%25eth0]:99/",
        "ftp://h/%2F",
    ] {
        let first = url(text);
        let shown = first.shown(first.user.as_deref());
        assert_eq!(url(&shown), first, "{text} -> {shown}");
    }
}

#[test]
fn a_password_is_refused_and_never_quoted() {
    for text in [
        "ftp://anna:hunter2@host/",
        "ftp://anna:@host/hunter2",
        "ftp://anna:hunt/hunter2@host/",
        "ftp://anna:hunt#hunter2@host/",
        "ftp://anna:hunt?hunter2@host/",
        "ftp://:hunter2@host/",
        "ftps://anna:hunter2@",
    ] {
        let line = refused(text);
        assert!(line.contains("password_file"), "{text}: {line}");
        assert!(!line.contains("hunt"), "{text}: {line}");
    }
}

#[test]
fn nonsense_gets_a_line_that_says_what_is_wrong() {
    for (text, word) in [
        ("ftp:/h", "not a URL"),
        ("ftp://", "no host"),
        ("ftp:///dir", "no host"),
        ("ftp://user@/dir", "no host"),
        ("ftp://h:0/", "port"),
        ("ftp://h:65536/", "port"),
        ("ftp://h:+21/", "port"),
        ("ftp://h:x/", "port"),
        ("ftp://::1/", "brackets"),
        ("ftp://[::1/", "bracket"),
        ("ftp://[::1]x/", "bracket"),
        ("ftp://[host]/", "IPv6"),
        ("ftp://h?x", "?"),
        ("ftp://h/a#b", "#"),
        ("ftp://h/x;type=a", ";type="),
        ("ftp://h/%zz", "%"),
        ("ftp://h/%", "%"),
        ("ftp://h/a%0d%0aDELE%20x", "line end"),
        ("ftp://h/%00", "NUL"),
        ("ftp://h/../x", ".."),
        ("ftp://a%0ab@h/", "control"),
        ("ftp://a%ffb@h/", "UTF-8"),
        ("ftp://h h/", "name"),
        ("ftp://-oProxy/", "name"),
        ("ftp://h\u{e9}/", "xn--"),
    ] {
        let line = refused(text);
        assert!(line.contains(word), "{text}: {line}");
        assert!(!line.contains('\n'));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "\\PC{0,80}") {
        let _ = ServerUrl::parse(&text);
        let _ = ServerUrl::parse(&format!("ftp://{text}"));
    }

    #[test]
    fn what_parses_survives_being_shown(text in "ftps?://([a@%:2F]{0,6}@)?[a-c.\\[\\]:1]{1,6}(/[a%2F5/. ]{0,8})?") {
        if let Ok(first) = ServerUrl::parse(&text) {
            let shown = first.shown(first.user.as_deref());
            prop_assert_eq!(ServerUrl::parse(&shown), Ok(first), "{}", shown);
        }
    }
}
