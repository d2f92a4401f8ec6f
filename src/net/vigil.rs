//! Reading in bulk from a server on this machine.
//!
//! It shares the processors with us. Whenever its reader sleeps, the kernel finds one of them idle
//! and moves a process of the server there; one that encrypts in a process beside the one that
//! reads the file (vsftpd) then wakes each of the two across processors, for every 64 KiB: that
//! takes a third of the speed. So the reader stays awake for a moment, giving way to whoever wants
//! to run, and then takes more at once.

use std::net::TcpStream;
use std::time::Duration;

use super::awake::stay_awake;

/// How long a reader stays awake at most.
const LIMIT: Duration = Duration::from_micros(300);

/// What is worth to be taken, in bytes.
const ENOUGH: u64 = 64 << 10;

/// Reads of a new connection that sleep, and those after one that stayed awake for nothing: of a
/// slow server all but a few.
const FIRST_SLEEPS: u32 = 64;
const MORE_SLEEPS: u32 = 16;

/// A reader's habit.
#[derive(Debug)]
pub struct Vigil {
    /// The server is on this machine.
    local: bool,
    /// Reads that are to sleep yet.
    sleeps: u32,
}

impl Vigil {
    /// For who reads from `stream`.
    #[must_use]
    pub fn of(stream: &TcpStream) -> Self {
        Self {
            local: super::is_local(stream),
            sleeps: FIRST_SLEEPS,
        }
    }

    /// To be called before each read in bulk: returns when there is enough to be read, or when it
    /// is better to sleep until there is.
    pub fn keep(&mut self, stream: &TcpStream) {
        if !self.local {
            return;
        }
        if self.sleeps > 0 {
            self.sleeps -= 1;
            return;
        }
        // What is wrong with the socket the read will tell.
        let enough = || !rustix::io::ioctl_fionread(stream).is_ok_and(|there| there < ENOUGH);
        if !stay_awake(LIMIT, enough) {
            self.sleeps = MORE_SLEEPS;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Instant;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (reader, listener.accept().unwrap().0)
    }

    fn waits(vigil: &mut Vigil, stream: &TcpStream) -> bool {
        let began = Instant::now();
        vigil.keep(stream);
        began.elapsed() >= LIMIT
    }

    #[test]
    fn who_waits_for_nothing_sleeps_the_next_times() {
        let (reader, _server) = pair();
        let mut vigil = Vigil::of(&reader);
        let left = |vigil: &Vigil| vigil.sleeps;
        for _ in 0..FIRST_SLEEPS {
            vigil.keep(&reader);
        }
        assert_eq!(left(&vigil), 0);
        assert!(waits(&mut vigil, &reader));
        assert_eq!(left(&vigil), MORE_SLEEPS);
        vigil.keep(&reader);
        assert_eq!(left(&vigil), MORE_SLEEPS - 1);
    }

    #[test]
    fn enough_and_the_end_are_seen() {
        let (mut reader, mut server) = pair();
        let mut vigil = Vigil::of(&reader);
        vigil.sleeps = 0;
        let sent = usize::try_from(ENOUGH).unwrap();
        let sender = thread::spawn(move || server.write_all(&vec![7; sent]));
        for _ in 0..1000 {
            vigil.keep(&reader);
            if vigil.sleeps == 0 {
                break;
            }
            vigil.sleeps = 0;
        }
        assert_eq!(rustix::io::ioctl_fionread(&reader).unwrap(), ENOUGH);
        sender.join().unwrap().unwrap();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), sent);
        // The server has closed: nothing more comes, and the vigil ends.
        vigil.keep(&reader);
        assert_eq!(vigil.sleeps, MORE_SLEEPS);
    }

    #[test]
    fn nobody_stays_awake_for_a_server_elsewhere() {
        let (reader, _server) = pair();
        let mut vigil = Vigil::of(&reader);
        assert!(vigil.local);
        (vigil.local, vigil.sleeps) = (false, 0);
        vigil.keep(&reader);
        assert_eq!(vigil.sleeps, 0);
    }
}
