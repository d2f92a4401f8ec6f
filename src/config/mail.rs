//! What URL and options mean for a mail mount.

use std::sync::Arc;
use std::time::Duration;

use super::settings::{Settings, Smtp, Tls};
use super::url::{Scheme, ServerUrl};
use crate::exit::{Exit, Failure};
use crate::mail::address::Mailbox;
use crate::mail::connect::{Endpoint, Security};
use crate::mail::fetch::{FetchOptions, SecretSource, ServerDelete};
use crate::mail::mx::Resolver;
use crate::mail::options::MailOptions;
use crate::mail::sender::{MxRoute, Relay, Route};
use crate::secret::Secret;
use crate::secret::source::{self, Secrets, Sources};

/// Time between the last close of a file in the outbox and the first attempt. `echo >>` and `sed -i`
/// need it.
const LINGER: Duration = Duration::from_secs(2);

/// Time a name server has that `dns=` names.
const DNS_TIME: Duration = Duration::from_secs(5);

/// The options of a mail mount; its secrets come later, by [`install`].
///
/// # Errors
/// [`Exit::Usage`].
pub(super) fn options(
    url: &ServerUrl,
    security: Security,
    settings: &Settings,
) -> Result<MailOptions, Failure> {
    let usage = |line: &str| Failure::new(Exit::Usage, line);
    if !url.directory.is_empty() {
        return Err(usage(
            "URL: a mailbox has no directory; write pop3s://user@host/",
        ));
    }
    let user = user(url, settings)?;
    let upgraded = |scheme| {
        matches!(
            scheme,
            Scheme::Pop3(Security::Upgrade) | Scheme::Smtp(Security::Upgrade)
        )
    };
    let off = settings.tls == Some(Tls::Off);
    let smtp = settings.smtp.as_ref();
    let in_clear = |smtp: &Smtp| match smtp {
        Smtp::Relay(url) => upgraded(url.scheme),
        Smtp::Mx(_) => true,
    };
    if off && !upgraded(url.scheme) && !smtp.is_some_and(in_clear) {
        return Err(usage(
            "-o tls=off: contradicts the URLs, whose schemes mean TLS; write pop3://",
        ));
    }
    if settings.proxy.is_some() && matches!(smtp, Some(Smtp::Mx(_))) {
        return Err(usage(
            "-o smtp=mx: goes to the servers of each domain itself, and not through proxy=; \
             send through a relay, smtp=smtps://HOST, or leave proxy= out",
        ));
    }
    let endpoint = |url: &ServerUrl, security| Endpoint {
        host: url.host.clone(),
        port: url.port,
        security: match security {
            Security::Upgrade if off => Security::Off,
            security => security,
        },
        trust: Box::new(settings.trust.clone()),
        proxy: settings.proxy.clone(),
        timeout: settings.timeout.unwrap_or(Duration::from_secs(30)),
        bind: settings.bind,
    };
    let mut fetch = FetchOptions::new(endpoint(url, security), user.clone(), none());
    fetch.is_token = settings.token_command.is_some();
    fetch.delete = settings.server_delete.unwrap_or(ServerDelete::Never);
    if let Some(poll) = settings.poll {
        // A bare 0 is the usual way to say never.
        fetch.poll = (!poll.is_zero()).then_some(poll);
    }
    let from = match &settings.from {
        Some(from) => Mailbox::parse(from).ok(),
        None if user.contains('@') => Mailbox::parse(&user).ok(),
        None => Mailbox::parse(&format!("{user}@{}", url.host)).ok(),
    };
    if smtp.is_some() && from.is_none() {
        return Err(usage(
            "-o smtp: who sends is not known; add from=me@example.org",
        ));
    }
    let to_relay = |smtp: &ServerUrl| {
        let security = match smtp.scheme {
            Scheme::Smtp(security) | Scheme::Pop3(security) => security,
            Scheme::Ftp(_) => Security::Upgrade,
        };
        let endpoint = endpoint(smtp, security);
        let named = settings.smtp_user.clone().or_else(|| smtp.user.clone());
        // A relay of one's own in clear text wants no login.
        let clear = endpoint.security == Security::Off;
        Route::Relay(Relay {
            login: named
                .or_else(|| (!clear).then(|| user.clone()))
                .map(|user| (user, none())),
            is_token: settings.token_command.is_some(),
            ..Relay::new(endpoint)
        })
    };
    let submission = smtp.map(|smtp| match smtp {
        Smtp::Relay(url) => to_relay(url),
        Smtp::Mx(port) => Route::Mx(MxRoute {
            resolver: settings.dns.map_or_else(Resolver::system, |server| {
                Resolver::new(vec![server], DNS_TIME)
            }),
            port: *port,
            security: if off {
                Security::Off
            } else {
                Security::Upgrade
            },
            trust: Box::new(settings.trust.clone()),
            timeout: settings.timeout.unwrap_or(Duration::from_secs(30)),
            bind: settings.bind,
        }),
    });
    Ok(MailOptions {
        fetch,
        submission,
        from,
        linger: settings.linger.unwrap_or(LINGER),
    })
}

/// Who logs in.
pub(super) fn user(url: &ServerUrl, settings: &Settings) -> Result<String, Failure> {
    let user = settings.user.clone().or_else(|| url.user.clone());
    user.ok_or_else(|| {
        let line = "URL: whose mail? write pop3s://USER@host/ or -o user=NAME";
        Failure::new(Exit::Usage, line)
    })
}

/// Finds the passwords of both servers.
///
/// # Errors
/// [`Exit::Secret`].
pub(super) fn secrets(url: &ServerUrl, settings: &Settings) -> Result<Secrets, Failure> {
    if settings.token_command.is_some() {
        // Tokens live for an hour: the command is run whenever one is needed.
        return Ok(Secrets {
            password: Secret::new(""),
            account: None,
            submission: None,
            proxy: None,
        });
    }
    let user = user(url, settings)?;
    let mut secrets = Sources {
        user: Some(&user),
        host: &url.host,
        command: settings.password_command.as_deref(),
        file: settings.password_file.as_deref(),
        stdin: settings.password_stdin,
        anonymous: None,
        account: None,
    }
    .find()?;
    let (command, file) = (
        &settings.smtp_password_command,
        &settings.smtp_password_file,
    );
    if command.is_some() || file.is_some() {
        let host = match &settings.smtp {
            Some(Smtp::Relay(url)) => url.host.as_str(),
            Some(Smtp::Mx(_)) | None => "",
        };
        let found = Sources {
            user: Some(settings.smtp_user.as_deref().unwrap_or(&user)),
            host,
            command: command.as_deref(),
            file: file.as_deref(),
            stdin: false,
            anonymous: None,
            account: None,
        }
        .find()?;
        secrets.submission = Some(found.password);
    }
    Ok(secrets)
}

/// Gives the options their secrets.
pub(super) fn install(mail: &mut MailOptions, secrets: &Secrets, token_command: Option<&str>) {
    let inbox = source_of(&secrets.password, token_command);
    let mut relay = match &mut mail.submission {
        Some(Route::Relay(relay)) => Some(relay),
        Some(Route::Mx(_)) | None => None,
    };
    if let Some((_, secret)) = relay.as_mut().and_then(|relay| relay.login.as_mut()) {
        *secret = match &secrets.submission {
            Some(password) => source_of(password, token_command),
            None => Arc::clone(&inbox),
        };
    }
    mail.fetch.secret = inbox;
    let endpoints = relay.map(|relay| &mut relay.endpoint);
    for endpoint in endpoints.into_iter().chain([&mut mail.fetch.endpoint]) {
        if let (Some(proxy), Some(password)) = (&mut endpoint.proxy, &secrets.proxy) {
            proxy.password = password.clone();
        }
    }
}

fn source_of(password: &Secret, token_command: Option<&str>) -> SecretSource {
    match token_command {
        Some(command) => {
            let command = command.to_owned();
            Arc::new(move |_| source::from_command("token_command", &command))
        }
        None => {
            let password = password.clone();
            Arc::new(move |_| Ok(password.clone()))
        }
    }
}

fn none() -> SecretSource {
    Arc::new(|_| Err("no password was found".to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::config::options::{apply, split_list};

    fn mail(url: &str, list: &str) -> Result<MailOptions, String> {
        let url = ServerUrl::parse(url)?;
        let mut settings = Settings::default();
        for (name, value) in split_list(list) {
            apply(&mut settings, &name, value.as_deref())?;
        }
        let Scheme::Pop3(security) = url.scheme else {
            return Err("no mailbox".to_owned());
        };
        options(&url, security, &settings).map_err(|failure| failure.to_string())
    }

    #[test]
    fn tls_is_never_weaker_than_the_schemes_say() {
        let both = mail("pop3://a@h/", "smtp=smtp://h,from=a@x.org").unwrap();
        assert_eq!(both.fetch.endpoint.security, Security::Upgrade);
        let relay = |mail: MailOptions| match mail.submission {
            Some(Route::Relay(relay)) => (relay.endpoint.security, relay.login.map(|l| l.0)),
            other => panic!("{other:?}"),
        };
        assert_eq!(relay(both), (Security::Upgrade, Some("a".to_owned())));
        let clear = mail("pop3s://a@h/", "smtp=smtp://h,from=a@x.org,tls=off").unwrap();
        assert_eq!(clear.fetch.endpoint.security, Security::Implicit);
        assert_eq!(relay(clear), (Security::Off, None));
        let direct = mail("pop3s://a@h/", "smtp=mx:2525,from=a@x.org").unwrap();
        assert!(matches!(direct.submission, Some(Route::Mx(route)) if route.port == 2525));
        assert!(
            mail("pop3s://a@h/", "tls=off")
                .unwrap_err()
                .contains("contradicts")
        );
    }

    #[test]
    fn what_makes_no_mailbox_says_why() {
        for (url, list, words) in [
            ("pop3s://h/", "", "whose mail"),
            ("pop3s://a@h/inbox", "", "no directory"),
            ("pop3s://a@h/", "smtp=ftp://h", "takes mail"),
            ("pop3s://a@h/", "smtp=mx:x", "mx:PORT"),
            ("pop3s://a@h/", "smtp=mx,proxy=socks5://p", "proxy="),
            ("pop3s://a@h/", "dns=here", "192.0.2.53"),
            ("pop3s://a@h/", "from=a@@h", "from"),
            ("pop3s://a@h/", "server_delete=soon", "on-unlink"),
        ] {
            let line = mail(url, list).unwrap_err();
            assert!(line.contains(words), "{url} {list}: {line}");
        }
    }
}
