//! The thread that fetches, its schedule, and what it tells of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::options::FetchOptions;
use super::session::{Memory, Report, synchronise};
use crate::mail::connect::{Connector, Cutter};
use crate::mail::failure::{Class, Failure, Result};
use crate::mail::step::Step;
use crate::mail::store::{Delivered, Store};
use crate::sync::Locked;

/// First wait after a failure; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(15);

/// Longest wait between retries, unless polls are further apart.
const LAST_RETRY: Duration = Duration::from_secs(3600);

/// A refused password is not tried again sooner: servers lock accounts.
const AFTER_REFUSAL: Duration = Duration::from_secs(600);

/// How long `stop` waits for the thread; connecting cannot be cut short.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What the fetcher is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activity {
    /// Waiting for the next time.
    #[default]
    Idle,
    /// Told to wait for the user.
    Paused,
    /// Connecting and logging in.
    Connecting,
    /// Listing and comparing.
    Listing,
    /// Receiving.
    Fetching {
        /// Messages to receive in this session.
        wanted: usize,
        /// Messages received.
        received: usize,
        /// Octets to receive, where the server told.
        octets: u64,
        /// Octets received.
        received_octets: u64,
    },
    /// Deleting on the server and ending the session.
    Ending,
}

/// What `status` shows.
#[derive(Debug, Clone, Default)]
pub struct FetchStatus {
    /// What is happening.
    pub activity: Activity,
    /// When the last session succeeded.
    pub succeeded: Option<SystemTime>,
    /// What it did.
    pub report: Report,
    /// When and why the last session failed, if none succeeded since.
    pub failed: Option<(SystemTime, Failure)>,
    /// When the next is due; `None`: when asked for.
    pub next: Option<SystemTime>,
    /// The server's software, if it says.
    pub implementation: Option<String>,
}

#[derive(Debug)]
enum Order {
    Poll,
    Confirm,
    Pause(bool),
    Stop,
}

/// What both threads see.
#[derive(Debug, Default)]
struct Shared {
    status: Locked<FetchStatus>,
    cutter: Locked<Option<Cutter>>,
    stopping: AtomicBool,
}

/// The fetching thread of one account.
#[derive(Debug)]
pub struct Fetcher {
    orders: Sender<Order>,
    shared: Arc<Shared>,
    ended: Locked<Receiver<()>>,
    /// How the first login went, until somebody asks.
    first: Locked<Option<Receiver<Result<()>>>>,
}

impl Fetcher {
    /// Starts it; the first session begins at once. `on_new_mail` is called, with no lock held,
    /// whenever messages have become safe in `new`.
    ///
    /// # Errors
    /// `Account` for options TLS cannot use, `Local`.
    pub fn start(
        store: Arc<Store>,
        options: FetchOptions,
        on_new_mail: impl Fn(&[Delivered]) + Send + Sync + 'static,
    ) -> Result<Self> {
        let connector = Connector::new(options.endpoint.clone())?;
        let (orders, inbox) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let (told, first) = mpsc::sync_channel(1);
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            store,
            options,
            connector,
            shared: Arc::clone(&shared),
            on_new_mail: Box::new(on_new_mail),
            memory: Memory::default(),
            failures: 0,
            told,
        };
        thread::Builder::new()
            .name("mail-fetch".into())
            .spawn(move || {
                worker.run(&inbox);
                drop(end);
            })
            .map_err(|err| Failure::local("thread", &err))?;
        Ok(Self {
            orders,
            shared,
            ended: Locked::new(ended),
            first: Locked::new(Some(first)),
        })
    }

    /// What it is doing and how it went.
    #[must_use]
    pub fn status(&self) -> FetchStatus {
        self.shared.status.with(|status| status.clone())
    }

    /// Waits until the first session has logged in or failed, `limit` at most, and tells the
    /// failure; once. It is in no log then, if it is known by then.
    ///
    /// # Errors
    /// Why it failed, if that is known by then.
    pub fn first_login(&self, limit: Duration) -> Result<()> {
        let first = self.first.with(Option::take);
        // Without an answer in time, or with a thread that is gone, there is nothing to tell.
        first.map_or(Ok(()), |first| first.recv_timeout(limit).unwrap_or(Ok(())))
    }

    /// Asks for a session now.
    pub fn poll(&self) {
        self.order(Order::Poll);
    }

    /// Agrees to the mass deletion that is held back, and asks for a session now.
    pub fn confirm_deletions(&self) {
        self.order(Order::Confirm);
    }

    /// Stops polling, or goes on.
    pub fn pause(&self, paused: bool) {
        self.order(Order::Pause(paused));
    }

    /// Ends it. A session under way is cut off: what it recorded is safe, and the server deletes
    /// nothing.
    pub fn stop(self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.order(Order::Stop);
        self.shared.cutter.with(|cutter| {
            if let Some(cutter) = cutter {
                cutter.cut();
            }
        });
        // Disconnected is what is waited for.
        let _ = self.ended.with(|ended| ended.recv_timeout(STOP_PATIENCE));
    }

    fn order(&self, order: Order) {
        // The thread takes orders until it is told to stop.
        let _ = self.orders.send(order);
    }
}

type OnNewMail = dyn Fn(&[Delivered]) + Send + Sync;

struct Worker {
    store: Arc<Store>,
    options: FetchOptions,
    connector: Connector,
    shared: Arc<Shared>,
    on_new_mail: Box<OnNewMail>,
    memory: Memory,
    /// Sessions that failed in a row.
    failures: u32,
    /// Takes how the first login went, and nothing after that.
    told: SyncSender<Result<()>>,
}

impl Worker {
    fn run(mut self, inbox: &Receiver<Order>) {
        let mut paused = false;
        let mut due = Some(Instant::now());
        loop {
            self.announce(due, paused);
            let order = match due.filter(|_| !paused) {
                Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Order::Pause(pause)) => {
                    paused = pause;
                    continue;
                }
                Ok(Order::Confirm) => self.memory.confirm_deletions(),
                Ok(Order::Poll) | Err(RecvTimeoutError::Timeout) => {}
            }
            due = self.session().map(|wait| Instant::now() + wait);
            if self.shared.stopping.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn announce(&self, due: Option<Instant>, paused: bool) {
        let next = due
            .filter(|_| !paused)
            .map(|at| SystemTime::now() + at.saturating_duration_since(Instant::now()));
        self.shared.status.with(|status| {
            status.next = next;
            status.activity = if paused {
                Activity::Paused
            } else {
                Activity::Idle
            };
        });
    }

    /// One session, and how long to wait for the next.
    fn session(&mut self) -> Option<Duration> {
        let shared = Arc::clone(&self.shared);
        shared
            .status
            .with(|status| status.activity = Activity::Connecting);
        let (on_new_mail, told) = (&self.on_new_mail, &self.told);
        let outcome = synchronise(
            &self.store,
            &self.options,
            &self.connector,
            &mut self.memory,
            &|cutter| shared.cutter.with(|kept| *kept = Some(cutter)),
            &|step| {
                if shared.stopping.load(Ordering::Relaxed) {
                    return Err(Failure::new(Class::Transient, "stopped"));
                }
                match step {
                    Step::LoggedIn(_) => drop(told.try_send(Ok(()))),
                    Step::Recorded(delivered) => on_new_mail(delivered),
                    _ => {}
                }
                shared.status.with(|status| follow(status, step));
                Ok(())
            },
        );
        shared.cutter.with(Option::take);
        let first = told.try_send(outcome.as_ref().map(drop).map_err(Clone::clone));
        let now = SystemTime::now();
        let wait = match &outcome {
            Ok(report) => {
                self.failures = 0;
                after_success(&self.options, report)
            }
            Err(failure) => {
                self.failures += 1;
                Some(after_failure(&self.options, failure, self.failures))
            }
        };
        if !shared.stopping.load(Ordering::Relaxed) {
            shared.status.with(|status| match outcome {
                Ok(report) => {
                    status.succeeded = Some(now);
                    status.failed = None;
                    status.report = report;
                }
                Err(failure) => {
                    // Else who asked for it tells it.
                    if first.is_err() {
                        log::warn!("fetching mail: {failure}");
                    }
                    status.failed = Some((now, failure));
                }
            });
        }
        wait.map(jittered)
    }
}

fn follow(status: &mut FetchStatus, step: Step<'_>) {
    match step {
        Step::LoggedIn(capabilities) => {
            status
                .implementation
                .clone_from(&capabilities.implementation);
            status.activity = Activity::Listing;
        }
        Step::Listed { wanted, octets, .. } => {
            status.activity = Activity::Fetching {
                wanted,
                received: 0,
                octets,
                received_octets: 0,
            };
        }
        Step::Received(size) => {
            if let Activity::Fetching {
                received,
                received_octets,
                ..
            } = &mut status.activity
            {
                *received += 1;
                *received_octets += size;
            }
        }
        Step::Marked(_) | Step::Quit => status.activity = Activity::Ending,
        Step::Synced
        | Step::Renamed
        | Step::DirectorySynced
        | Step::Recorded(_)
        | Step::Forgotten => {}
    }
}

/// The server's wishes come before ours.
fn after_success(options: &FetchOptions, report: &Report) -> Option<Duration> {
    let least = report.login_delay.unwrap_or_default();
    if report.more {
        return Some(least);
    }
    options.poll.map(|poll| poll.max(least))
}

fn after_failure(options: &FetchOptions, failure: &Failure, failures: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << (failures - 1).min(10));
    let wait = doubled
        .min(LAST_RETRY.max(options.poll.unwrap_or_default()))
        .max(failure.wait().unwrap_or_default());
    match failure.class() {
        Class::Account | Class::Permanent => wait.max(AFTER_REFUSAL),
        Class::Transient | Class::Protocol | Class::Local => wait,
    }
}

/// Up to a tenth later, so that many clients do not come at once, and never sooner.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0];
    // Without randomness there is no jitter.
    let _ = getrandom::fill(&mut random);
    let [part] = random;
    wait + wait.mul_f64(f64::from(part) / 2560.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mail::connect::{Endpoint, Security};
    use crate::secret::Secret;

    fn options() -> FetchOptions {
        let endpoint = Endpoint {
            host: "localhost".into(),
            port: 110,
            security: Security::Off,
            trust: Box::default(),
            proxy: None,
            timeout: Duration::from_secs(1),
            bind: None,
        };
        FetchOptions::new(endpoint, "u", Arc::new(|_| Ok(Secret::new("p"))))
    }

    #[test]
    fn the_server_decides_how_often_it_is_asked() {
        let polite = |delay, more| {
            let report = Report {
                login_delay: Some(Duration::from_secs(delay)),
                more,
                ..Report::default()
            };
            after_success(&options(), &report).unwrap().as_secs()
        };
        assert_eq!(polite(10, false), 300);
        assert_eq!(polite(900, false), 900);
        assert_eq!(polite(10, true), 10);
    }

    #[test]
    fn no_delay_that_a_server_wants_is_beyond_all_clocks() {
        let mut capabilities = crate::mail::pop3::Capabilities::default();
        capabilities.add(b"LOGIN-DELAY 18446744073709551615");
        let report = Report {
            login_delay: capabilities.login_delay,
            ..Report::default()
        };
        let wait = jittered(after_success(&options(), &report).unwrap());
        assert!(Instant::now().checked_add(wait).is_some());
        assert!(wait >= Duration::from_secs(86_400));
    }

    #[test]
    fn failures_are_met_with_patience() {
        let wait = |class, failures| {
            let failure = Failure::new(class, "x");
            after_failure(&options(), &failure, failures).as_secs()
        };
        assert_eq!(wait(Class::Transient, 1), 15);
        assert_eq!(wait(Class::Transient, 3), 60);
        assert_eq!(wait(Class::Transient, 1000), 3600);
        assert_eq!(wait(Class::Account, 1), 600);
        let asked = Failure::new(Class::Transient, "x").after(Duration::from_secs(300));
        assert_eq!(after_failure(&options(), &asked, 1).as_secs(), 300);
    }

    #[test]
    fn jitter_only_adds() {
        let wait = Duration::from_secs(100);
        for _ in 0..100 {
            let jittered = jittered(wait).as_secs_f64();
            assert!((100.0..=110.0).contains(&jittered));
        }
    }
}
