"""What is killed, and what is in between: a server that can be killed and started again, a way to it
that can be cut, a mount by the release build, and a disk that is slow for it."""

import json
import os
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import threading
import time

from lab import SCRIPTS, Server
from targets import is_mounted

DISK_RATE = 30 << 20


class Loopback:
    """The way of scripts/bench, without a network namespace."""

    host = "127.0.0.1"

    @staticmethod
    def within(_, command):
        return [str(part) for part in command]


class Killable(Server):
    """A server whose processes are killed all at once, and that comes back on the same port with the
    same certificate."""

    def __init__(self, root, kind, tls, keys):
        self.keys = keys
        os.environ["FERRYFS_LAB_KEYS"] = str(keys)
        super().__init__(Loopback(), root, kind, tls)
        self.cafile = keys / "cert.pem" if tls else None

    def kill(self):
        subprocess.run(["pkill", "-KILL", "-s", self.pid], check=False)

    def start_again(self):
        self.stop()
        os.environ["FERRYFS_LAB_PORT"] = self.port
        try:
            super().__init__(Loopback(), self.root, self.kind, self.tls)
        finally:
            del os.environ["FERRYFS_LAB_PORT"]
        self.cafile = self.keys / "cert.pem" if self.tls else None


class Relay:
    """A SOCKS5 proxy (RFC 1928), by which the control and the data connections go; cut on request."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.lock, self.pairs, self.away = threading.Lock(), set(), False
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.join, args=(client,), daemon=True).start()

    @staticmethod
    def exactly(sock, count):
        found = b""
        while len(found) < count:
            part = sock.recv(count - len(found))
            if not part:
                raise OSError("the client left")
            found += part
        return found

    def join(self, client):
        try:
            _, methods = self.exactly(client, 2)
            self.exactly(client, methods)
            client.sendall(b"\x05\x00")
            *_, kind = self.exactly(client, 4)
            if kind == 3:
                host = self.exactly(client, self.exactly(client, 1)[0]).decode()
            else:
                host = socket.inet_ntop(*((socket.AF_INET, self.exactly(client, 4)) if kind == 1
                                          else (socket.AF_INET6, self.exactly(client, 16))))
            port, = struct.unpack(">H", self.exactly(client, 2))
            if self.away:
                raise OSError("cut")
            server = socket.create_connection((host, port), timeout=10)
            server.settimeout(None)
            with self.lock:
                self.pairs.add((client, server, port))
            client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01" + struct.pack(">H", port))
        except OSError:
            client.close()
            return
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self.pump, args=(server, client), daemon=True)
        back.start()
        self.pump(client, server)
        back.join()
        with self.lock:
            self.pairs.discard((client, server, port))
        client.close()
        server.close()

    @staticmethod
    def pump(source, sink):
        buffer = memoryview(bytearray(256 << 10))
        try:
            while count := source.recv_into(buffer):
                sink.sendall(buffer[:count])
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (source, sink):
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def cut(self, reset, chosen=lambda port: True):
        """The connections to the ports that are `chosen`, by RST or by FIN. How many."""
        with self.lock:
            pairs = [pair for pair in self.pairs if chosen(pair[2])]
        for *pair, _ in pairs:
            for sock in pair:
                try:
                    if reset:
                        # Told to both ends when the pumps close them.
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        return len(pairs)

    def close(self):
        self.listener.close()
        self.cut(True)


class SlowDisk:
    """A control group whose members write to the disk below `place` so slowly, past the page cache.
    `members` is None where there can be none: without cgroup v1's blkio."""

    def __init__(self, place, rate=DISK_RATE):
        group = pathlib.Path(f"/sys/fs/cgroup/blkio/ferryfs-killed-{os.getpid()}")
        self.group = self.members = None
        device = os.stat(place).st_dev
        try:
            group.mkdir()
            self.group = group
            limit = f"{os.major(device)}:{os.minor(device)} {rate}"
            (group / "blkio.throttle.write_bps_device").write_text(limit)
            self.members = group / "cgroup.procs"
        except OSError:
            self.close()

    def close(self):
        if self.group:
            try:
                self.group.rmdir()
            except OSError:
                pass


class Trouble(Exception):
    """Something took too long, or ended otherwise than it should."""


class Mount:
    """One mountpoint, and the daemons that serve it one after the other."""

    def __init__(self, binary, base, name="mnt", loud="-vv"):
        self.binary, self.base, self.at, self.loud = binary, base, base / name, loud
        self.at.mkdir()
        self.daemon, self.number, self.name = None, 0, name
        self.env = {**os.environ, **{f"XDG_{what}_HOME": str(base / "xdg" / what)
                                     for what in ("STATE", "CACHE", "CONFIG", "RUNTIME")}}

    def start(self, server, directory, options, slow=None):
        password = self.base / "password"
        password.touch(0o600)
        password.write_text(server.password)
        options = [f"password_file={password}", f"state_dir={self.base}/{self.name}-state",
                   f"cache_dir={self.base}/{self.name}-cache", *options,
                   *(["tls=require", f"cafile={server.cafile}"] if server.tls else ["tls=off"])]
        url = f"ftp://{server.user}@{server.way.host}:{server.port}/{directory}"
        self.number += 1
        self.log = self.base / f"{self.name}-log.{self.number}"
        join = None
        if slow and slow.members:
            join = lambda: slow.members.write_text(str(os.getpid()))  # noqa: E731
        with open(self.log, "w") as log:
            self.daemon = subprocess.Popen(
                [self.binary, "-f", self.loud, url, self.at, "-o", ",".join(options)], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=self.env, start_new_session=True, preexec_fn=join)
        limit = time.monotonic() + 60
        # A dead mount may be there, and look the same.
        while " mounted on " not in self.log.read_text(errors="replace"):
            if self.daemon.poll() is not None:
                raise Trouble(f"no mount: the daemon ended with {self.daemon.returncode}")
            if time.monotonic() > limit:
                raise Trouble("no mount within 60 s")
            time.sleep(0.005)
        self.run(["stat", self.at], 60)

    def run(self, command, seconds):
        """A command about the mount, which must succeed within `seconds`."""
        words = " ".join(str(word) for word in command[:3])
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, env=self.env)
        try:
            told = process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            raise Trouble(f"{words}: not done after {seconds} s; {self.threads()}") from None
        if process.returncode:
            raise Trouble(f"{words}: ended with {process.returncode}: {told}")
        return told

    def threads(self):
        """What the daemon's threads wait for."""
        told = []
        for task in pathlib.Path(f"/proc/{self.daemon.pid}/task").glob("*"):
            try:
                name = (task / "comm").read_text().strip()
                told.append(f"{name} {(task / 'wchan').read_text()} {(task / 'syscall').read_text().split()[0]}")
            except (OSError, IndexError):
                pass
        return "the daemon's threads: " + "; ".join(told)

    def ferryfs(self, *words, seconds):
        return self.run([self.binary, *words], seconds)

    def flush(self, seconds=150):
        self.ferryfs("flush", self.at, "--timeout", f"{seconds}s", seconds=seconds + 10)

    def status(self):
        told = json.loads(self.ferryfs("status", self.at, "--json", seconds=30))
        return told[0] if told else {}

    def kill(self):
        self.daemon.kill()
        self.daemon.wait(30)

    def detach(self):
        """What a killed daemon left is taken away."""
        while is_mounted(self.at):
            subprocess.run(["umount", "-l", str(self.at)], check=True)

    def finish(self):
        """Unmounts as a user does, and waits for the daemon's end."""
        self.ferryfs("umount", self.at, "--timeout", "60s", seconds=70)
        try:
            ended = self.daemon.wait(30)
        except subprocess.TimeoutExpired:
            raise Trouble(f"unmounted, and 30 s later the daemon goes on; {self.threads()}") from None
        if ended:
            raise Trouble(f"the daemon ended with {ended}")
        if is_mounted(self.at):
            raise Trouble("unmounted, and mounted")

    def give_up(self):
        if self.daemon and self.daemon.poll() is None:
            self.kill()
        self.detach()

    def left(self):
        """What of the state directory is there behind an unmount."""
        state = self.base / f"{self.name}-state"
        kept = ("journal", "staging", "intents")
        found = [path.relative_to(state) for path in state.rglob("*") if path.is_file()]
        return [str(path) for path in found if any(part in kept for part in path.parts[:2])]

    def slow_writes(self):
        """How often a slow disk was left alone, by the logs."""
        return sum(log.read_text(errors="replace").count("left alone") for log in self.base.glob("*-log.*"))


def seeded(seed, *words):
    return random.Random(f"{seed} {words}")


def make_keys(base):
    """The certificate that all servers of a campaign have."""
    keys = base / "keys"
    keys.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", keys / "key.pem",
         "-out", keys / "cert.pem"], check=True, capture_output=True)
    return keys


def clear(directory):
    for entry in directory.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


__all__ = ["SCRIPTS", "Killable", "Mount", "Relay", "SlowDisk", "Trouble", "clear", "make_keys", "seeded"]
