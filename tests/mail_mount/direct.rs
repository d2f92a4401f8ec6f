//! `smtp=mx`: to the servers of each domain, as dnsmasq names them.

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::lab::{Lab, text};
use crate::support::mount::skip;
use crate::support::smtpd::{Quirks, Smtpd};

struct Dns {
    child: Child,
    port: u16,
}

impl Dns {
    /// A name server with these records. `None` where there is no dnsmasq.
    fn start(records: &[&str]) -> Option<Self> {
        let deadline = Instant::now() + Duration::from_secs(30);
        // Between our look at a port and dnsmasq's, somebody else may take it: it ends at once then.
        loop {
            let port = free_port();
            let Ok(child) = spawn(port, records) else {
                skip("no dnsmasq (package dnsmasq-base)");
                return None;
            };
            let mut dns = Self { child, port };
            while dns.child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(dns);
                }
                assert!(Instant::now() < deadline, "dnsmasq does not listen");
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(Instant::now() < deadline, "dnsmasq ends at once");
        }
    }
}

/// A port that nobody has, neither for questions nor for connections.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn spawn(port: u16, records: &[&str]) -> io::Result<Child> {
    Command::new("dnsmasq")
        .args([
            "-k",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--no-resolv",
        ])
        .args([
            "--no-hosts",
            "--user=root",
            "--pid-file=",
            "--conf-file=/dev/null",
        ])
        .args(["--local=/example/", &format!("--port={port}")])
        .args(records)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mount that sends to `smtpd` and others on its port.
fn lab(dns: u16, smtpd: Smtpd, more: &[&str]) -> Option<Lab> {
    let (smtp, dns) = (format!("mx:{}", smtpd.port), format!("dns=127.0.0.1:{dns}"));
    let options: Vec<&str> = more.iter().copied().chain([dns.as_str()]).collect();
    Lab::sending(Vec::new(), smtpd, &smtp, &options)
}

#[test]
fn each_domain_has_its_servers_in_their_order() {
    let Some(dns) = Dns::start(&[
        "--mx-host=two.example,first.example,10",
        "--mx-host=two.example,second.example,20",
        // Nobody listens at the first one.
        "--host-record=first.example,127.0.0.9",
        "--host-record=second.example,127.0.0.1",
        "--mx-host=other.example,third.example,5",
        "--host-record=third.example,127.0.0.7",
        "--host-record=plain.example,127.0.0.1",
        "--cname=alias.example,plain.example",
        "--mx-host=null.example,.,0",
        "--mx-host=lost.example,nowhere.example,10",
    ]) else {
        return;
    };
    let smtpd = Smtpd::start(Quirks::default());
    let port = smtpd.port;
    let third = Smtpd::start_at(&format!("127.0.0.7:{port}"), Quirks::default());
    let Some(lab) = lab(dns.port, smtpd, &[]) else {
        return;
    };
    lab.mount.sh(
        "printf 'To: a@two.example, b@two.example, c@other.example\\nSubject: many\\n\\nhi\\n' > drafts/m
         mv drafts/m outbox/
         for to in d@plain.example e@alias.example f@[127.0.0.1]; do
             printf \"To: $to\\nSubject: one\\n\\nhi\\n\" > drafts/m; n=$((n + 1)); mv drafts/m outbox/m$n
         done
         for to in g@null.example h@nosuch.example i@lost.example j@broken.test; do
             printf \"To: $to\\nSubject: none\\n\\nhi\\n\" > drafts/m; n=$((n + 1)); mv drafts/m outbox/m$n
         done",
    );
    lab.wait("not sent", || {
        lab.smtpd.kept().len() == 4
            && third.kept().len() == 1
            && lab.mount.sh("ls queue | wc -l").trim() == "1"
    });
    let many = lab
        .smtpd
        .kept()
        .into_iter()
        .find(|m| text(m).contains("many"))
        .unwrap();
    assert_eq!(many.rcpts.len(), 2, "{many:?}");
    assert!(third.kept()[0].rcpts[0].contains("c@other.example"));
    let reasons = lab.mount.sh("cat failed/*/reason");
    for words in [
        "556 5.1.10 the domain takes no mail",
        "550 5.1.2 there is no such domain",
        "550 5.4.4 the domain has no mail server",
    ] {
        assert!(reasons.contains(words), "{words}: {reasons}");
    }
    let waits = lab.mount.sh("cat queue/*");
    assert!(
        waits.contains("j@broken.test: deferred") && waits.contains("451 4.4.3"),
        "{waits}"
    );
    lab.mount.finish();
}

#[test]
fn without_a_name_server_all_mail_waits_and_none_comes_back() {
    // Bound, so that nobody else is there, and deaf.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let smtpd = Smtpd::start(Quirks::default());
    let Some(mut lab) = lab(port, smtpd, &[]) else {
        return;
    };
    lab.mount.expect_log("sending mail");
    lab.mount
        .sh("printf 'To: a@two.example\\n\\nhi\\n' > drafts/m; mv drafts/m outbox/");
    lab.wait("no trouble", || {
        lab.mount.sh("cat status").contains("name server")
    });
    let queued = lab.mount.sh("cat queue/*");
    assert!(
        queued.contains("Attempts: 0") && queued.contains("State: queued"),
        "{queued}"
    );
    assert_eq!(lab.mount.sh("ls failed new"), "failed:\n\nnew:\n");
    lab.mount.finish();
}

#[test]
fn a_stranger_who_wants_a_login_refuses_the_message_and_no_more() {
    let Some(dns) = Dns::start(&["--host-record=plain.example,127.0.0.1"]) else {
        return;
    };
    let quirks = Quirks::default().recipient("b@plain.example", &["530 5.7.0 log in"]);
    let Some(lab) = lab(dns.port, Smtpd::start(quirks), &[]) else {
        return;
    };
    lab.mount.sh("for to in b c; do
             printf \"To: $to@plain.example\\n\\nhi\\n\" > drafts/m; n=$((n + 1)); mv drafts/m outbox/m$n
         done");
    lab.sent(1);
    assert!(
        lab.mount
            .sh("cat failed/*/reason")
            .contains("530 5.7.0 log in")
    );
    lab.mount.finish();
}
