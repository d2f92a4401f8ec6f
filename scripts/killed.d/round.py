"""One round: programs write, something is killed, and what is there then is looked at."""

import errno
import json
import os
import pathlib
import subprocess
import sys
import time

from contents import Content, outline
from ledger import DIRECTORY, Ledger
from stage import Mount, Relay, Trouble, clear

HERE = pathlib.Path(__file__).resolve().parent

# What programs may be told once something was killed: nothing that is about their files.
OF_TROUBLE = {errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED,
              errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPIPE, errno.EAGAIN,
              errno.EHOSTDOWN}

# How long names may be there that go by and by.
LEFTOVERS = 75


class Tree:
    """A directory as the writers name it: read where something is asked."""

    def __init__(self, root):
        self.root, self.names = root, {}
        for top, directories, files in os.walk(root):
            for name in directories + files:
                path = os.path.join(top, name)
                self.names[os.path.relpath(path, root)] = name in directories

    def read(self, name):
        if self.names.get(name, True):
            return None
        with open(os.path.join(self.root, name), "rb") as file:
            return file.read()

    def differs(self, name, state):
        """How what is there is not `state`, or None."""
        found = self.names.get(name)
        if state is None:
            return None if found is None else "is there"
        if found is None:
            return "is not there"
        if state == DIRECTORY or found:
            return None if found and state == DIRECTORY else "is a directory, or should be one"
        data = self.read(name)
        if data == state.bytes():
            return None
        return f"{outline(data)}, not {outline(state.bytes())}"


class Round:
    def __init__(self, args, base, server, mode, kill, slow, rng):
        self.base, self.server, self.mode, self.kill, self.slow, self.rng = base, server, mode, kill, slow, rng
        self.mount = Mount(args.ferryfs, base, loud="-d" if args.wire else "-vv")
        self.relay = Relay() if kill == "relay" else None
        self.options = ["timeout=10s", *{"default": [], "writeback": ["writeback"], "sync": ["writeback=sync"]}[mode]]
        if self.relay:
            self.options.append(f"proxy=socks5://127.0.0.1:{self.relay.port}")
        if rng.random() < 0.2:
            self.options.append(f"connections={rng.choice([1, 2, 3])}")
        if rng.random() < 0.2:
            self.options.append(f"cache_size={rng.choice(['0', '1M', '8M'])}")
        # Up to so many MiB above the length from which on a content goes around the page cache.
        self.big = 60 if slow else rng.choice([0, 0, 0, 8])
        self.writers = rng.randrange(1, 3) if self.big else rng.randrange(2, 5)
        self.phases = rng.choice([1, 1, 2, 3])
        self.faults, self.troubled = [], []
        self.sums = dict.fromkeys(["kills", "acknowledged", "doubts", "lost+found", "left alone"], 0)

    def log(self, number):
        return self.base / f"writer.{number}"

    def make_places(self):
        for number in range(self.writers):
            top = self.server.root / f"w{number}"
            top.mkdir()
            os.chown(top, 21121, 21121)
            change = {"n": 0, "op": "made before", "to": {f"w{number}": DIRECTORY}}
            lines = [change, {"n": 0, "done": "made before"}]
            self.log(number).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def start_writers(self, phase, seconds):
        found = []
        for number in range(self.writers):
            order = {"mount": str(self.mount.at), "server": str(self.server.root), "top": f"w{number}",
                     "log": str(self.log(number)), "number": number + 1, "phase": phase, "seconds": seconds,
                     "seed": self.rng.randrange(1 << 60), "direct": self.mode == "default", "big": self.big, "share_of_big": 0.7 if self.slow else 0.4}
            with open(self.base / "writers.err", "a") as err:
                found.append(subprocess.Popen([sys.executable, HERE / "writer.py", json.dumps(order)],
                                              stdin=subprocess.DEVNULL, stderr=err))
        return found

    def await_writers(self, writers):
        """Until one has begun: it may take a while to start."""
        limit = time.monotonic() + 20
        begun = [self.log(number).stat().st_size for number in range(self.writers)]
        while begun == [self.log(number).stat().st_size for number in range(self.writers)]:
            if time.monotonic() > limit or all(writer.poll() is not None for writer in writers):
                break
            time.sleep(0.005)

    def end_writers(self, writers, seconds):
        limit = time.monotonic() + seconds
        hung = []
        for writer in writers:
            try:
                if writer.wait(max(0.1, limit - time.monotonic())):
                    self.faults.append(f"a writer broke: {(self.base / 'writers.err').read_text()[-2000:]}")
            except subprocess.TimeoutExpired:
                hung.append(writer)
        if hung:
            told = [pathlib.Path(f"/proc/{writer.pid}/wchan").read_text() for writer in hung]
            threads = self.mount.threads()
            for writer in hung:
                writer.kill()
            raise Trouble(f"{len(hung)} writers hang ({told}) after {seconds} s; {threads}")

    def play(self):
        """What was wrong."""
        self.make_places()
        watch = subprocess.Popen([sys.executable, HERE / "watch.py", self.server.root],
                                 stdin=subprocess.DEVNULL, stdout=open(self.base / "seen", "w"))
        writers = []
        try:
            for phase in range(1, self.phases + 1):
                self.start()
                writers = self.start_writers(phase, 1 + self.rng.random() * (12 if self.slow else 2))
                self.await_writers(writers)
                time.sleep(self.rng.random() ** 2 * (12 if self.slow else 2.5))
                began = time.monotonic()
                self.do_kill(writers)
                self.troubled.append((began, time.monotonic()))
            if self.mount.daemon.poll() is not None:
                self.start()
            self.look()
        except (Trouble, OSError) as err:
            self.faults.append(str(err))
        finally:
            for process in [*writers, watch]:
                process.kill()
                process.wait()
            self.mount.give_up()
            if self.relay:
                self.relay.close()
        self.sums["left alone"] = self.mount.slow_writes()
        return self.faults

    def start(self):
        if self.mount.daemon and self.mount.daemon.poll() is None:
            return
        if self.rng.random() < 0.5:
            self.mount.detach()
        self.mount.start(self.server, "", self.options, self.slow)
        if self.mount.number > 1 and self.rng.random() < 0.3:
            # While it puts right what the last one left.
            time.sleep(self.rng.random() * 0.5)
            self.mount.kill()
            self.sums["kills"] += 1
            self.mount.start(self.server, "", self.options, self.slow)

    def do_kill(self, writers):
        self.sums["kills"] += 1
        if self.kill == "daemon":
            self.mount.kill()
            self.end_writers(writers, 30)
            return
        if self.kill == "relay":
            self.cut()
        else:
            self.server.kill()
            away = self.rng.random() * 1.5
            if self.kill == "both":
                time.sleep(away * self.rng.random())
                self.mount.kill()
            time.sleep(away)
            self.server.start_again()
        self.end_writers(writers, 150)

    def cut(self):
        port = int(self.server.port)
        ways = [lambda at: True, lambda at: at == port, lambda at: at != port]
        for _ in range(self.rng.randrange(1, 6)):
            self.relay.cut(self.rng.random() < 0.5, self.rng.choice(ways))
            if self.rng.random() < 0.3:
                self.relay.away = True
                time.sleep(self.rng.random())
                self.relay.away = False
            time.sleep(self.rng.random() * 0.3)

    def look(self):
        """At everything, once it should be in order."""
        self.mount.flush()
        ledgers = []
        for number in range(self.writers):
            ledger = Ledger()
            ledger.read(self.log(number))
            ledgers.append(ledger)
            self.sums["acknowledged"] += ledger.acknowledged
            self.sums["doubts"] += len(ledger.doubts)
            self.faults += ledger.wrong
            self.faults += self.untimely(ledger)
        tree = Tree(self.server.root)
        for ledger in ledgers:
            self.faults += ledger.faults(tree)
        self.faults += self.seen_in_part(ledgers)
        known = set().union(*(ledger.known() for ledger in ledgers))
        limit = time.monotonic() + LEFTOVERS
        while left := sorted(set(Tree(self.server.root).names) - known):
            if time.monotonic() > limit or any(".ferryfs-" not in name for name in left):
                self.faults.append(f"nobody made, or left: {left}")
                break
            time.sleep(0.2)
        # The same by the mount, once it has nothing to remember.
        told = subprocess.run(["timeout", "-k", "1", "120", "diff", "-r", self.server.root, self.mount.at],
                              capture_output=True, text=True, check=False)
        if told.returncode:
            self.faults.append(f"the mount shows another tree: {told.stdout[:2000]}{told.stderr[:500]}")
        found = (self.base / "mnt-state").glob("*/lost+found/*.reason")
        self.sums["lost+found"] = len(list(found))
        self.mount.finish()
        if self.mount.left():
            self.faults.append(f"left in the state directory: {self.mount.left()}")

    def untimely(self, ledger):
        """What programs were told that they should not have been."""
        for line in ledger.failed:
            inside = any(began <= line["at"] <= ended for began, ended in self.troubled)
            if not inside or line["errno"] not in OF_TROUBLE:
                yield f"{line['op']}: {line['what']}" + ("" if inside else ", and nothing had been killed")

    def seen_in_part(self, ledgers):
        torn = set()
        for ledger in ledgers:
            for doubt in ledger.doubts:
                if doubt.how == "torn":
                    torn |= doubt.names
        since = {name: at for ledger in ledgers for name, at in ledger.since.items()}
        for line in (self.base / "seen").read_text().splitlines():
            at, name, why = line.split("\t", 2)
            # Where a server takes a cut data connection for the end of the content, a new small file
            # has its name for a moment: that comes with the question for its size.
            momentary = self.kill == "relay" and float(at) < since.get(name, float("inf"))
            if name not in torn and not momentary:
                yield f"seen on the server while all that was going on: {name}: {why}"

    def clear(self):
        clear(self.server.root)


__all__ = ["Content", "Round"]
