//! One thread that sends: what it takes, over which connection, when it rests.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Receipts;
use super::batch::Sent;
use super::options::{MxRoute, Relay, Route, SendOptions};
use super::status::{SendActivity, Shared};
use crate::mail::connect::{Connector, Endpoint, Security};
use crate::mail::envelope;
use crate::mail::failure::{Class, Failure, Result};
use crate::mail::mx::{Exchange, MxError};
use crate::mail::queue::{Id, Job, Queue, State, Told, now};
use crate::mail::smtp::{Credentials, Encryption, Session, Terms};
use crate::vfs::error::Error;

/// Longest pause after trouble that time may cure.
const LONGEST_PAUSE: Duration = Duration::from_secs(900);

/// Longest pause after trouble that only the user can cure.
const LONGEST_ACCOUNT_PAUSE: Duration = Duration::from_secs(4 * 3600);

/// Longest sleep: clocks are set, and machines are suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The second worker takes what has been due so long: the first one is stuck.
const LAG: u64 = 2;

/// Messages waiting for a later time are not given to a server that would hold them shorter.
const HOLD_MARGIN: u64 = 60;

pub(super) struct Worker {
    number: usize,
    pub(super) queue: Arc<Queue>,
    pub(super) options: Arc<SendOptions>,
    pub(super) receipts: Arc<dyn Receipts>,
    pub(super) shared: Arc<Shared>,
    /// To the relay, if there is one.
    connector: Option<Connector>,
    /// To the relay, kept between batches.
    session: Option<(Session, Instant)>,
    /// So many seconds the relay holds messages for us.
    max_hold: u64,
    /// News that could not be told, and when to try again.
    pub(super) untold: HashMap<Id, Instant>,
}

impl Worker {
    pub(super) fn new(
        number: usize,
        queue: Arc<Queue>,
        options: Arc<SendOptions>,
        receipts: Arc<dyn Receipts>,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let connector = match &options.route {
            Route::Relay(relay) => Some(Connector::new(relay.endpoint.clone())?),
            Route::Mx(_) => None,
        };
        Ok(Self {
            number,
            queue,
            options,
            receipts,
            shared,
            connector,
            session: None,
            max_hold: 0,
            untold: HashMap::new(),
        })
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.shared.stopping.is_set()
    }

    pub(super) fn run(mut self) {
        while !self.is_stopping() {
            let seen = self.queue.changes();
            self.receipts.tick();
            self.tell_news();
            let jobs = self.take();
            if jobs.is_empty() {
                self.rest(seen);
                continue;
            }
            let ids: Vec<Id> = jobs.iter().map(|job| job.id.clone()).collect();
            self.deliver(jobs);
            // Whoever waits for a verdict is woken by the release, so it comes last.
            if let Err(err) = self.queue.sync() {
                self.ill(&err);
            }
            self.queue.release(&ids);
            self.shared.does(self.number, SendActivity::Idle);
        }
        self.hang_up();
    }

    /// Whether all mail goes through one server, where we have an account.
    pub(super) fn to_relay(&self) -> bool {
        matches!(self.options.route, Route::Relay(_))
    }

    fn take(&self) -> Vec<Job> {
        if self.shared.paused.is_set() || self.shared.pause_left().is_some() {
            return Vec::new();
        }
        let lag = if self.number == 0 { 0 } else { LAG };
        let due = now().saturating_sub(lag);
        let mut jobs = self.queue.claim(due, self.options.batch.max(1));
        let holds = self.max_hold > 2 * HOLD_MARGIN && !self.shared.no_holds.is_set();
        if jobs.is_empty() && holds && self.number == 0 {
            let until = now().saturating_add(self.max_hold - HOLD_MARGIN);
            jobs = self.queue.claim_for_later(until, self.options.batch);
        }
        jobs
    }

    /// Waits for mail, for its time, for the end of a pause; meanwhile an idle connection ends.
    fn rest(&mut self, seen: u64) {
        let mut limit = LONGEST_SLEEP;
        if let Some(left) = self.shared.pause_left() {
            limit = limit.min(left);
        } else if let Some(due) = self
            .queue
            .next_due()
            .filter(|_| !self.shared.paused.is_set())
        {
            let lag = if self.number == 0 { 0 } else { LAG };
            let left = Duration::from_secs((due + lag).saturating_sub(now()));
            limit = limit.min(left.max(Duration::from_millis(50)));
        }
        if let Some((_, since)) = &self.session {
            let left = self.options.idle.saturating_sub(since.elapsed());
            if left.is_zero() {
                self.hang_up();
            } else {
                limit = limit.min(left);
            }
        }
        self.queue.wait_for_change(seen, limit);
    }

    fn hang_up(&mut self) {
        self.shared.connected(self.number, None);
        if let Some((session, _)) = self.session.take() {
            session.quit();
        }
    }

    fn deliver(&mut self, jobs: Vec<Job>) {
        let options = Arc::clone(&self.options);
        match &options.route {
            Route::Relay(relay) => self.deliver_to_relay(relay, jobs),
            Route::Mx(route) => {
                for (domain, jobs) in by_domain(jobs) {
                    // Where no name server answers, one domain is enough to find out.
                    if self.is_stopping() || self.shared.pause_left().is_some() {
                        return;
                    }
                    self.deliver_to_domain(route, &domain, jobs);
                }
            }
        }
    }

    fn deliver_to_relay(&mut self, relay: &Relay, jobs: Vec<Job>) {
        self.shared.does(self.number, SendActivity::Connecting);
        let mut session = match self.relay_session(relay) {
            Ok(session) => session,
            Err(failure) => return self.trouble(failure),
        };
        self.shared
            .does(self.number, SendActivity::Sending(jobs.len()));
        match self.send_batch(&mut session, jobs) {
            Ok(Sent { broken, trouble }) => {
                match trouble {
                    Some(failure) => self.trouble(failure),
                    None => self.shared.well(),
                }
                if broken
                    || !session.is_usable()
                    || session.carried() >= self.options.per_connection
                {
                    session.quit();
                    self.shared.connected(self.number, None);
                } else {
                    self.session = Some((session, Instant::now()));
                }
            }
            // The session is dropped: what was not ended is not delivered.
            Err(err) => self.ill(&err),
        }
    }

    /// The kept connection if it lives, else a new one.
    fn relay_session(&mut self, relay: &Relay) -> Result<Session> {
        if let Some((mut session, since)) = self.session.take() {
            // Within a second nothing has timed out; after that a round trip is well spent.
            if since.elapsed() < Duration::from_secs(1) || session.is_alive() {
                return Ok(session);
            }
        }
        let Some(connector) = &self.connector else {
            return Err(Failure::new(Class::Local, "no relay"));
        };
        let mut watch = |cutter| self.shared.connected(self.number, Some(cutter));
        let open = |fresh: bool, watch: &mut dyn FnMut(_)| {
            let Some((user, source)) = &relay.login else {
                return Session::open(connector, &self.options.terms, None, watch);
            };
            let secret = source(fresh).map_err(|why| Failure::new(Class::Account, why))?;
            let credentials = Credentials {
                user,
                secret: &secret,
                is_token: relay.is_token,
                mechanism: relay.mechanism,
            };
            Session::open(connector, &self.options.terms, Some(&credentials), watch)
        };
        let session = match open(false, &mut watch) {
            // A token may have expired; a password is not tried twice.
            Err(failure) if relay.is_token && failure.class() == Class::Account => {
                open(true, &mut watch)
            }
            result => result,
        };
        let session = session.map_err(with_remedy)?;
        self.max_hold = session.extensions().max_hold.unwrap_or(0);
        self.receipts.limit(session.extensions().max_size);
        Ok(session)
    }

    fn deliver_to_domain(&self, route: &MxRoute, domain: &str, jobs: Vec<Job>) {
        self.shared.does(self.number, SendActivity::Connecting);
        let found = route.resolver.exchanges(domain);
        let opened = found.map(|exchanges| self.first_session(route, &exchanges));
        let told = match opened {
            Ok(Ok(mut session)) => {
                self.shared
                    .does(self.number, SendActivity::Sending(jobs.len()));
                match self.send_batch(&mut session, jobs) {
                    Ok(_) => session.quit(),
                    Err(err) => self.ill(&err),
                }
                self.shared.connected(self.number, None);
                self.shared.well();
                return;
            }
            // This machine is cut off: no fault of a message, and none is given back for it.
            Err(MxError::NoServer(why)) => {
                let line = format!("{why}; see /etc/resolv.conf, or -o dns=ADDRESS");
                return self.trouble(Failure::new(Class::Transient, line));
            }
            Ok(Err(failure)) => self.tell_all(&jobs, &failure.to_string(), true),
            Err(err) => self.tell_all(&jobs, &err.to_string(), MxError::is_temporary(&err)),
        };
        if let Err(err) = told {
            self.ill(&err);
        }
    }

    /// A session with the first of `exchanges` that answers.
    fn first_session(&self, route: &MxRoute, exchanges: &[Exchange]) -> Result<Session> {
        let mut failed = None;
        for exchange in exchanges {
            // Encrypted if the server can be verified; mail between servers goes in clear text
            // otherwise, and that is what the sender of a letter expects (RFC 7435).
            let mut opened = self.mx_session(route, exchange, route.security);
            let of_tls = |failure: &Failure| failure.class() != Class::Transient;
            if route.security == Security::Upgrade && opened.as_ref().is_err_and(of_tls) {
                opened = self.mx_session(route, exchange, Security::Off);
            }
            match opened {
                Ok(session) => return Ok(session),
                Err(failure) => failed = Some(failure),
            }
        }
        Err(failed.unwrap_or_else(|| Failure::new(Class::Transient, "no mail server")))
    }

    fn mx_session(
        &self,
        route: &MxRoute,
        exchange: &Exchange,
        security: Security,
    ) -> Result<Session> {
        let endpoint = Endpoint {
            host: exchange.host.clone(),
            port: route.port,
            security,
            trust: route.trust.clone(),
            proxy: None,
            timeout: route.timeout,
            bind: route.bind,
        };
        let addresses = exchange.addresses.iter();
        let addresses = addresses.map(|ip| SocketAddr::new(*ip, route.port));
        let connector = Connector::new(endpoint)?.at(addresses.collect());
        let terms = Terms {
            encryption: Encryption::IfOffered,
            ..self.options.terms.clone()
        };
        let mut watch = |cutter| self.shared.connected(self.number, Some(cutter));
        Session::open(&connector, &terms, None, &mut watch)
    }

    /// Nobody could be asked about `jobs`.
    fn tell_all(&self, jobs: &[Job], text: &str, temporary: bool) -> crate::vfs::error::Result<()> {
        for job in jobs {
            let begun = job.entry.queued_at.max(job.envelope.send_at.unwrap_or(0));
            let next = self
                .queue
                .schedule()
                .next(begun, job.entry.attempts + 1, now());
            let due = next.filter(|_| temporary);
            let state = if due.is_some() {
                State::Deferred
            } else {
                State::Failed
            };
            let told = job.recipients.iter().map(|recipient| Told {
                recipient: *recipient,
                state,
                due,
                text: text.to_owned(),
            });
            let told: Vec<_> = told.collect();
            self.shared.note(&told);
            self.queue
                .tell(&job.id, true, told, vec![format!("! {text}")])?;
        }
        Ok(())
    }

    fn trouble(&self, failure: Failure) {
        log::warn!("sending mail: {failure}");
        let (first, longest) = match failure.class() {
            Class::Account | Class::Permanent => {
                (self.options.account_pause, LONGEST_ACCOUNT_PAUSE)
            }
            Class::Transient | Class::Protocol | Class::Local => {
                (self.options.pause, LONGEST_PAUSE)
            }
        };
        self.shared.troubled(failure, first, longest);
    }

    /// The queue cannot be written: nothing is sent that could not be told.
    pub(super) fn ill(&self, err: &Error) {
        self.trouble(Failure::from(err.clone()).context("mail queue"));
    }
}

/// A refused login, with what is to be done about it.
fn with_remedy(failure: Failure) -> Failure {
    if failure.class() != Class::Account || !failure.detail().contains("AUTH ") {
        return failure;
    }
    let line = format!(
        "{}; check user and password: smtp_user=, smtp_password_command=, or token_command= for OAuth",
        failure.detail()
    );
    Failure::new(Class::Account, line)
}

/// The jobs of each domain; a message to several domains is in several.
fn by_domain(jobs: Vec<Job>) -> BTreeMap<String, Vec<Job>> {
    let mut domains: BTreeMap<String, Vec<Job>> = BTreeMap::new();
    for job in jobs {
        let mut split: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for index in &job.recipients {
            if let Some(recipient) = job.envelope.recipients.get(*index) {
                let domain = envelope::domain(&recipient.address);
                split.entry(domain).or_default().push(*index);
            }
        }
        for (domain, recipients) in split {
            let part = Job {
                recipients,
                ..job.clone()
            };
            domains.entry(domain).or_default().push(part);
        }
    }
    domains
}
