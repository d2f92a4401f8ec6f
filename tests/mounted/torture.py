"""One writer and readers who opened the file before: after each step all must see the same.

Arguments: the file on the mount, the same on the server, a seed, steps, "map" or "nomap".
"""
import mmap
import os
import random
import sys
import time

path, stored, seed, steps, maps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
rnd = random.Random(seed)
MOST = 6 << 20

shadow = bytearray(open(path, "rb").read())
readers = [os.open(path, os.O_RDONLY)]
writers = []  # descriptor, may be read, appends
mapped = None  # mapping, whether a store was made since somebody closed a writer
done = []


def data(length):
    return rnd.randbytes(length)


def put(offset, bytes_):
    if not bytes_:
        return
    if offset > len(shadow):
        shadow.extend(bytes(offset - len(shadow)))
    shadow[offset:offset + len(bytes_)] = bytes_


def cut(length):
    if length <= len(shadow):
        del shadow[length:]
    else:
        shadow.extend(bytes(length - len(shadow)))


def unmap():
    global mapped
    if mapped:
        mapped.close()
        mapped = None


def all_of(fd):
    parts, at = [], 0
    while part := os.pread(fd, 1 << 20, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def check(fd, who):
    size = os.fstat(fd).st_size
    assert size == len(shadow), f"{who}: size {size}, not {len(shadow)}, after {done[-8:]}"
    content = all_of(fd)
    if content != shadow:
        at = next((i for i, (a, b) in enumerate(zip(content, shadow)) if a != b), min(len(content), len(shadow)))
        raise AssertionError(f"{who}: differs at {at}, {len(content)} of {len(shadow)} bytes, after {done[-8:]}")


def wait_for_server():
    deadline = time.monotonic() + 20
    while True:
        with open(stored, "rb") as there:
            if there.read() == shadow:
                return
        assert time.monotonic() < deadline, f"not on the server, after {done[-8:]}"
        time.sleep(0.1)


for step in range(steps):
    ops = ["reader", "open", "path_truncate"]
    if writers:
        ops += ["write"] * 6 + ["truncate", "fsync", "close", "append", "sendfile", "copy"]
        if maps == "map" and any(readable for _, readable, _ in writers):
            ops += ["map"] * 2
    if mapped:
        ops += ["store"] * 4 + ["unmap"]
    op = rnd.choice(ops)
    done.append(op)
    if op == "reader":
        readers.append(os.open(path, os.O_RDONLY))
        if len(readers) > 3:
            os.close(readers.pop(rnd.randrange(len(readers) - 1)))
    elif op == "open":
        if len(writers) < 3:
            readable = rnd.random() < 0.5
            flags = os.O_RDWR if readable else os.O_WRONLY
            appends = rnd.random() < 0.2
            if appends:
                flags |= os.O_APPEND
            if rnd.random() < 0.05:
                unmap()
                flags |= os.O_TRUNC
                cut(0)
            writers.append((os.open(path, flags), readable, appends))
    elif op == "path_truncate":
        length = rnd.randrange(MOST)
        if length < len(shadow):
            unmap()
        os.truncate(path, length)
        cut(length)
    else:
        fd, readable, appends = rnd.choice(writers) if writers else (None, False, False)
        if op == "write" and not appends:
            offset = rnd.randrange(min(len(shadow) + 100_000, MOST))
            part = data(rnd.choice([1, 10, 5000, 70_000, 300_000]))
            assert os.pwrite(fd, part, offset) == len(part)
            put(offset, part)
        elif op in ("write", "append") and appends:
            if len(shadow) < MOST:
                part = data(rnd.choice([1, 100, 20_000]))
                assert os.write(fd, part) == len(part)
                put(len(shadow), part)
        elif op == "truncate":
            length = rnd.randrange(MOST)
            if length < len(shadow):
                unmap()
            os.ftruncate(fd, length)
            cut(length)
        elif op == "fsync":
            os.fsync(fd)
            if not mapped:
                wait_for_server()
        elif op == "close":
            writers.remove((fd, readable, appends))
            os.close(fd)
            if not mapped:
                wait_for_server()
        elif op == "sendfile" and not appends and len(shadow) > 10:
            # From one who reads, through the kernel, to the start.
            count = rnd.randrange(1, min(len(shadow), 100_000))
            start = rnd.randrange(len(shadow) - count + 1)
            part = bytes(shadow[start:start + count])
            os.lseek(fd, 0, os.SEEK_SET)
            sent = os.sendfile(fd, rnd.choice(readers), start, count)
            # What overlaps may have been written already.
            if start >= sent:
                put(0, part[:sent])
            else:
                shadow[:] = all_of(readers[0])
        elif op == "copy" and not appends and len(shadow) > 200_000:
            count = rnd.randrange(1, 50_000)
            part = bytes(shadow[:count])
            sent = os.copy_file_range(readers[-1], fd, count, 0, 100_000)
            put(100_000, part[:sent])
        elif op == "map" and len(shadow):
            fd = next(fd for fd, readable, _ in writers if readable)
            unmap()
            mapped = mmap.mmap(fd, len(shadow))
        elif op == "store":
            length = min(len(mapped), len(shadow))
            start = rnd.randrange(length)
            part = data(min(rnd.choice([1, 4096, 10_000]), length - start))
            mapped[start:start + len(part)] = part
            put(start, part)
        elif op == "unmap":
            unmap()
    for number, reader in enumerate(readers):
        check(reader, f"reader {number}")
    for fd, readable, _ in writers:
        if readable:
            check(fd, "writer")
    if mapped:
        assert mapped[:] == shadow[:len(mapped)], f"mapping, after {done[-8:]}"

# What is written to a mapping after the last close.
fds = [fd for fd, readable, _ in writers if readable]
if maps == "map" and fds and len(shadow) > 100:
    unmap()
    mapped = mmap.mmap(fds[0], len(shadow))
for fd, _, _ in writers:
    os.close(fd)
if mapped:
    mapped[10:20] = b"the end of"
    put(10, b"the end of")
    for reader in readers:
        check(reader, "reader of the end")
    unmap()
wait_for_server()
for reader in readers:
    check(reader, "reader at the end")
    os.close(reader)
with open(path, "rb") as last:
    assert last.read() == shadow, "read again"
