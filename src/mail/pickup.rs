//! Messages from programs that know sendmail(8) only: cron writes `From: root (Cron Daemon)` and
//! `To: me`, with names of this machine where the net has addresses.

use std::collections::HashSet;

use super::address::{Address, Item, Mailbox, parse_list};
use super::aliases::Aliases;
use super::fields::{self, Field, fields, text_of};
use crate::vfs::error::{Error, ErrorKind, Result};

/// Fields in which such names stand.
const ADDRESSES: [&str; 6] = ["from", "sender", "reply-to", "to", "cc", "bcc"];

/// Turns names into addresses.
#[derive(Debug)]
pub struct Locals<'a> {
    aliases: &'a Aliases,
    /// Who gets mail for the users of this machine.
    me: &'a Address,
    users: HashSet<String>,
}

impl<'a> Locals<'a> {
    /// With the users of `passwd`, as passwd(5) lists them; root is always one.
    #[must_use]
    pub fn new(aliases: &'a Aliases, me: &'a Address, passwd: &str) -> Self {
        let named = passwd.lines().filter_map(|line| line.split(':').next());
        let users = named.chain(["root", "postmaster", "mailer-daemon"]);
        Self {
            aliases,
            me,
            users: users.map(str::to_lowercase).collect(),
        }
    }

    /// Those to whom a message goes: aliases stay what they are, users of this machine are `me`.
    ///
    /// # Errors
    /// `BadMessage` for what is no address, `NotFound` for a name nobody has.
    pub fn recipients(&self, typed: &[String]) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for word in typed {
            for item in parse_list(word)? {
                items.push(self.recipient(item)?);
            }
        }
        Ok(items)
    }

    fn recipient(&self, item: Item) -> Result<Item> {
        match item {
            Item::Name(name) if !self.aliases.contains(&name) => {
                if !self.users.contains(&name.to_lowercase()) {
                    let line = format!("{name}: no address, no alias and no user of this machine");
                    return Err(Error::new(ErrorKind::NotFound, line));
                }
                Ok(self.own(&name))
            }
            Item::Group(name, members) => {
                let members = members.into_iter().map(|member| self.recipient(member));
                Ok(Item::Group(name, members.collect::<Result<_>>()?))
            }
            item => Ok(item),
        }
    }

    fn own(&self, name: &str) -> Item {
        Item::Mailbox(Mailbox {
            name: Some(name.to_owned()),
            address: self.me.clone(),
        })
    }

    /// `header` with addresses where it had names of this machine. `strict`: its recipients get the
    /// message, so that a name nobody has is an error; else it is only shown.
    ///
    /// # Errors
    /// As [`recipients`](Self::recipients).
    pub fn header(&self, header: &[u8], strict: bool) -> Result<Vec<u8>> {
        let mut written = Vec::with_capacity(header.len());
        for field in fields(header) {
            match field {
                Ok(field) if ADDRESSES.contains(&field.name.to_ascii_lowercase().as_str()) => {
                    written.extend(self.field(&field, strict)?);
                }
                Ok(field) => written.extend_from_slice(field.raw),
                Err(line) => written.extend_from_slice(line),
            }
        }
        Ok(written)
    }

    fn field(&self, field: &Field<'_>, strict: bool) -> Result<Vec<u8>> {
        let text = field.text();
        let untouched = || field.raw.to_vec();
        // What is malformed is judged, and refused, by those who judge all messages.
        let Ok(items) = parse_list(&text) else {
            return Ok(untouched());
        };
        let author = ["From", "Sender", "Reply-To"]
            .iter()
            .any(|name| field.is(name));
        let local = |item: &Item| matches!(item, Item::Name(name) if author || !self.aliases.contains(name));
        if !items.iter().any(local) {
            return Ok(untouched());
        }
        let mut shown = Vec::new();
        for item in items {
            let item = match item {
                Item::Name(name) if author => self.own(comment(&text).unwrap_or(&name)),
                item if strict => self.recipient(item)?,
                Item::Name(name) if self.aliases.contains(&name) => Item::Name(name),
                // Somebody on some machine, once.
                Item::Name(name) => match self.recipient(Item::Name(name.clone())) {
                    Ok(item) => item,
                    Err(_) => Item::Group(name, Vec::new()),
                },
                item => item,
            };
            shown.push(written(item));
        }
        let end = if field.raw.ends_with(b"\r\n") {
            "\r\n"
        } else {
            "\n"
        };
        Ok(format!("{}: {}{end}", field.name, shown.join(", ")).into_bytes())
    }
}

/// As it stands in a header.
fn written(item: Item) -> String {
    match item {
        Item::Mailbox(mailbox) => mailbox.to_string(),
        Item::Name(name) => name,
        Item::Group(name, members) => {
            let members: Vec<_> = members.into_iter().map(written).collect();
            format!("{}:{};", super::words::phrase(&name), members.join(", "))
        }
    }
}

/// The text of the comment in `root (Cron Daemon)`.
fn comment(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('(')?;
    let (comment, _) = rest.rsplit_once(')')?;
    Some(comment.trim())
        .filter(|comment| !comment.is_empty() && !comment.contains(['(', ')', '\\']))
}

/// The header at the beginning of `head`, as two places: where it begins, behind the `From ` line of
/// an mbox, and where it ends. `None` if `head` begins with no header.
#[must_use]
pub fn header_at(head: &[u8]) -> Option<(usize, usize)> {
    let mut start = 0;
    if head.starts_with(b"From ") {
        start = fields::line_len(head);
    }
    let rest = head.get(start..)?;
    fields(rest).next()?.ok()?;
    let end = fields::end_of_header(rest).map_or(rest.len(), |(end, _)| end);
    Some((start, start + end))
}

/// The address in `-f`: `bob@example.org`, `<bob@example.org>`; `None` for the empty path.
///
/// # Errors
/// `BadMessage`.
pub fn sender(text: &str, locals: &Locals<'_>) -> Result<Option<Address>> {
    let bare = text.trim().trim_start_matches('<').trim_end_matches('>');
    if bare.is_empty() {
        return Ok(None);
    }
    if !bare.contains('@') {
        // The login name of whoever calls, most likely: there is one account.
        return Ok(Some(locals.me.clone()));
    }
    Address::parse(&text_of(bare.as_bytes())).map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with<R>(work: impl FnOnce(&Locals<'_>) -> R) -> R {
        let aliases = Aliases::parse(b"team: bob@example.org\n");
        let me = Address::parse("alice@example.org").unwrap();
        work(&Locals::new(
            &aliases,
            &me,
            "root:x:0:0::/:/bin/sh\nanna:x:1000:1000::/:/bin/sh\n",
        ))
    }

    #[test]
    fn names_of_this_machine_are_the_account() {
        with(|locals| {
            let header = |text: &str, strict| {
                locals
                    .header(text.as_bytes(), strict)
                    .map(|bytes| String::from_utf8(bytes).unwrap())
            };
            assert_eq!(
                header("From: root (Cron Daemon)\nTo: anna\nSubject: x\n", true).unwrap(),
                "From: Cron Daemon <alice@example.org>\nTo: anna <alice@example.org>\nSubject: x\n"
            );
            let untouched = "From: A <a@x.org>\nTo: team, b@x.org\nCc: a@@b\nno field\n";
            assert_eq!(header(untouched, true).unwrap(), untouched);
            assert_eq!(
                header("To: nobody-here\r\n", false).unwrap(),
                "To: nobody-here:;\r\n"
            );
            assert_eq!(
                header("To: anna, Friends: b@x.org, team, root;\n", true).unwrap(),
                "To: anna <alice@example.org>, \
                 Friends:b@x.org, team, root <alice@example.org>;\n"
            );
            let err = header("To: nobody-here\n", true).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::NotFound);
            let to = ["team, Root".to_owned(), "b@x.org".to_owned()];
            assert_eq!(locals.recipients(&to).unwrap().len(), 3);
            assert!(locals.recipients(&["a@@b".to_owned()]).is_err());
            assert_eq!(sender("<>", locals).unwrap(), None);
            let own = sender("root", locals).unwrap().unwrap();
            assert_eq!(own.as_str(), "alice@example.org");
        });
    }

    #[test]
    fn where_a_header_is() {
        assert_eq!(header_at(b"To: x\n\nbody"), Some((0, 6)));
        assert_eq!(header_at(b"From a@b Mon\nTo: x\n"), Some((13, 19)));
        assert_eq!(header_at(b"Hello there\n"), None);
        assert_eq!(header_at(b""), None);
    }
}
