//! Takes out of a text who and where: for bug reports that everyone may read.

use crate::config::{Examined, Source};
use crate::mail::sender::Route;

/// `text` without the names of hosts and users, addresses and directories of `examined`. There are
/// no passwords in it to begin with.
pub(super) fn masked(text: &str, examined: &Examined) -> String {
    let mut words: Vec<(String, &str)> = Vec::new();
    let mut hide = |word: &str, with: &'static str| {
        // A word that short is a part of others, and tells nobody anything.
        if word.len() > 1 {
            words.push((word.to_owned(), with));
        }
    };
    match &examined.source {
        Source::Ftp(ftp) => {
            hide(&ftp.host, "HOST");
            if ftp.user != "anonymous" {
                hide(&ftp.user, "USER");
            }
            hide(&String::from_utf8_lossy(&ftp.directory), "DIRECTORY");
            if let Some(proxy) = &ftp.proxy {
                hide(&proxy.host, "PROXY");
                hide(proxy.user.as_deref().unwrap_or_default(), "PROXYUSER");
            }
        }
        Source::Mail(mail) => {
            hide(&mail.fetch.endpoint.host, "HOST");
            hide(&mail.fetch.user, "USER");
            if let Some(Route::Relay(relay)) = &mail.submission {
                hide(&relay.endpoint.host, "HOST2");
                let login = relay.login.as_ref();
                hide(login.map_or("", |(user, _)| user), "USER2");
            }
        }
    }
    // The longest first: one may be a part of another.
    words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
    let mut text = text.to_owned();
    for (word, with) in words {
        text = replace_word(&text, &word, with);
    }
    without_addresses(&text)
}

/// Replaces `word` where it is not a part of a longer one, whatever its case.
fn replace_word(text: &str, word: &str, with: &str) -> String {
    let (lower, wanted) = (text.to_ascii_lowercase(), word.to_ascii_lowercase());
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let part = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    while let Some(found) = lower.get(at..).and_then(|rest| rest.find(&wanted)) {
        let (begin, end) = (at + found, at + found + wanted.len());
        let before = begin.checked_sub(1).and_then(|i| lower.as_bytes().get(i));
        let after = lower.as_bytes().get(end);
        out.push_str(text.get(at..begin).unwrap_or_default());
        if part(before.copied()) || part(after.copied()) {
            out.push_str(text.get(begin..end).unwrap_or_default());
        } else {
            out.push_str(with);
        }
        at = end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// A greeting without the name that the server gives itself: words with dots in them that end in
/// letters.
pub(super) fn without_hosts(text: &str) -> String {
    let is_host = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let last = bare.rsplit('.').next().unwrap_or_default();
        bare.contains('.') && last.len() > 1 && last.chars().all(|c| c.is_ascii_alphabetic())
    };
    let words = text.split(' ');
    let words: Vec<_> = words
        .map(|word| if is_host(word) { "NAME" } else { word })
        .collect();
    words.join(" ")
}

/// Replaces what is an IP address, with a port or without.
fn without_addresses(text: &str) -> String {
    let in_address = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(in_address) {
        let (before, tail) = rest.split_at(begin);
        out.push_str(before);
        let end = tail.find(|c| !in_address(c)).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        let bare = word.trim_end_matches(['.', ':']);
        let is_address = bare.parse::<std::net::IpAddr>().is_ok()
            || bare.parse::<std::net::SocketAddr>().is_ok()
            || bare
                .strip_prefix('[')
                .and_then(|bare| bare.strip_suffix(']'))
                .is_some_and(|bare| bare.parse::<std::net::IpAddr>().is_ok());
        if is_address {
            out.push_str("ADDRESS");
            out.push_str(word.get(bare.len()..).unwrap_or_default());
        } else {
            out.push_str(word);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_and_other_numbers_stay() {
        let text =
            "at 192.0.2.7:21, [2001:db8::1]:990 and ::1; TLS 1.3, 12:30:05, 1.2.3 SHA256:AB:CD";
        assert_eq!(
            without_addresses(text),
            "at ADDRESS, ADDRESS and ADDRESS; TLS 1.3, 12:30:05, 1.2.3 SHA256:AB:CD"
        );
    }

    #[test]
    fn greetings_keep_their_software() {
        assert_eq!(
            without_hosts("(vsFTPd 3.0.3) at ftp.example.org, <mx1.example.org>"),
            "(vsFTPd 3.0.3) at NAME NAME"
        );
    }

    #[test]
    fn names_go_where_they_are_words() {
        assert_eq!(
            replace_word("Anna on ftp.example.org: annalise, (anna)", "anna", "USER"),
            "USER on ftp.example.org: annalise, (USER)"
        );
    }
}
