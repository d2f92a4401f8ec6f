//! HASH and its elders, where the quirks' extras have them.

use std::fs;
use std::io;

use ferryfs::vfs::checksum::Algorithm;

use super::quirks::Quirks;
use super::session::Session;

const ALL: [(Algorithm, &str); 5] = [
    (Algorithm::Sha256, "XSHA256"),
    (Algorithm::Sha512, "XSHA512"),
    (Algorithm::Sha1, "XSHA1"),
    (Algorithm::Md5, "XMD5"),
    (Algorithm::Crc32, "XCRC"),
];

impl Session {
    /// `OPTS HASH name`.
    pub(super) fn choose_hash(&mut self, name: &str) -> io::Result<()> {
        match ALL.iter().find(|(known, _)| known.name() == name) {
            Some((known, _)) => {
                self.hash = *known;
                self.done(&format!("200 {name}"))
            }
            None => self.say("501 Unknown algorithm."),
        }
    }

    /// `HASH name` or `XCRC name`; `false` if there is no such command.
    pub(super) fn checksum(&mut self, quirks: &Quirks, verb: &str, arg: &[u8]) -> io::Result<bool> {
        let offered = |extra: &&str| extra.split(' ').next() == Some(verb);
        let own = ALL.iter().find(|(_, command)| *command == verb);
        let is_one = own.is_some() || verb == "HASH";
        if !is_one || !quirks.extras.iter().any(offered) {
            return Ok(false);
        }
        let algorithm = own.map_or(self.hash, |(algorithm, _)| *algorithm);
        let content = match fs::read(self.real(arg)) {
            Ok(content) => content,
            Err(err) => return self.refuse(arg, &err).map(|()| true),
        };
        let mut sum = algorithm.begin();
        sum.add(&content);
        let digits = sum.end().digits.to_uppercase();
        let reply = match own {
            Some(_) => format!("250 {digits}"),
            None => {
                let (name, last) = (algorithm.name(), content.len().saturating_sub(1));
                let file = String::from_utf8_lossy(arg);
                format!("213 {name} 0-{last} {digits} {file}")
            }
        };
        self.done(&reply).map(|()| true)
    }
}
