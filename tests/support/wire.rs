//! A TCP relay: counts bytes, makes the way longer, cuts it at a chosen byte.
//!
//! Put in front of a control connection by its [`address`](Wire::address), and of the data
//! connections of the scripted server by [`hook`](Wire::hook); both then share one count and one
//! [`Snap`]. Control and data each have a count for each way, too, and a byte in one of these
//! [`Lane`]s can be where one connection suffers a [`Fault`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A relay to one server. It ends, with its connections, when it is dropped.
pub struct Wire {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What happens at the byte where the wire breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snap {
    /// Every connection over the wire is closed; new ones work.
    Close,
    /// Nothing passes any more on any connection, none is closed, until [`Wire::heal`].
    Stall,
}

/// One kind of connection in one direction. `Up` is from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    ControlUp,
    ControlDown,
    DataUp,
    DataDown,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ControlUp,
        Self::ControlDown,
        Self::DataUp,
        Self::DataDown,
    ];
}

/// What happens to the connection, and to no other, that carries a certain byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is closed both ways, as if either end had said so, instead of carrying it.
    Close,
    /// It is reset, both ways.
    Reset,
    /// Nothing passes on it any more, until [`Wire::heal`].
    Stall,
    /// The byte is another one when it arrives: this one, or its complement if it is the same.
    Garble(u8),
}

#[derive(Default)]
struct State {
    up: u64,
    down: u64,
    lanes: BTreeMap<Lane, u64>,
    fault: Option<(Lane, u64, Fault)>,
    /// The connections that [`Fault::Stall`] hit.
    stuck: BTreeSet<usize>,
    connections: usize,
    delay: Duration,
    snap: Option<(u64, Snap)>,
    stalled: bool,
    /// Parcels that have been counted and not yet arrived.
    on_the_way: usize,
    ended: bool,
    sockets: BTreeMap<usize, TcpStream>,
    next_socket: usize,
}

/// Bytes and when they are to arrive.
type Parcel = (Instant, Load);

/// What is on its way over a connection.
enum Load {
    Bytes(Vec<u8>),
    /// Everything over the wire is closed.
    EndOfAll,
    /// This connection is closed, or reset.
    EndOfThis {
        reset: bool,
    },
}

/// One direction of one connection.
#[derive(Clone, Copy)]
struct Way {
    lane: Lane,
    pair: usize,
}

impl Wire {
    /// A relay on loopback to `server`.
    pub fn to(server: SocketAddr) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let address = relay(&state, server, false);
        Self { address, state }
    }

    /// Where to connect instead of to the server.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `Quirks::advertise`: sends the data connections over this wire, too.
    pub fn hook(&self) -> Arc<dyn Fn(SocketAddr) -> u16 + Send + Sync> {
        let state = Arc::clone(&self.state);
        Arc::new(move |listener| relay(&state, listener, true).port())
    }

    /// Bytes that went from client to server.
    pub fn bytes_up(&self) -> u64 {
        self.state.lock().unwrap().up
    }

    /// Bytes that went from server to client.
    pub fn bytes_down(&self) -> u64 {
        self.state.lock().unwrap().down
    }

    /// Bytes that went either way.
    pub fn bytes(&self) -> u64 {
        let state = self.state.lock().unwrap();
        state.up + state.down
    }

    /// Bytes that went over a lane since the start or the last [`heal`](Self::heal).
    pub fn lane_bytes(&self, lane: Lane) -> u64 {
        let state = self.state.lock().unwrap();
        state.lanes.get(&lane).copied().unwrap_or_default()
    }

    /// One fault, once, in place of the byte of this number (from 0) in the count of `lane`.
    pub fn fault_at(&self, lane: Lane, number: u64, fault: Fault) {
        self.state.lock().unwrap().fault = Some((lane, number, fault));
    }

    /// Whether that fault has happened.
    pub fn has_struck(&self) -> bool {
        self.state.lock().unwrap().fault.is_none()
    }

    /// Connections made over it.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// From now on every byte takes so long, one way.
    pub fn delay(&self, one_way: Duration) {
        self.state.lock().unwrap().delay = one_way;
    }

    /// Breaks the wire, once, when `bytes` have gone over it since it was made.
    pub fn snap_at(&self, bytes: u64, how: Snap) {
        self.state.lock().unwrap().snap = Some((bytes, how));
    }

    /// Whether the break has happened.
    pub fn has_snapped(&self) -> bool {
        self.state.lock().unwrap().snap.is_none()
    }

    /// Takes back [`snap_at`](Self::snap_at) and [`fault_at`](Self::fault_at), ends a stall, and
    /// counts each lane from 0.
    pub fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.snap = None;
        state.fault = None;
        state.stalled = false;
        state.stuck.clear();
        state.lanes.clear();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap();
        state.ended = true;
        close_all(&state);
        drop(state);
        drop(TcpStream::connect(self.address));
    }
}

fn close_all(state: &State) {
    for socket in state.sockets.values() {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// Listens on loopback and relays every connection to `server`; only the first if `once`.
fn relay(state: &Arc<Mutex<State>>, server: SocketAddr, once: bool) -> SocketAddr {
    let listener = TcpListener::bind((server.ip(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::clone(state);
    thread::spawn(move || {
        for client in listener.incoming() {
            if state.lock().unwrap().ended {
                return;
            }
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else {
                continue;
            };
            let pair = {
                let mut state = state.lock().unwrap();
                state.connections += 1;
                state.connections
            };
            let lanes = match once {
                true => [Lane::DataUp, Lane::DataDown],
                false => [Lane::ControlUp, Lane::ControlDown],
            };
            let [up, down] = lanes.map(|lane| Way { lane, pair });
            pump(&state, &client, &server, up);
            pump(&state, &server, &client, down);
            if once {
                return;
            }
        }
    });
    address
}

/// Carries bytes one way: a thread reads and counts, another writes when their time has come.
fn pump(state: &Arc<Mutex<State>>, from: &TcpStream, to: &TcpStream, way: Way) {
    let (mut from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let _ = to.set_nodelay(true);
    let (sender, receiver) = channel();
    let (state, writers_state) = (Arc::clone(state), Arc::clone(state));
    let source = from.try_clone().unwrap();
    thread::spawn(move || write_when_due(to, &source, &receiver, &writers_state));
    let key = {
        let mut state = state.lock().unwrap();
        state.next_socket += 1;
        let key = state.next_socket;
        state.sockets.insert(key, from.try_clone().unwrap());
        key
    };
    thread::spawn(move || {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(n) = from.read(&mut chunk) {
            if n == 0 || !carry(&state, &chunk[..n], way, &sender) {
                break;
            }
        }
        state.lock().unwrap().sockets.remove(&key);
    });
}

fn write_when_due(
    mut to: TcpStream,
    from: &TcpStream,
    parcels: &Receiver<Parcel>,
    state: &Mutex<State>,
) {
    for (due, load) in parcels {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let bytes = match load {
            Load::Bytes(bytes) => bytes,
            Load::EndOfAll => return close_when_arrived(state),
            Load::EndOfThis { reset } => {
                for socket in [&to, from] {
                    if reset {
                        // Disconnects: the peer gets a reset, whoever else has the socket.
                        let _ = rustix::net::connect_unspec(socket);
                    }
                    let _ = socket.shutdown(Shutdown::Both);
                }
                return;
            }
        };
        let written = to.write_all(&bytes);
        state.lock().unwrap().on_the_way -= 1;
        if written.is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// What was counted before the break arrives, also on the other connections, unless nobody reads.
fn close_when_arrived(state: &Mutex<State>) {
    let deadline = Instant::now() + Duration::from_millis(200);
    loop {
        let mut now = state.lock().unwrap();
        if now.on_the_way == 0 || Instant::now() > deadline {
            now.stalled = false;
            return close_all(&now);
        }
        drop(now);
        thread::sleep(Duration::from_micros(200));
    }
}

/// Passes `bytes` on as far as the wire is whole; false once it is not.
fn carry(state: &Mutex<State>, bytes: &[u8], way: Way, sender: &Sender<Parcel>) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut now = state.lock().unwrap();
        if now.ended {
            return false;
        }
        if now.stalled || now.stuck.contains(&way.pair) {
            drop(now);
            thread::sleep(Duration::from_millis(2));
            continue;
        }
        let due = Instant::now() + now.delay;
        let room = now
            .snap
            .map_or(u64::MAX, |(at, _)| at.saturating_sub(now.up + now.down));
        let passed = now.lanes.get(&way.lane).copied().unwrap_or_default();
        let whole = match now.fault {
            Some((lane, at, _)) if lane == way.lane => at.saturating_sub(passed),
            _ => u64::MAX,
        };
        let n = rest
            .len()
            .min(usize::try_from(room.min(whole)).unwrap_or(usize::MAX));
        let mut parcel = rest[..n].to_vec();
        rest = &rest[n..];
        let mut end = None;
        if n as u64 == whole && n as u64 != room && !rest.is_empty() {
            match now.fault.take() {
                Some((_, _, Fault::Garble(byte))) => {
                    parcel.push(if rest[0] == byte { !byte } else { byte });
                    rest = &rest[1..];
                }
                Some((_, _, Fault::Stall)) => {
                    now.stuck.insert(way.pair);
                }
                Some((_, _, fault)) => end = Some(fault == Fault::Reset),
                None => {}
            }
        }
        let count = parcel.len() as u64;
        match way.lane {
            Lane::ControlUp | Lane::DataUp => now.up += count,
            Lane::ControlDown | Lane::DataDown => now.down += count,
        }
        *now.lanes.entry(way.lane).or_default() += count;
        if !parcel.is_empty() {
            if sender.send((due, Load::Bytes(parcel))).is_err() {
                return false;
            }
            now.on_the_way += 1;
        }
        if let Some(reset) = end {
            let _ = sender.send((due, Load::EndOfThis { reset }));
            return false;
        }
        if n as u64 == room
            && let Some((_, how)) = now.snap.take()
        {
            match how {
                Snap::Close => {
                    let _ = sender.send((due, Load::EndOfAll));
                    // Nothing else may pass meanwhile.
                    now.stalled = true;
                    return false;
                }
                Snap::Stall => now.stalled = true,
            }
        }
    }
    true
}
