//! Assembles backend, Vfs, FUSE and the control socket. A stand-in that only connects.

use std::sync::{Arc, mpsc};

use serde_json::json;

use crate::config::{Config, Source};
use crate::control::{Answer, Request, Server};
use crate::daemon::{self, Ready};
use crate::exit::{Exit, Failure, words};
use crate::state;

/// Serves the mount of `config` until it is unmounted.
pub(crate) fn serve(config: &Config, ready: Ready) -> Result<(), Failure> {
    let Source::Ftp(ftp) = &config.source;
    std::net::TcpStream::connect((ftp.host.as_str(), ftp.port))
        .map_err(|err| Failure::new(Exit::Connect, format!("{}: {}", ftp.host, words(&err))))?;
    let (sender, receiver) = mpsc::channel();
    let server = Server::start(
        &state::socket(&config.state_dir),
        Arc::new(move |request| {
            if matches!(request, Request::Umount { .. }) {
                let _ = sender.send(());
            }
            Answer::done(json!({"server": "none"}))
        }),
    )
    .map_err(|err| Failure::system("control socket", &err))?;
    daemon::status(&config.url_shown);
    ready.report();
    let _ = receiver.recv();
    daemon::stopping();
    drop(server);
    Ok(())
}
