"""What files are filled with: each 4 KiB block says of which version it is and how long that is, so
that a look at a file tells whether it is whole, and whether two versions are mixed in it."""

import random

BLOCK = 4096
HEAD = 40
POOL = random.Random(7).randbytes(1 << 20)


def span(version, total, start, length):
    """Bytes from `start` on of `version`, which is `total` bytes long."""
    first, end = start // BLOCK, start + length
    blocks = []
    for block in range(first, -(-end // BLOCK)):
        head = b"<%09d %07d %012d %06d>\n" % (version, block, total, (version * 31 + block) % 999983)
        at = (version * 7919 + block * 4099) % (len(POOL) - BLOCK)
        blocks.append(head + POOL[at:at + BLOCK - len(head)])
    skipped = start - first * BLOCK
    return b"".join(blocks)[skipped:skipped + length]


class Content:
    """A file's content: pieces of versions, one behind the other. Never changed."""

    def __init__(self, pieces=()):
        self.pieces = [tuple(piece) for piece in pieces if piece[3]]
        self.size = sum(piece[3] for piece in self.pieces)

    @classmethod
    def new(cls, version, size):
        return cls([(version, size, 0, size)])

    def cut(self, start, end):
        """The part from `start` to `end`; zeros behind the end."""
        found, at = [], 0
        for version, total, offset, length in self.pieces:
            low, high = max(start, at), min(end, at + length)
            if low < high:
                found.append((version, total, offset + low - at, high - low))
            at += length
        if end > max(at, start):
            found.append((0, 0, 0, end - max(at, start)))
        return Content(found)

    def plus(self, other):
        return Content([*self.pieces, *other.pieces])

    def with_range(self, start, other):
        """Overwritten from `start` on."""
        end = start + other.size
        before = self.cut(0, start).plus(other)
        return before.plus(self.cut(end, self.size)) if end < self.size else before

    def bytes(self):
        return b"".join(span(*piece) if piece[0] else bytes(piece[3]) for piece in self.pieces)

    def __eq__(self, other):
        return isinstance(other, Content) and self.bytes() == other.bytes()


def whole(data):
    """What is wrong with `data`, which should be one version as it was written at once; or None."""
    try:
        version, _, total, _ = data[1:HEAD - 2].split()
        version, total = int(version), int(total)
    except ValueError:
        return f"begins with {data[:HEAD]!r}"
    if total != len(data):
        return f"{len(data)} of {total} bytes of version {version}"
    if data != span(version, total, 0, total):
        return f"not version {version} throughout: {outline(data)}"
    return None


def outline(data):
    """Which versions the blocks of `data` are of, for people."""
    runs = []
    for at in range(0, len(data), BLOCK):
        block = data[at:at + HEAD]
        name = block[1:10].decode("latin-1") if block[:1] == b"<" else "zeros" if not any(block) else "other"
        if runs and runs[-1][0] == name:
            runs[-1][1] += 1
        else:
            runs.append([name, 1])
    told = ", ".join(f"{count} of {name}" for name, count in runs[:12])
    return f"{len(data)} bytes, blocks: {told}{', ...' if len(runs) > 12 else ''}"
