//! Lists of addresses, with names, groups, comments and the obsolete forms that still occur.

use crate::vfs::error::Result;

use super::{Address, Mailbox, malformed};
use crate::mail::words;

/// Most entries of one list.
const MOST: usize = 10_000;

/// Comments in comments; deeper ones are no longer somebody's.
const DEPTH: usize = 50;

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An address, perhaps with a name.
    Mailbox(Mailbox),
    /// A word without `@`: an alias, in the files of this mount.
    Name(String),
    /// `Friends: a@x, b@y;`, perhaps empty.
    Group(String, Vec<Self>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Literal(String),
    Angle(String),
    Comment(String),
    At,
    Comma,
    Colon,
    Semicolon,
}

/// Reads a list; empty entries are skipped.
///
/// # Errors
/// [`crate::vfs::error::ErrorKind::BadMessage`] with the entry and the reason.
pub fn parse_list(text: &str) -> Result<Vec<Item>> {
    let tokens = tokens(text)?;
    let mut items = Vec::new();
    let mut group: Option<(String, Vec<Item>)> = None;
    let mut entry: Vec<Token> = Vec::new();
    for token in tokens.into_iter().chain([Token::Comma]) {
        match token {
            Token::Colon => {
                if group.is_some() {
                    return Err(malformed(text, "a group in a group"));
                }
                group = Some((phrase(&std::mem::take(&mut entry)), Vec::new()));
            }
            Token::Comma | Token::Semicolon => {
                let members = group.as_mut().map_or(&mut items, |(_, members)| members);
                members.extend(item(text, &std::mem::take(&mut entry))?);
                if members.len() > MOST {
                    return Err(malformed(text, "more than 10000 addresses"));
                }
                if token == Token::Semicolon
                    && let Some((name, members)) = group.take()
                {
                    items.push(Item::Group(name, members));
                }
            }
            other => entry.push(other),
        }
    }
    if group.is_some() {
        return Err(malformed(text, "a group without its semicolon"));
    }
    Ok(items)
}

fn item(text: &str, tokens: &[Token]) -> Result<Option<Item>> {
    let comment = tokens.iter().find_map(|token| match token {
        Token::Comment(comment) if !comment.trim().is_empty() => Some(comment.trim()),
        _ => None,
    });
    let tokens: Vec<Token> = tokens
        .iter()
        .filter(|t| !matches!(t, Token::Comment(_)))
        .cloned()
        .collect();
    let mailbox = |name: String, address: &str| -> Result<Option<Item>> {
        let decode = |name: &str| words::decode(name.as_bytes());
        let name = Some(name)
            .filter(|n| !n.is_empty())
            .or_else(|| comment.map(decode));
        let address = Address::parse(address)?;
        Ok(Some(Item::Mailbox(Mailbox { name, address })))
    };
    match tokens.as_slice() {
        [] => Ok(None),
        [names @ .., Token::Angle(inner)] => {
            // RFC 5322 section 4.4: an obsolete route may stand in front; it means nothing.
            let address = match inner.trim() {
                route if route.starts_with('@') => route.split_once(':').map_or("", |(_, a)| a),
                address => address,
            };
            if names
                .iter()
                .any(|t| matches!(t, Token::Angle(_) | Token::Literal(_)))
            {
                return Err(malformed(text, "two addresses without a comma"));
            }
            if !address.is_empty()
                && !address.contains('@')
                && !address.contains(char::is_whitespace)
            {
                return Ok(Some(Item::Name(address.to_owned())));
            }
            mailbox(phrase(names), address)
        }
        [Token::Word(name) | Token::Quoted(name)] => Ok(Some(Item::Name(name.clone()))),
        [
            local @ ..,
            Token::At,
            Token::Word(domain) | Token::Literal(domain),
        ] if local
            .iter()
            .all(|t| matches!(t, Token::Word(_) | Token::Quoted(_))) =>
        {
            let local: String = match local {
                [Token::Quoted(quoted)] => quote(quoted),
                [Token::Word(word)] => word.clone(),
                _ => return Err(malformed(text, "several words before the @")),
            };
            mailbox(String::new(), &format!("{local}@{domain}"))
        }
        other if other.contains(&Token::At) => {
            Err(malformed(text, "two addresses without a comma"))
        }
        _ => Err(malformed(text, "a name without an address")),
    }
}

fn quote(plain: &str) -> String {
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The words of a name, decoded.
fn phrase(tokens: &[Token]) -> String {
    let mut name = String::new();
    for token in tokens {
        let word = match token {
            Token::Word(word) | Token::Quoted(word) => word.as_str(),
            // Outlook writes `bob@x <bob@x>`.
            Token::At => "@",
            _ => continue,
        };
        if !name.is_empty() && word != "@" && !name.ends_with('@') {
            name.push(' ');
        }
        name.push_str(word);
    }
    words::decode(name.as_bytes())
}

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            c if c.is_whitespace() => continue,
            '"' => Token::Quoted(until(text, &mut chars, '"')?),
            '(' => Token::Comment(comment(text, &mut chars)?),
            '[' => Token::Literal(format!("[{}]", until(text, &mut chars, ']')?)),
            '<' => Token::Angle(angle(text, &mut chars)?),
            '@' => Token::At,
            ',' => Token::Comma,
            ':' => Token::Colon,
            ';' => Token::Semicolon,
            '>' | ')' | ']' | '\\' => return Err(malformed(text, "a stray bracket")),
            c if c.is_control() => return Err(malformed(text, "control characters")),
            c => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| {
                    !c.is_whitespace() && !c.is_control() && !"\"()[]<>@,:;\\".contains(*c)
                }) {
                    word.push(c);
                }
                Token::Word(word)
            }
        });
    }
    Ok(tokens)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// What stands up to `end`, unescaped.
fn until(text: &str, chars: &mut Chars<'_>, end: char) -> Result<String> {
    let mut inner = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => inner.extend(chars.next()),
            c if c == end => return Ok(inner),
            c => inner.push(c),
        }
    }
    Err(malformed(text, "an open quotation mark or bracket"))
}

/// What stands up to `>`, as it is.
fn angle(text: &str, chars: &mut Chars<'_>) -> Result<String> {
    let mut inner = String::new();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '>' if !quoted => return Ok(inner),
            '\\' if quoted => {
                inner.push(c);
                inner.extend(chars.next());
                continue;
            }
            '"' => quoted = !quoted,
            _ => {}
        }
        inner.push(c);
    }
    Err(malformed(text, "an open <"))
}

fn comment(text: &str, chars: &mut Chars<'_>) -> Result<String> {
    let mut inner = String::new();
    let mut depth = 1;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                inner.extend(chars.next());
                continue;
            }
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(inner);
        }
        if depth > DEPTH {
            break;
        }
        inner.push(c);
    }
    Err(malformed(text, "an open comment"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        fn one(item: &Item) -> String {
            match item {
                Item::Mailbox(mailbox) => mailbox.shown(),
                Item::Name(name) => format!("alias {name}"),
                Item::Group(name, members) => {
                    format!(
                        "{name}[{}]",
                        members.iter().map(one).collect::<Vec<_>>().join("|")
                    )
                }
            }
        }
        parse_list(text)
            .unwrap()
            .iter()
            .map(one)
            .collect::<Vec<_>>()
            .join("|")
    }

    #[test]
    fn lists_as_people_and_programs_write_them() {
        for (text, want) in [
            ("a@x.org", "a@x.org"),
            ("a@x.org, b@y.org,,", "a@x.org|b@y.org"),
            ("Bob <b@x.org>, team", "Bob <b@x.org>|alias team"),
            ("\"Smith, Bob\" <b@x.org>", "\"Smith, Bob\" <b@x.org>"),
            (
                "b@x.org (Bob (the) builder)",
                "\"Bob (the) builder\" <b@x.org>",
            ),
            ("=?utf-8?Q?J=C3=B6rg?= <j@x.org>", "J\u{f6}rg <j@x.org>"),
            (
                "Friends: a@x.org, Bo <b@y.org>; c@z.org",
                "Friends[a@x.org|Bo <b@y.org>]|c@z.org",
            ),
            ("undisclosed-recipients:;", "undisclosed-recipients[]"),
            ("<@relay.org,@other.org:a@x.org>", "a@x.org"),
            ("a @ x.org", "a@x.org"),
            ("a@x.org <a@x.org>", "\"a@x.org\" <a@x.org>"),
            ("\"b o b\"@x.org", "\"b o b\"@x.org"),
            ("a@[127.0.0.1]; b@x.org", "a@[127.0.0.1]|b@x.org"),
            ("John Q. Public <j@x.org>", "\"John Q. Public\" <j@x.org>"),
            (
                "J\u{f6}rg <j@b\u{fc}cher.example>",
                "J\u{f6}rg <j@xn--bcher-kva.example>",
            ),
            ("<team>", "alias team"),
            ("", ""),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [
            "a@x.org b@y.org",
            "Bob Smith",
            "a@x.org>",
            "<a@x.org",
            "a@",
            "a@@x.org",
            "\"open <a@x.org>",
            "(open a@x.org",
            "g: a@x.org",
            "g: h: a@x.org;;",
            "<>",
            "<a@x.org> <b@y.org>",
            "a@x.org,b@",
            "a\u{1}@x.org",
        ] {
            assert!(parse_list(bad).is_err(), "{bad:?}: {}", shown(bad));
        }
        assert!(parse_list(&"(".repeat(100_000)).is_err());
        assert!(parse_list(&"a@x.org,".repeat(20_000)).is_err());
    }

    proptest! {
        #[test]
        fn names_come_back(name in "[^\\p{Cc}]{1,80}") {
            let mailbox = Mailbox { name: Some(name.clone()), address: Address::parse("a@x.org").unwrap() };
            let written = mailbox.to_string().replace("\r\n", "");
            prop_assert_eq!(&Mailbox::parse(&written).unwrap(), &mailbox, "{}", written);
        }

        #[test]
        fn parsing_takes_anything(text in "\\PC{0,200}") {
            let _ = parse_list(&text);
        }
    }
}
