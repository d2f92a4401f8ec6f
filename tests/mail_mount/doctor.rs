//! `ferryfs doctor` on a mailbox: what both servers can do, and nothing sent, fetched or deleted.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::lab::mail;
use crate::support::mount::Place;
use crate::support::pop3d::{self, Pop3d};
use crate::support::smtpd::{self, Smtpd};

#[test]
fn both_servers_are_examined_and_nothing_is_changed() {
    let pop3d = Pop3d::start(vec![mail(1), mail(2)], pop3d::Quirks::default());
    let smtpd = Smtpd::start(smtpd::Quirks::default());
    let place = Place::new();
    let file = place.path("password");
    let mut options = std::fs::OpenOptions::new();
    let mut password = options.write(true).create(true).mode(0o600);
    password = password.truncate(true);
    let mut password = password.open(&file).unwrap();
    password.write_all(pop3d::PASSWORD.as_bytes()).unwrap();
    let output = place
        .command()
        .arg("doctor")
        .arg(format!("pop3://{}@localhost:{}/", pop3d::USER, pop3d.port))
        .arg("-o")
        .arg(format!(
            "tls=off,password_file={},smtp=smtp://localhost:{},from=a@example.org",
            file.display(),
            smtpd.port
        ))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "inbox\n",
        "sending\n",
        "  yes UIDL",
        "messages                       2, ",
        "  no  encrypted",
        "PIPELINING",
    ] {
        assert!(text.contains(part), "{part} not in {text}");
    }
    assert!(!text.contains(pop3d::PASSWORD), "{text}");
    let block = text.split("```").nth(1).unwrap();
    assert!(
        !block.contains("localhost") && !block.contains(pop3d::USER),
        "{block}"
    );
    assert_eq!((pop3d.count("RETR"), pop3d.count("DELE")), (0, 0));
    assert_eq!(smtpd.received().len(), 0);
    assert!(smtpd.log().iter().all(|line| !line.starts_with("MAIL")));
}
