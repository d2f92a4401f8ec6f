//! One account: its two servers, and its mount.

use std::time::{Duration, Instant};

use crate::support::mount::{Mounting, TestMount};
use crate::support::pop3d::{Mail, Pop3d};
use crate::support::smtpd::{Received, Smtpd};
use crate::support::{pop3d, smtpd};

/// Longer than any linger.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An account that is mounted.
pub struct Lab {
    pub mount: TestMount,
    pub pop3d: Pop3d,
    pub smtpd: Smtpd,
}

/// A message of a few lines.
pub fn mail(number: usize) -> Mail {
    Mail {
        uidl: format!("u{number}"),
        text: format!(
            "From: bob@example.org\nTo: alice@example.org\nSubject: Number {number}\n\
             Date: Mon, 23 Nov 2026 10:00:0{} +0000\n\nThis is message {number}.\n..dots\n",
            number % 10
        )
        .into_bytes(),
    }
}

impl Lab {
    /// Mounts an account whose servers speak clear text. `None` where there is no FUSE.
    pub fn start(mails: Vec<Mail>, quirks: smtpd::Quirks) -> Option<Self> {
        Self::with(mails, quirks, &[])
    }

    /// As [`start`](Self::start), with more options.
    pub fn with(mails: Vec<Mail>, quirks: smtpd::Quirks, options: &[&str]) -> Option<Self> {
        let smtpd = Smtpd::start(quirks);
        let smtp = format!("smtp://localhost:{}", smtpd.port);
        Self::sending(mails, smtpd, &smtp, options)
    }

    /// With this in `smtp=`, which leads to `smtpd`.
    pub fn sending(mails: Vec<Mail>, smtpd: Smtpd, smtp: &str, options: &[&str]) -> Option<Self> {
        let pop3d = Pop3d::start(mails, pop3d::Quirks::default());
        let url = format!("pop3://{}@localhost:{}/", pop3d::USER, pop3d.port);
        let mut mounting = Mounting::of(url)
            .password(pop3d::PASSWORD)
            .option("tls=off")
            .option(format!("smtp={smtp}"))
            .option("from=Alice A. <alice@example.org>");
        for option in options {
            mounting = mounting.option(*option);
        }
        let mount = mounting
            .expect_log("outbox/")
            .expect_log("mail ")
            .expect_log("rename of inode")
            .expect_log("write of inode")
            .start()?;
        Some(Self {
            mount,
            pop3d,
            smtpd,
        })
    }

    /// Waits until `done`.
    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(
                Instant::now() < deadline,
                "{what}\n{}\n{}",
                self.mount.sh("cat status; ls -R outbox queue failed"),
                self.mount.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the server has `count` messages and the mount has nothing left to send, and a
    /// little longer for what should not come.
    pub fn sent(&self, count: usize) -> Vec<Received> {
        self.wait("not sent", || {
            self.smtpd.kept().len() >= count && self.mount.sh("ls queue").is_empty()
        });
        std::thread::sleep(Duration::from_millis(300));
        let kept = self.smtpd.kept();
        assert_eq!(kept.len(), count, "{kept:?}");
        kept
    }

    /// Waits until `new` has `count` messages.
    pub fn fetched(&self, count: usize) {
        self.wait("not fetched", || {
            self.mount.sh("ls new cur | grep -c U || true").trim() == count.to_string()
        });
    }
}

/// What came over the wire as text.
pub fn text(received: &Received) -> String {
    String::from_utf8_lossy(&received.text()).replace("\r\n", "\n")
}
