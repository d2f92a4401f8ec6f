"""A program that writes to a mount, and to a log what it was told. Run by scripts/killed with one
argument, JSON; ends when its time is over or the mount is gone."""

import errno
import json
import mmap
import os
import random
import sys
import threading
import time

sys.dont_write_bytecode = True

from contents import BLOCK, Content, outline  # noqa: E402
from ledger import DIRECTORY, Ledger, packed  # noqa: E402

GONE = {errno.ENOTCONN, errno.ECONNABORTED}


class Writer:
    def __init__(self, order):
        self.__dict__.update(order)
        self.rng = random.Random(self.seed)
        self.ledger = Ledger()
        if os.path.exists(self.log):
            self.ledger.read(self.log)
        self.version = self.number * 10_000_000 + self.phase * 1_000_000
        self.n = self.phase * 1_000_000
        self.out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.until = time.monotonic() + self.seconds
        self.held = []

    def tell(self, line):
        line["at"] = round(time.monotonic(), 4)
        os.write(self.out, json.dumps(line).encode() + b"\n")
        self.ledger.take(line)

    def path(self, name):
        return os.path.join(self.mount, name)

    def change(self, op, after, act, how=None, there=None):
        """`act` makes `after` of what is there; whether it was acknowledged. `there`: then the
        server must have it."""
        self.n += 1
        n = self.n
        line = {"n": n, "op": op, "to": {name: packed(state) for name, state in after.items()}}
        self.tell({**line, **({"how": how} if how else {})})
        try:
            act()
        except OSError as err:
            self.tell({"n": n, "errno": err.errno, "op": op, "what": str(err)})
            self.leave_if_gone(err)
            return False
        self.tell({"n": n, "done": op})
        if self.direct if there is None else there:
            for name, state in after.items():
                self.look_there(op, name, state)
        return True

    def look_there(self, op, name, state):
        """At the server's own disk, behind an acknowledgement."""
        path = os.path.join(self.server, name)
        if state is None or state == DIRECTORY:
            right = os.path.isdir(path) if state else not os.path.lexists(path)
            if not right:
                self.tell({"wrong": f"{op} {name} was acknowledged, and the server has not heard of it"})
            return
        if state.size > 8 << 20 and self.rng.random() < 0.5:
            return
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as err:
            self.tell({"wrong": f"{op} {name} was acknowledged; on the server: {err}"})
            return
        if data != state.bytes():
            told = f"{outline(data)}, not {outline(state.bytes())}"
            self.tell({"wrong": f"{op} {name} was acknowledged; on the server: {told}"})

    def leave_if_gone(self, err):
        if err.errno in GONE:
            os._exit(0)
        # The server is away, perhaps: not asked without a pause.
        time.sleep(0.02)

    # What there is to work on.

    def files(self, kind="ts", free=True):
        doubtful = self.ledger.doubtful() if free else set()
        held = {name for name, *_ in self.held}
        return [name for name, state in self.ledger.now.items() if isinstance(state, Content)
                and os.path.basename(name)[0] in kind and name not in doubtful and name not in held]

    def directories(self):
        doubtful = self.ledger.doubtful()
        return [name for name, state in self.ledger.now.items() if state == DIRECTORY and name not in doubtful]

    def fresh(self, kind):
        self.version += 1
        places = self.directories()
        # Most beside each other.
        place = self.top if self.rng.random() < 0.6 or not places else self.rng.choice(places)
        return f"{place}/{kind}{self.version}"

    def some(self, size=None):
        """A new content, of a size that is often small."""
        self.version += 1
        if size is None:
            kind = self.rng.random()
            if self.big and kind < self.share_of_big:
                size = self.rng.randrange(34 << 20, 34 + self.big << 20) // BLOCK * BLOCK
                size += self.rng.choice([0, 0, 777])
            elif kind < 0.7:
                size = self.rng.randrange(64, 20_000)
            elif kind < 0.93:
                size = self.rng.randrange(20_000, 600_000)
            else:
                size = self.rng.randrange(1 << 20, 6 << 20)
        return Content.new(self.version, size)

    def write_all(self, fd, data):
        step = self.rng.choice([len(data), 1 << 20, 128 << 10, 65_536])
        if len(data) > 8 << 20:
            # As cp and dd have it: what begins within a page is never passed around the page cache.
            pages = mmap.mmap(-1, len(data))
            pages[:] = data
            data, step = memoryview(pages), 1 << 20
        at = 0
        while at < len(data):
            at += os.write(fd, data[at:at + step])
            if self.rng.random() < 0.02:
                time.sleep(self.rng.random() * 0.01)

    def write_file(self, op, name, content, flags, sync=None):
        """Writes all of it; acknowledged by close, and before by fsync where that is asked for."""
        sync = self.rng.random() < 0.3 if sync is None else sync
        try:
            fd = os.open(self.path(name), os.O_WRONLY | flags, 0o644)
        except OSError as err:
            self.tell({"n": -1, "errno": err.errno, "op": f"open for {op}", "what": str(err)})
            self.leave_if_gone(err)
            return False
        try:
            try:
                self.write_all(fd, content.bytes())
            except OSError as err:
                self.tell({"n": -1, "errno": err.errno, "op": f"write for {op}", "what": str(err)})
                self.leave_if_gone(err)
                broken, fd = fd, None
                self.close_torn(op, name, content, broken)
                return False
            if sync:
                synced = self.change(f"fsync, {op}", {name: content}, lambda: os.fsync(fd), there=True)
                if not synced:
                    broken, fd = fd, None
                    self.change(f"close, {op}", {name: content}, lambda: os.close(broken))
                    return False
            whole, fd = fd, None
            return self.change(op, {name: content}, lambda: os.close(whole), there=sync or None)
        finally:
            if fd is not None:
                os.close(fd)

    def close_torn(self, op, name, content, fd):
        """A write failed: what was written before may be stored by the close, as on any filesystem."""
        def close():
            os.close(fd)
            raise OSError(errno.EIO, "an earlier write failed")
        self.change(f"close after a failed write, {op}", {name: content}, close, "torn")

    # What it does.

    def create(self, content=None):
        name = self.fresh("t")
        self.write_file("create", name, content or self.some(), os.O_CREAT | os.O_EXCL)
        return name

    def overwrite(self):
        names = self.files("t")
        # Also one of which nobody knows what it is, since that was killed or failed.
        names += [name for doubt in self.ledger.doubts for name in doubt.names
                  if len(doubt.names) == 1 and not doubt.how and os.path.basename(name)[0] == "t"
                  and all(state[name] is None or isinstance(state[name], Content) for state in doubt.states)]
        if not names:
            return self.create()
        name = self.rng.choice(names)
        now = self.ledger.now.get(name)
        # Of the same size, within the same second: hard to tell apart.
        same = now.size if isinstance(now, Content) and now.size and self.rng.random() < 0.6 else None
        self.write_file("overwrite", name, self.some(same), os.O_CREAT | os.O_TRUNC)
        if self.rng.random() < 0.4 and self.is_known(name):
            again = self.ledger.now[name].size
            self.write_file("overwrite again", name, self.some(again), os.O_CREAT | os.O_TRUNC)

    def is_known(self, name):
        return isinstance(self.ledger.now.get(name), Content) and name not in self.ledger.doubtful()

    def replace(self):
        """As editors do: a new file, renamed over the old one."""
        old, new = self.files("t"), self.create()
        if not old or not self.is_known(new):
            return
        self.rename_file(new, self.rng.choice(old))

    def rename_file(self, old, new):
        state = self.ledger.now[old]
        rename = lambda: os.rename(self.path(old), self.path(new))  # noqa: E731
        self.change("rename", {old: None, new: state}, rename, there=self.direct)

    def rename(self):
        names = self.files()
        if not names:
            return
        old = self.rng.choice(names)
        kind = os.path.basename(old)[0]
        others = [name for name in self.files(kind) if name != old]
        new = self.rng.choice(others) if others and self.rng.random() < 0.5 else self.fresh(kind)
        self.rename_file(old, new)

    def rename_directory(self):
        doubtful, held = self.ledger.doubtful(), [name for name, *_ in self.held]
        usable = [d for d in self.directories() if d != self.top
                  and not any(name.startswith(d + "/") for name in [*doubtful, *held])]
        if not usable:
            return self.make_directory()
        old = self.rng.choice(usable)
        self.version += 1
        new = f"{self.top}/d{self.version}"
        inside = [name for name in self.ledger.now if name == old or name.startswith(old + "/")]
        after = {name: None for name in inside}
        after.update({new + name[len(old):]: self.ledger.now[name] for name in inside})
        self.change("rename of a directory", after, lambda: os.rename(self.path(old), self.path(new)),
                    there=False)

    def make_directory(self):
        self.version += 1
        name = f"{self.top}/d{self.version}"
        # At once, with writeback too.
        if self.change("mkdir", {name: DIRECTORY}, lambda: os.mkdir(self.path(name)), there=True):
            self.version += 1
            self.write_file("create in a new directory", f"{name}/t{self.version}", self.some(),
                            os.O_CREAT | os.O_EXCL)

    def remove_directory(self):
        known = [*self.ledger.now, *self.ledger.doubtful(), *(name for name, *_ in self.held)]
        empty = [d for d in self.directories() if d != self.top
                 and not any(name.startswith(d + "/") for name in known)]
        if empty:
            name = self.rng.choice(empty)
            self.change("rmdir", {name: None}, lambda: os.rmdir(self.path(name)), there=True)

    def unlink(self):
        names = self.files()
        if names:
            name = self.rng.choice(names)
            self.change("unlink", {name: None}, lambda: os.unlink(self.path(name)), there=True)

    def write_removed(self):
        """A file that is removed while it is written leaves nothing."""
        name = self.fresh("t")
        data = self.some().bytes()
        try:
            fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                os.write(fd, data[:len(data) // 2])
                self.change("unlink of an open file", {name: None}, lambda: os.unlink(self.path(name)))
                os.write(fd, data[len(data) // 2:])
            finally:
                os.close(fd)
        except OSError as err:
            self.tell({"n": -1, "errno": err.errno, "op": "writing a removed file", "what": str(err)})
            self.leave_if_gone(err)

    def spliced(self):
        """A file whose content is of several versions, to be written to in its middle."""
        names = self.files("s")
        if names and self.rng.random() < 0.8:
            return self.rng.choice(names)
        name = self.fresh("s")
        self.write_file("create", name, self.some(), os.O_CREAT | os.O_EXCL)
        return name if self.is_known(name) else None

    def append(self):
        name = self.spliced()
        if name:
            old, more = self.ledger.now[name], self.some()
            self.edit("append", name, old.plus(more), os.O_APPEND, lambda fd: os.write(fd, more.bytes()), "prefix")

    def change_middle(self):
        name = self.spliced()
        if name:
            old = self.ledger.now[name]
            start = self.rng.randrange(old.size + 1)
            part = self.some(self.rng.randrange(1, 50_000))
            self.edit("pwrite", name, old.with_range(start, part), 0,
                      lambda fd: os.pwrite(fd, part.bytes(), start))

    def truncate(self):
        name = self.spliced()
        if name:
            old = self.ledger.now[name]
            size = self.rng.choice([0, self.rng.randrange(old.size + 1), old.size + self.rng.randrange(100_000)])
            self.edit("ftruncate", name, old.cut(0, size), 0, lambda fd: os.ftruncate(fd, size))

    def edit(self, op, name, after, flags, act, how=None):
        try:
            fd = os.open(self.path(name), os.O_WRONLY | flags)
        except OSError as err:
            self.tell({"n": -1, "errno": err.errno, "op": f"open for {op}", "what": str(err)})
            return self.leave_if_gone(err)
        sync = self.rng.random() < 0.3

        def end():
            try:
                act(fd)
                if sync:
                    os.fsync(fd)
            finally:
                os.close(fd)
        self.change(f"{op}{', fsync' if sync else ''}", {name: after}, end, how, there=sync or None)

    def together(self):
        """Several programs write to one file, each its part."""
        name = self.fresh("s")
        blocks = self.rng.randrange(8, 300)
        old = self.some(blocks * BLOCK)
        if not self.write_file("create", name, old, os.O_CREAT | os.O_EXCL):
            return
        parts, after = self.rng.randrange(2, 5), old
        cuts = [blocks * part // parts * BLOCK for part in range(parts + 1)]
        work = []
        for start, end in zip(cuts, cuts[1:]):
            part = self.some(end - start)
            after = after.with_range(start, part)
            work.append((start, part.bytes(), self.rng.random() < 0.3))
        failed = []

        def write(start, data, sync):
            try:
                fd = os.open(self.path(name), os.O_WRONLY)
                try:
                    for at in range(0, len(data), 8 * BLOCK):
                        os.pwrite(fd, data[at:at + 8 * BLOCK], start + at)
                    if sync:
                        os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as err:
                failed.append(err)

        def all_of_them():
            threads = [threading.Thread(target=write, args=part) for part in work]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failed:
                raise failed[0]
        self.change(f"{parts} writers", {name: after}, all_of_them, "blend")

    def hold(self):
        """A file stays open, its new content unacknowledged, for a while."""
        if self.held and self.rng.random() < 0.6:
            name, fd, content, op = self.held.pop(0)
            self.change(op, {name: content}, lambda: os.close(fd))
            return
        names = self.files("t")
        old = self.rng.choice(names) if names and self.rng.random() < 0.6 else None
        name, content = old or self.fresh("t"), self.some()
        try:
            fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        except OSError as err:
            self.tell({"n": -1, "errno": err.errno, "op": "open to hold", "what": str(err)})
            return self.leave_if_gone(err)
        try:
            self.write_all(fd, content.bytes())
            self.held.append((name, fd, content, "late close"))
        except OSError as err:
            self.tell({"n": -1, "errno": err.errno, "op": "write to hold", "what": str(err)})
            self.leave_if_gone(err)
            self.close_torn("hold", name, content, fd)

    def read(self):
        names = self.files()
        if not names:
            return
        name = self.rng.choice(names)
        state = self.ledger.now[name]
        try:
            with open(self.path(name), "rb") as file:
                data = file.read()
        except OSError as err:
            self.tell({"n": -1, "errno": err.errno, "op": "read", "what": str(err)})
            return self.leave_if_gone(err)
        if data != state.bytes():
            self.tell({"wrong": f"{name}: reads as {outline(data)}, not {outline(state.bytes())}"})

    def list(self):
        place = self.rng.choice(self.directories())
        doubtful = self.ledger.doubtful() | {name for name, *_ in self.held}
        below = lambda names: {name for name in names if os.path.dirname(name) == place}  # noqa: E731
        try:
            told = {f"{place}/{name}" for name in os.listdir(self.path(place))}
        except OSError as err:
            self.tell({"n": -1, "errno": err.errno, "op": "list", "what": str(err)})
            return self.leave_if_gone(err)
        expected = below(self.ledger.now) - doubtful
        if told - doubtful != expected:
            odd = (told - doubtful) ^ expected
            self.tell({"wrong": f"{place}: lists {sorted(told)}, which differs by {sorted(odd)}"})

    def run(self):
        works = {self.create: 20, self.overwrite: 22, self.replace: 12, self.rename: 10, self.append: 8,
                 self.change_middle: 6, self.truncate: 4, self.together: 4, self.make_directory: 6,
                 self.rename_directory: 4, self.remove_directory: 3, self.unlink: 8, self.write_removed: 3,
                 self.hold: 8, self.read: 10, self.list: 4}
        while time.monotonic() < self.until:
            work, = self.rng.choices([*works], [*works.values()])
            work()
        while self.held:
            name, fd, content, op = self.held.pop(0)
            self.change(op, {name: content}, lambda: os.close(fd))


if __name__ == "__main__":
    Writer(json.loads(sys.argv[1])).run()
