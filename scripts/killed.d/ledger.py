"""What writers were told: their logs, and what the server may and must have by them.

A line that begins a change says what it makes of which names; a second one says that it was
acknowledged, or its errno. A change with neither, or that failed, is in doubt: it was made as a whole
or not at all. What is not in doubt must be exactly what was acknowledged last."""

import json

from contents import BLOCK, Content

DIRECTORY = "directory"


def packed(state):
    return state.pieces if isinstance(state, Content) else state


def unpacked(state):
    return Content(state) if isinstance(state, list) else state


class Doubt:
    """Names of which one of some states holds, for all together. `how` is "prefix" where less than
    all of the last one may be appended, "torn" where it may be cut short, "blend" where blocks may be
    of either."""

    def __init__(self, op, states, how=None):
        self.op, self.states, self.how = op, states, how
        self.names = set().union(*states)


class Ledger:
    """What one writer's log says."""

    def __init__(self):
        self.now, self.doubts, self.open, self.failed, self.wrong = {}, [], {}, [], []
        self.acknowledged = 0
        # When a name was first one that something acknowledged had.
        self.since = {}

    def read(self, path):
        with open(path, "rb") as log:
            for line in log.read().split(b"\n")[:-1]:
                self.take(json.loads(line))
        self.end()

    def take(self, line):
        if "wrong" in line:
            self.wrong.append(line["wrong"])
        elif "to" in line:
            after = {name: unpacked(state) for name, state in line["to"].items()}
            before = {name: self.now.get(name) for name in after}
            states = [before, after]
            # A file in doubt may be written anew.
            old = [doubt for doubt in self.doubts if doubt.names & set(after)]
            for doubt in old:
                if doubt.names != set(after) or doubt.how:
                    raise ValueError(f"{line['op']} of {after.keys()} in doubt by {doubt.op}")
                states = [*doubt.states, *states]
                self.doubts.remove(doubt)
            self.open[line["n"]] = Doubt(line["op"], states, line.get("how"))
        elif "errno" in line:
            doubt = self.open.pop(line["n"], None)
            if doubt:
                self.doubts.append(doubt)
            self.failed.append(line)
        elif "done" in line:
            self.acknowledged += 1
            for name, state in self.open.pop(line["n"]).states[-1].items():
                self.set(name, state)
                self.since.setdefault(name, line.get("at", 0))

    def set(self, name, state):
        if state is None:
            self.now.pop(name, None)
        else:
            self.now[name] = state

    def end(self):
        """Nothing more comes: what is open is in doubt."""
        self.doubts += self.open.values()
        self.open = {}

    def doubtful(self):
        return set().union(*(doubt.names for doubt in self.doubts)) if self.doubts else set()

    def faults(self, tree):
        """What is wrong with `tree`, of which the names are as the writers'."""
        doubtful, found = self.doubtful(), []
        for name, state in self.now.items():
            if name not in doubtful:
                why = tree.differs(name, state)
                if why:
                    found.append(f"{name}: {why}")
        for doubt in self.doubts:
            told = []
            for state in doubt.states:
                differing = [(name, tree.differs(name, content)) for name, content in state.items()]
                told.append("; ".join(f"{name}: {why}" for name, why in differing if why))
            if all(told) and not self.is_between(doubt, tree):
                found.append(f"{doubt.op}, not acknowledged: " + ", or ".join(told))
        return found

    def is_between(self, doubt, tree):
        before, after = doubt.states[0], doubt.states[-1]
        for name in doubt.names:
            data, old, new = tree.read(name), before[name], after[name]
            if data is None:
                return False
            if doubt.how == "torn":
                return new.bytes()[:len(data)] == data
            if doubt.how == "prefix":
                return len(data) >= old.size and new.bytes()[:len(data)] == data
            if doubt.how == "blend":
                pair, size = (old.bytes(), new.bytes()), len(data)
                parts = range(0, size, BLOCK)
                return old.size == size and all(
                    data[at:at + BLOCK] in (pair[0][at:at + BLOCK], pair[1][at:at + BLOCK]) for at in parts)
        return False

    def known(self):
        return set(self.now) | self.doubtful()
