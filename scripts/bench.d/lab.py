"""What is measured on: an FTP server of our own, its data in memory, and the way to it."""

import os
import pathlib
import random
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
SCRIPTS = HERE.parent
MIB = 1024 * 1024


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, **options)


class Way:
    """From client to server: the loopback of a network namespace, or two with a delay between them.
    TCP is in all of them what most Linux hosts have: the host's own choices (BBR halves what a
    loopback carries) would be measured otherwise."""

    def __init__(self, rtt, rate, base):
        self.rtt, self.dir = rtt, base / f"way-{rtt}"
        self.dir.mkdir()
        self.name = f"fb{os.getpid()}r{rtt}"
        self.host = "10.99.0.1" if rtt else "127.0.0.1"
        run(HERE / "link", "up", self.name, rtt, rate, self.dir)

    def at_client(self, command):
        return self.within("c" if self.rtt else "s", command)

    def within(self, side, command):
        return ["nsenter", f"--net=/run/netns/{self.name}-{side}", *[str(part) for part in command]]

    def close(self):
        subprocess.run([str(HERE / "link"), "down", self.name, str(self.dir)], check=False)


# So that none hangs up on a program that waits for its turn: a session lasts ten minutes.
SETTINGS = {
    "vsftpd": ["idle_session_timeout=600"],
    "proftpd": ["TimeoutIdle 600", "TimeoutNoTransfer 600"],
    "pure-ftpd": ["--maxidletime=10"],
    "pyftpdlib": ["timeout=600"],
}


class Server:
    """An FTP server with a writable account. `root` is its home, seen from here."""

    def __init__(self, way, root, kind="vsftpd", tls=False):
        self.way, self.root, self.kind, self.tls = way, root, kind, tls
        command = [SCRIPTS / "servers" / kind, "start", root, "user", *(["tls"] if tls else []), *SETTINGS[kind]]
        if tls and kind == "vsftpd":
            command += ["require_ssl_reuse=YES"]
        out = run(*way.within("s", command), capture_output=True, text=True,
                  env={**os.environ, "FERRYFS_LAB_HOST": way.host}).stdout
        facts = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        self.pid, self.port = facts["pid"], facts["port"]
        self.user, self.password = facts["user"], facts["password"]
        self.cafile = facts.get("cafile")

    def stop(self):
        subprocess.run([str(SCRIPTS / "servers" / self.kind), "stop", self.pid], check=False)


def make_data(root, sizes):
    """big: one file of random bytes; small/: 10 directories of small files, 4 KiB on average;
    many/: 10,000 files in 100 directories; deep/: 1,000 directories, 20 deep; flat/: one directory
    of 10,000. All times are whole minutes weeks ago, which LIST shows exactly."""
    rng = random.Random(1)
    pool = os.urandom(MIB)
    with open(root / "big", "wb") as out:
        for number in range(sizes.big):
            out.write(number.to_bytes(8, "big") + pool[8:])
    for number in range(sizes.small):
        directory = root / "small" / f"d{number * 10 // sizes.small:02}"
        directory.mkdir(parents=True, exist_ok=True)
        start = rng.randrange(MIB - 8192)
        (directory / f"f{number:05}").write_bytes(pool[start:start + rng.randrange(1, 8192)])
    for number in range(sizes.dirs):
        directory = root / "many" / f"d{number:03}"
        directory.mkdir(parents=True)
        for file in range(100):
            (directory / f"f{file:03}").write_bytes(b"x" * file)
    for chain in range(sizes.dirs // 2):
        directory = root / "deep" / f"c{chain:02}" / "/".join(f"l{n:02}" for n in range(1, 20))
        directory.mkdir(parents=True)
        (directory / "leaf").write_bytes(b"leaf")
    (root / "flat").mkdir()
    for number in range(sizes.dirs * 100):
        (root / "flat" / f"entry-{number:05}").write_bytes(b"flat")
    (root / "up").mkdir()
    stamp = (int(time.time()) // 60 - 20 * 24 * 60) * 60
    for top, dirs, files in os.walk(root, topdown=False):
        for name in dirs + files:
            os.utime(os.path.join(top, name), (stamp, stamp))
    # The account is known to the server only; its number is in scripts/servers/lab.
    run("chown", "-R", "21121:21121", root)
