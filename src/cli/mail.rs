//! The words of `ferryfs mail`.

use std::time::Duration;

use clap::{Args, Subcommand};

/// What is to be done with mail.
#[derive(Debug)]
pub(crate) enum MailWords {
    /// Print the inbox, newest last.
    List {
        /// A name of the configuration file, or the directory of a mount.
        account: Option<String>,
        /// How many; `None`: a screen.
        count: Option<usize>,
    },
    /// Print a message and mark it as seen.
    Read {
        account: Option<String>,
        message: String,
    },
    /// Begin an answer, have it edited, and send it.
    Answer {
        account: Option<String>,
        message: String,
        /// `reply`, `reply-all`, `forward`.
        how: &'static str,
        /// More recipients.
        to: Vec<String>,
    },
    /// Wait for servers.
    Wait {
        account: Option<String>,
        /// None: all that is queued now.
        ids: Vec<String>,
        timeout: Duration,
    },
}

#[derive(Args)]
pub(super) struct Of {
    /// A mailbox of the configuration file, or its mountpoint
    #[arg(short, long, value_name = "NAME|DIR")]
    account: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum MailSub {
    /// Print the inbox, the newest message last
    List {
        #[command(flatten)]
        of: Of,
        /// How many messages; 0: all
        #[arg(short = 'n', value_name = "NUMBER")]
        count: Option<usize>,
    },
    /// Print a message and mark it as seen
    Read {
        #[command(flatten)]
        of: Of,
        /// Its number in the list, or its file name
        message: String,
    },
    /// Answer a message in $EDITOR
    Reply {
        #[command(flatten)]
        of: Of,
        /// To all who got it
        #[arg(long)]
        all: bool,
        /// Its number in the list, or its file name
        message: String,
    },
    /// Forward a message in $EDITOR
    Forward {
        #[command(flatten)]
        of: Of,
        /// Its number in the list, or its file name
        message: String,
        /// To whom
        to: Vec<String>,
    },
    /// Wait until servers have what is queued; the exit status is that of sysexits(3)
    Wait {
        #[command(flatten)]
        of: Of,
        /// All that is queued now; so it is if no ID is given
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Longest wait, e.g. 30s or 10m
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = super::duration)]
        timeout: Duration,
        /// Names in queue/
        #[arg(value_name = "ID")]
        ids: Vec<String>,
    },
}

impl MailSub {
    pub(super) fn words(self) -> MailWords {
        match self {
            Self::List { of, count } => MailWords::List {
                account: of.account,
                count,
            },
            Self::Read { of, message } => MailWords::Read {
                account: of.account,
                message,
            },
            Self::Reply { of, all, message } => MailWords::Answer {
                account: of.account,
                message,
                how: if all { "reply-all" } else { "reply" },
                to: Vec::new(),
            },
            Self::Forward { of, message, to } => MailWords::Answer {
                account: of.account,
                message,
                how: "forward",
                to,
            },
            Self::Wait {
                of, timeout, ids, ..
            } => MailWords::Wait {
                account: of.account,
                ids,
                timeout,
            },
        }
    }
}
