//! Mail that nobody should have to receive: in bounded time and memory, and without escape.

use std::fs;
use std::time::{Duration, Instant};

use super::lab::Lab;
use crate::support::pop3d::Mail;
use crate::support::smtpd::Quirks;

/// What the daemon has in memory at most, in KiB: a fraction of the largest message.
const MEMORY_KIB: u64 = 64 * 1024;

fn mail(uidl: &str, text: Vec<u8>) -> Mail {
    Mail {
        uidl: uidl.into(),
        text,
    }
}

/// 100 MiB: a line without an end, and a part of many lines.
fn large() -> Vec<u8> {
    let mut text = b"Subject: large\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n".to_vec();
    text.resize(text.len() + (50 << 20), b'x');
    text.extend(b"\n--b\nContent-Type: application/octet-stream; name=lines.bin\n\n");
    let line = [b'y'; 79];
    for _ in 0..(50 << 20) / 80 {
        text.extend(line);
        text.push(b'\n');
    }
    text.extend(b"--b--\n");
    text
}

/// A thousand parts, each in the one before.
fn deep() -> Vec<u8> {
    let mut text = b"Subject: deep\n".to_vec();
    for n in 0..1000 {
        let kind = ["message/rfc822", "multipart/digest", "multipart/mixed"][n % 3];
        text.extend(format!("Content-Type: {kind}; boundary=b{n}\n\n--b{n}\n").into_bytes());
    }
    text
}

/// Every octet that a line may have, in the header, in names and in the text; names that lead out.
fn wild() -> Vec<u8> {
    let all: Vec<u8> = (1..=255).filter(|b| !b"\r\n".contains(b)).collect();
    let mut text = b"Subject: wild\nFrom: ".to_vec();
    text.extend(&all);
    text.extend(b"\nContent-Type: multipart/mixed; boundary=b\n\n");
    let names: [&[u8]; 6] = [b"../../x", b"/etc/passwd", b"..", b".", b"", &all];
    for name in names {
        text.extend(b"--b\nContent-Type: application/x; name=\"");
        text.extend(name);
        text.extend(b"\"\nContent-Disposition: attachment; filename=\"");
        text.extend(name.iter().filter(|b| **b != b'"'));
        text.extend(b"\"\n\nbody\n");
    }
    text.extend(b"--b--\n");
    text
}

#[test]
fn hostile_mail_is_received_in_bounds() {
    let began = Instant::now();
    let mails = vec![
        mail("large", large()),
        mail("deep", deep()),
        mail("wild", wild()),
        mail("empty", Vec::new()),
        mail("line", vec![b'z'; 1 << 20]),
    ];
    let sent: Vec<_> = mails.iter().map(|mail| mail.text.clone()).collect();
    let Some(lab) = Lab::start(mails, Quirks::default()) else {
        return;
    };
    lab.fetched(sent.len());
    let mount = &lab.mount;
    for entry in fs::read_dir(mount.path("new")).unwrap() {
        let text = fs::read(entry.unwrap().path()).unwrap();
        // POP3 ends every line.
        assert!(
            sent.iter()
                .any(|sent| *sent == text || text.strip_suffix(b"\n") == Some(sent)),
            "{} octets",
            text.len()
        );
    }
    let listed = mount.sh("find parts -type f | wc -l; find parts -name '*..*' -path '*/../*'");
    assert!(listed.trim().parse::<u64>().unwrap() < 200, "{listed}");
    let large = "cd $(grep -l 'Subject: large' parts/*/headers | xargs dirname)";
    let sizes = mount.sh(&format!(
        "{large}; stat -c %s text lines.bin; wc -c < text; wc -c < lines.bin"
    ));
    let sizes: Vec<u64> = sizes
        .lines()
        .map(|size| size.trim().parse().unwrap())
        .collect();
    assert_eq!(sizes[..2], sizes[2..]);
    assert_eq!(sizes[0], 50 << 20);
    let wild = "cd $(grep -l 'Subject: wild' parts/*/headers | xargs dirname)";
    let names = mount.sh(&format!(
        "{wild}; ls -b | grep -c -v -e '^headers$' -e '^reply' -e '^forward$'"
    ));
    assert_eq!(names.trim(), "6");
    mount.sh("cat parts/*/reply parts/*/forward > /dev/null; ls -R parts > /dev/null");
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    assert!(began.elapsed() < Duration::from_secs(60));
    lab.mount.finish();
}
