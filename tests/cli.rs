//! The command from outside: exit codes, one line for each error, and no secret anywhere.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ferryfs::{Exit, OPTIONS};

/// What no test may ever see printed.
const SECRET: &str = "hunter2";

/// A home of its own, so that no test sees the user's files.
struct Home {
    temp: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("mnt")).unwrap();
        Self { temp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn config(&self, text: &str) {
        self.write("config/ferryfs/config.toml", 0o644, text);
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferryfs"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.temp.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .current_dir(self.temp.path())
            .stdin(Stdio::null());
        command
    }

    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command().args(args))
    }

    /// `ferryfs URL mnt -o OPTIONS`.
    fn mount(&self, url: &str, options: &str) -> Run {
        self.run([url, "mnt", "-o", options])
    }
}

/// What came of a command.
struct Run {
    output: Output,
    shown: String,
}

impl Run {
    fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self::from(output, format!("{command:?}"))
    }

    fn from(output: Output, command: String) -> Self {
        let run = Self {
            shown: command,
            output,
        };
        for text in [run.stdout(), run.stderr()] {
            assert!(
                !text.contains(SECRET),
                "{}: the secret is in {text}",
                run.shown
            );
        }
        run
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn succeeds(&self) -> String {
        assert!(
            self.output.status.success(),
            "{}: {}",
            self.shown,
            self.stderr()
        );
        assert_eq!(self.stderr(), "", "{}", self.shown);
        self.stdout()
    }

    /// Exactly one line on standard error, which has `word` in it, and this exit code.
    #[track_caller]
    fn fails(&self, exit: Exit, word: &str) {
        let (stderr, shown) = (self.stderr(), &self.shown);
        assert_eq!(
            self.output.status.code(),
            Some(exit.code().into()),
            "{shown}: {stderr}"
        );
        assert!(stderr.starts_with("ferryfs: "), "{shown}: {stderr}");
        assert!(
            stderr.ends_with('\n') && stderr.matches('\n').count() == 1,
            "{shown}: {stderr}"
        );
        assert!(stderr.contains(word), "{shown}: {word} is not in {stderr}");
        assert_eq!(self.stdout(), "", "{shown}");
    }
}

/// A loopback port where nothing listens.
fn refused_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn words_that_mean_nothing_are_a_usage_error() {
    let home = Home::new();
    for (args, word) in [
        (&[][..], "nothing to mount"),
        (&["ftp://h/"], "no mountpoint"),
        (&["ftp://h/", "mnt", "extra"], "extra"),
        (&["ftp://h/", "mnt", "--fast"], "--fast"),
        (&["ftp://h/", "mnt", "-o"], "-o"),
        (&["mount"], "nothing to mount"),
        (&["umount"], "<DIR>"),
        (&["umount", "mnt", "--timeout", "soon"], "timeout"),
        (&["status", "--jsno"], "--json"),
        (&["completions", "tcsh"], "tcsh"),
        (&["nowhere", "mnt"], "[mount.nowhere]"),
        (&["umnt", "mnt"], "did you mean ferryfs umount?"),
        (&["statsu"], "did you mean ferryfs status?"),
        (
            &["ftp.example.org", "mnt"],
            "did you mean ftp://ftp.example.org/?",
        ),
        (&["/mnt", "mnt"], "neither a URL nor a name"),
        (&["anna@host:/dir", "mnt"], "neither a URL nor a name"),
        (&["__serve"], "not for people"),
    ] {
        home.run(args).fails(Exit::Usage, word);
    }
}

#[test]
fn a_file_of_certificates_that_is_none_is_a_usage_error() {
    let home = Home::new();
    home.write("empty.pem", 0o644, "");
    home.write("password", 0o600, "secret");
    let port = refused_port();
    for url in [
        format!("ftps://u@127.0.0.1:{port}/"),
        format!("pop3s://u@127.0.0.1:{port}/"),
    ] {
        for (option, word) in [
            ("cafile=none.pem", "none.pem: No such file or directory"),
            ("cafile=empty.pem", "no certificate in it"),
            ("cert=none.pem", "none.pem: No such file or directory"),
        ] {
            let options = format!("password_file=password,{option}");
            let run = home.run([&*url, "mnt", "-o", &options]);
            run.fails(Exit::Usage, word);
        }
    }
}

#[test]
fn a_malformed_url_says_what_is_wrong_with_it() {
    let home = Home::new();
    for (url, word) in [
        ("ftp://", "no host"),
        ("ftp:///pub", "no host"),
        ("ftp://h:99999/", "port"),
        ("ftp://h:port/", "port"),
        ("ftp://h/?q", "%3F"),
        ("ftp://h/#f", "%23"),
        ("ftp://h/%0d%0aDELE%20x", "line end"),
        ("ftp://[::1", "bracket"),
        ("ftp://h/a/../../etc", ".."),
        ("sftp://h/", "sshfs"),
        ("gopher://h/", "scheme"),
    ] {
        home.run([url, "mnt"]).fails(Exit::Usage, word);
    }
}

#[test]
fn a_secret_on_the_command_line_is_refused_and_not_repeated() {
    let home = Home::new();
    for url in [
        "ftp://anna:hunter2@host/",
        "ftp://anna:p/hunter2@host/",
        "ftps://anna:hunter2@host:990/x",
        "ftp://:hunter2@host",
    ] {
        home.run([url, "mnt"]).fails(Exit::Usage, "password_file");
        home.run(["mount", url, "mnt"])
            .fails(Exit::Usage, "password_file");
    }
    home.mount("ftp://anna@h/", "password=hunter2")
        .fails(Exit::Usage, "password_file");
    home.mount("ftp://anna@h/", "account=hunter2")
        .fails(Exit::Usage, "account_file");
    home.mount("ftp://anna@h/", "passwrd=hunter2")
        .fails(Exit::Usage, "no such option");
    home.mount("ftp://anna@h/", "a b:hunter2")
        .fails(Exit::Usage, "not a name");
    // In a wrong place, it is still a URL.
    home.run(["mnt", "ftp://a:hunter2@h/"])
        .fails(Exit::Usage, "comes first");
    home.mount("ftp://h/", "user=anna:hunter2")
        .fails(Exit::Usage, "password_file");
    home.run(["ftp://h/", "mnt", "ftp://a:hunter2@h/"])
        .fails(Exit::Usage, "not expected");
    home.run(["status", "mnt", "ftp://a:hunter2@h/"])
        .fails(Exit::Usage, "not expected");
    home.run(["anna:hunter2@host", "mnt"])
        .fails(Exit::Usage, "neither");
    home.run(["completions", "ftp://a:hunter2@h/"])
        .fails(Exit::Usage, "SHELL");
}

#[test]
fn options_are_checked_and_named() {
    let home = Home::new();
    for (options, word) in [
        ("tsl=off", "did you mean tls="),
        ("writebakc", "did you mean writeback[=sync]"),
        ("tls=maybe", "auto, require, off"),
        ("tls", "wants a value"),
        ("ro=yes", "takes no value"),
        ("timeout=0", "between 1s and 1h"),
        ("timeout=soon", "duration"),
        ("uid=root", "not a number"),
        ("umask=9", "octal"),
        ("charset=klingon", "charset"),
        ("connections=0", "1 to 64"),
        ("active_ports=9-1", "range of ports"),
        ("bind=example.org", "IP address"),
        ("bind=::1,ipv4", "family"),
        ("listing=dir", "mlsd"),
        ("time_offset=tomorrow", "UTC"),
        ("allow_other,allow_root", "only one"),
        ("state_dir=mnt/state", "inside the mountpoint"),
        ("cafile=", "empty"),
    ] {
        home.mount("ftp://127.0.0.1/", options)
            .fails(Exit::Usage, word);
    }
    home.mount("ftps://127.0.0.1/", "tls=off")
        .fails(Exit::Usage, "contradicts");
}

#[test]
fn the_mountpoint_is_an_empty_directory() {
    let home = Home::new();
    let url = "ftp://127.0.0.1/";
    home.run([url, "missing"])
        .fails(Exit::Mountpoint, "mkdir missing");
    home.write("file", 0o644, "");
    home.run([url, "file"])
        .fails(Exit::Mountpoint, "not a directory");
    home.write("full/file", 0o644, "");
    home.run([url, "full"]).fails(Exit::Mountpoint, "nonempty");
    symlink("nowhere", home.path("dangling")).unwrap();
    home.run([url, "dangling"])
        .fails(Exit::Mountpoint, "no such directory");
    for command in ["umount", "flush", "status"] {
        home.run([command, "mnt"])
            .fails(Exit::Mountpoint, "no ferryfs is mounted here");
        home.run([command, "missing"])
            .fails(Exit::Mountpoint, "missing");
    }
}

#[test]
fn a_named_mount_comes_from_the_configuration_file() {
    let home = Home::new();
    home.run(["work", "mnt"]).fails(Exit::Usage, "config.toml");
    let port = refused_port();
    home.config(&format!(
        "[mount.work]\nurl = \"ftp://127.0.0.1:{port}/\"\ndir = \"{}\"\ntls = \"off\"\n",
        home.mountpoint().display()
    ));
    home.run(["work"]).fails(Exit::Connect, "127.0.0.1");
    home.run(["other", "mnt"])
        .fails(Exit::Usage, "[mount.other]");
    // The other commands know the name, too.
    let dir = home.mountpoint().display().to_string();
    for command in ["umount", "status", "flush"] {
        home.run([command, "work"]).fails(Exit::Mountpoint, &dir);
    }
    home.run(["wrok"])
        .fails(Exit::Usage, "did you mean ferryfs work?");
    // The command line goes over the file.
    home.run(["work", "missing"])
        .fails(Exit::Mountpoint, "missing");
    home.run(["work", "-o", "timeout=x"])
        .fails(Exit::Usage, "-o timeout");

    for (text, place, word) in [
        (
            "[mount.work]\nurl = 'ftp://h/'\ntimeuot = 3\n",
            ":3:",
            "timeout",
        ),
        (
            "[mount.work]\nurl = 'ftp://h/'\npassword = 'hunter2'\n",
            ":3:",
            "password_file",
        ),
        (
            "[mount.work]\nurl = 'ftp://a:hunter2@h/'\n",
            ":2:",
            "password_file",
        ),
        ("\n[mount.work]\nro = true\n", ":2:", "no url"),
        ("[mount.work\n", ":1:", "config.toml"),
        ("[mount.umount]\nurl = 'ftp://h/'\n", ":1:", "name"),
    ] {
        home.config(text);
        let run = home.run(["work", "mnt"]);
        run.fails(Exit::Usage, word);
        run.fails(Exit::Usage, place);
    }
    home.write("config/ferryfs/config.toml", 0o666, "");
    home.run(["work", "mnt"]).fails(Exit::Usage, "chmod o-w");
}

#[test]
fn a_password_source_that_fails_says_so() {
    let home = Home::new();
    let url = "ftp://anna@127.0.0.1/";
    home.run([url, "mnt"])
        .fails(Exit::Secret, "password_command=");
    home.mount(url, "password_stdin")
        .fails(Exit::Secret, "standard input");
    home.mount(url, "password_file=none")
        .fails(Exit::Secret, "none");
    home.mount("ftp://127.0.0.1/", "password_command=true")
        .fails(Exit::Secret, "no user");
    home.write("open", 0o640, SECRET);
    home.mount(url, "password_file=open")
        .fails(Exit::Secret, "chmod 600");
    home.write("empty", 0o600, "\nhunter2\n");
    home.mount(url, "password_file=empty")
        .fails(Exit::Secret, "empty");
    home.mount(url, "password_file=/dev/null")
        .fails(Exit::Secret, "regular file");
    home.mount(url, "account_file=none,password_file=open")
        .fails(Exit::Secret, "none");
    home.mount(url, "password_command=exit 3")
        .fails(Exit::Secret, "exit status: 3");
    home.mount(url, "password_command=true")
        .fails(Exit::Secret, "no password");
    home.write(
        ".netrc",
        0o644,
        "machine 127.0.0.1 login anna password hunter2\n",
    );
    home.run([url, "mnt"]).fails(Exit::Secret, "chmod 600");
}

#[test]
fn every_source_gives_a_password_and_none_shows_it() {
    let home = Home::new();
    let url = format!("ftp://anna@127.0.0.1:{}/", refused_port());
    // Whoever comes as far as the refused connection has a password.
    let arrives = |run: Run| run.fails(Exit::Connect, "127.0.0.1");
    home.write("closed", 0o600, "hunter2\n");
    arrives(home.mount(&url, "password_file=closed"));
    arrives(home.mount(&url, "password_command=echo hunter2"));
    arrives(home.mount(&url, r"password_command=printf '%s\,%s' hunter2 x"));

    let mut child = home
        .command()
        .args([&url, "mnt", "-o", "password_stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hunter2\n").unwrap();
    arrives(Run::from(
        child.wait_with_output().unwrap(),
        "password_stdin".to_owned(),
    ));

    let credentials = home.path("credentials");
    home.write("credentials/ferryfs.password.127.0.0.1", 0o440, "hunter2");
    let mut command = home.command();
    arrives(Run::of(
        command
            .args([&url, "mnt"])
            .env("CREDENTIALS_DIRECTORY", credentials),
    ));

    home.write(
        ".netrc",
        0o600,
        "machine 127.0.0.1 login anna password \"hunter2\"\n",
    );
    arrives(home.run([&url, "mnt"]));
    let anonymous = url.replace("anna@", "");
    fs::remove_file(home.path(".netrc")).unwrap();
    arrives(home.run([&anonymous, "mnt"]));
    arrives(home.run(["-f", &anonymous, "mnt"]));
}

#[test]
fn a_server_that_is_not_there_has_its_exit_code() {
    let home = Home::new();
    let url = format!("ftp://127.0.0.1:{}/", refused_port());
    home.run([&url, "mnt"]).fails(Exit::Connect, "127.0.0.1");
    home.run(["mount", "-f", &url, "mnt"])
        .fails(Exit::Connect, "127.0.0.1");
    home.run(["ftp://no.such.host.invalid/", "mnt"])
        .fails(Exit::Connect, "no.such.host.invalid");
    // Nothing is left behind.
    let left = fs::read_dir(home.path("state/ferryfs")).unwrap().count();
    assert_eq!(left, 0);
    assert_eq!(home.run(["status"]).succeeds(), "nothing is mounted\n");
    assert_eq!(home.run(["status", "--json"]).succeeds(), "[]\n");
}

#[test]
fn called_by_mount_it_speaks_its_language() {
    let home = Home::new();
    let helper = |name: &str, args: &[&str]| {
        let mut command = home.command();
        Run::of(command.arg0(format!("/sbin/{name}")).args(args))
    };
    let url = format!("ftp://127.0.0.1:{}/", refused_port());
    let source = format!("ferryfs#{url}");
    let fstab = "rw,noexec,nosuid,nodev,noauto,user,_netdev,nofail,x-systemd.automount,\
                 comment=by hand,uid=1000";
    helper("mount.ferryfs", &[&url, "mnt", "-o", fstab]).fails(Exit::Connect, "127.0.0.1");
    helper(
        "mount.fuse.ferryfs",
        &[&source, "mnt", "-sn", "-v", "-o", "rw,dev,suid"],
    )
    .fails(Exit::Connect, "127.0.0.1");
    // Fake: everything is checked, nothing is done.
    helper("mount.ferryfs", &[&url, "mnt", "-f", "-o", "rw"]).succeeds();
    helper("mount.ferryfs", &[&url, "mnt", "-f", "-o", "tsl=off"]).fails(Exit::Usage, "tls");
    helper("mount.ferryfs", &["ftp://a:hunter2@h/", "mnt"]).fails(Exit::Usage, "password");
    helper("umount.fuse.ferryfs", &["mnt", "-n"]).fails(Exit::Mountpoint, "no ferryfs");
}

#[test]
fn help_version_and_completions_are_printed() {
    let home = Home::new();
    let help = home.run(["--help"]).succeeds();
    assert!(help.lines().count() <= 48 && help.lines().all(|line| line.len() <= 80));
    assert_eq!(help, home.run(["mount", "--help"]).succeeds());
    let version = format!("ferryfs {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(home.run(["--version"]).succeeds(), version);
    for shell in ["bash", "zsh", "fish"] {
        let script = home.run(["completions", shell]).succeeds();
        assert!(script.contains("umount"), "{shell}");
    }
}

#[test]
fn the_readme_shows_the_help() {
    let help = Home::new().run(["--help"]).succeeds();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    assert!(readme.contains(help.trim_end()), "run scripts/readme-help");
}

#[test]
fn every_option_is_in_the_help_and_in_the_manual() {
    let help = Home::new().run(["--help"]).succeeds();
    let words: Vec<&str> = help.split([' ', '\n', '=', ',', '[']).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = fs::read_to_string(root.join("man/ferryfs.1")).unwrap();
    for spec in OPTIONS {
        assert!(words.contains(&spec.name), "{} is not in --help", spec.name);
        let item = match spec.value {
            Some(_) if spec.bare => format!(".It Cm {} Ns Op = Ns ", spec.name),
            Some(_) => format!(".It Cm {} Ns = Ns Ar ", spec.name),
            None => format!(".It Cm {}\n", spec.name),
        };
        assert!(
            manual.contains(&item),
            "{} is not in man/ferryfs.1",
            spec.syntax()
        );
    }
    let section = manual.split(".Sh OPTIONS").nth(1).unwrap();
    let section = section.split(".Sh ").next().unwrap();
    for item in section
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "))
    {
        let name = item.split(' ').next().unwrap_or_default();
        let known = OPTIONS.iter().any(|spec| spec.name == name);
        assert!(known, "man/ferryfs.1 has {name}, which is no option");
    }
}

#[test]
fn every_exit_code_is_in_the_manual() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = fs::read_to_string(root.join("man/ferryfs.1")).unwrap();
    let section = manual.split(".Sh EXIT STATUS").nth(1).unwrap();
    let section = section.split(".Sh ").next().unwrap();
    for exit in Exit::ALL {
        assert!(
            section.contains(&format!(".It {}\n", exit.code())),
            "{exit:?}"
        );
    }
}
