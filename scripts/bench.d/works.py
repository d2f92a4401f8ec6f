"""The works that are measured on a mount. Each yields figures as (metric, value).

What takes too long on a slow rival is cut off after LIMIT seconds, and the figure made of what was
done by then. Content is compared with the server's disk: a wrong figure is worse than none.
"""

import filecmp
import os
import random
import shutil
import statistics
import subprocess
import threading
import time

from lab import MIB, run
from targets import curl, lftp, resident, walk_floor

LIMIT = 30
READ = 4096

# metric -> (unit, whether more is better)
METRICS = {
    "read": ("MB/s", True),
    "read, CPU of all per GiB": ("s", False),
    "read again": ("MB/s", True),
    "read again, page cache dropped": ("MB/s", True),
    "write": ("MB/s", True),
    "random 4 KiB, 1 job": ("1/s", True),
    "random 4 KiB, 8 jobs": ("1/s", True),
    "find, 100 to a directory": ("s", False),
    "ls -lR, 100 to a directory": ("s", False),
    "find, 20 deep": ("s", False),
    "ls -l of one big directory": ("s", False),
    "cp -r out": ("files/s", True),
    "tar out": ("files/s", True),
    "8 readers": ("files/s", True),
    "cp -r in": ("files/s", True),
    "rsync -a, nothing to do, cold": ("s", False),
    "rsync -a, nothing to do, warm": ("s", False),
    "first stat after mount": ("ms", False),
    "stat in an unlisted directory": ("ms", False),
    "stat 20 deep": ("ms", False),
    "read one small file": ("ms", False),
    "read it again": ("ms", False),
    "create 4 KiB and close": ("ms", False),
    "mkdir": ("ms", False),
    "rename": ("ms", False),
    "rmdir": ("ms", False),
    "unlink": ("ms", False),
    "stat while reading, median": ("ms", False),
    "stat while reading, longest": ("ms", False),
    "mounted in": ("ms", False),
    "memory, idle": ("MiB", False),
    "memory, peak": ("MiB", False),
}


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def limited(*command, **options):
    """Runs a command for LIMIT seconds at most; whether it came to its end."""
    # `run` with a time limit looks every 50 ms whether the command is over.
    process = subprocess.Popen([str(part) for part in command], **options)
    late = threading.Timer(LIMIT, process.kill)
    late.start()
    code = process.wait()
    in_time = late.is_alive()
    late.cancel()
    if in_time and code:
        raise subprocess.CalledProcessError(code, command)
    return in_time


def files_in(tree):
    return sum(len(files) for _, _, files in os.walk(tree))


def same(ours, theirs):
    """Whether `theirs` has all of `ours`, byte for byte."""
    if ours.is_dir():
        return theirs.is_dir() and all(same(ours / name, theirs / name) for name in os.listdir(ours))
    try:
        return ours.stat().st_size == theirs.stat().st_size and filecmp.cmp(ours, theirs, shallow=False)
    except OSError:
        return False


def until_on_server(tree, count, size):
    """Waits until the server's disk has that many files and bytes; how many files it has."""
    ends, found = time.monotonic() + LIMIT, 0
    while time.monotonic() < ends:
        found = total = 0
        for top, _, files in os.walk(tree):
            for name in files:
                try:
                    total += os.stat(os.path.join(top, name)).st_size
                    found += 1
                except FileNotFoundError:
                    pass
        if (found, total) == (count, size):
            break
        time.sleep(0.01)
    return found


def dd(source, target, size, *words):
    """MB/s of reading a file. What a limit cuts off counts with what came."""
    command = ["timeout", "-s", "INT", str(LIMIT), "dd", f"if={source}", f"of={target}", "bs=1M", *words]
    began = time.perf_counter()
    told = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stderr
    took = time.perf_counter() - began
    done = [int(line.split()[0]) for line in told.splitlines() if " bytes " in line or line.endswith("copied")]
    if not done or (done[-1] != size and took < LIMIT):
        raise SystemExit(f"dd of {source}: {told}")
    return done[-1] / took / 1e6


def busy():
    """Seconds that all processors worked so far, for interrupts, too."""
    user, nice, system, _, _, irq, softirq = map(int, open("/proc/stat").readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def with_cpu(lab, work):
    """What `work` returns, and the seconds for each GiB that server, program and reader worked."""
    before = busy()
    value = work()
    return value, (busy() - before) * 1024 / lab.sizes.big


def read(target, lab):
    speed, cpu = with_cpu(lab, lambda: dd(target.mount / "big", "/dev/null", lab.sizes.big * MIB))
    yield "read", speed
    yield "read, CPU of all per GiB", cpu


def drop_page_cache():
    subprocess.run(["sync"], check=True)
    with open("/proc/sys/vm/drop_caches", "w") as drop:
        drop.write("1")


def read_again(target, lab):
    size = lab.sizes.big * MIB
    # The server is faster than the disk: what the first reader leaves out of a cache on disk, the
    # second adds. What fills a cache behind the reader has a moment.
    for _ in range(2):
        dd(target.mount / "big", "/dev/null", size)
        time.sleep(2)
        drop_page_cache()
    dd(target.mount / "big", "/dev/null", size)
    yield "read again", dd(target.mount / "big", "/dev/null", size)
    drop_page_cache()
    yield "read again, page cache dropped", dd(target.mount / "big", "/dev/null", size)


def write(target, lab):
    source, out, size = lab.root / "big", lab.root / "up/big", lab.sizes.big * MIB

    def all_of_it():
        run("dd", f"if={source}", f"of={target.mount}/up/big", "bs=1M", "conv=fsync", "status=none")
        while not out.exists() or out.stat().st_size != size:
            time.sleep(0.002)
    took = timed(all_of_it)
    if not filecmp.cmp(source, out, shallow=False):
        raise SystemExit(f"{target.name} wrote something else")
    yield "write", size / took / 1e6


def random_reads(target, lab):
    for jobs in (1, 8):
        if jobs == 8:
            target.stop()
            shutil.rmtree(target.scratch)
            target.scratch.mkdir()
            target.start()
        counts, ends = [0] * jobs, time.monotonic() + LIMIT / 2
        blocks = lab.sizes.big * MIB // READ

        def job(number):
            rng = random.Random(number)
            with open(target.mount / "big", "rb", buffering=0) as file:
                # Kernel read-ahead is not what is measured.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                while counts[number] < lab.sizes.reads // jobs and time.monotonic() < ends:
                    if len(os.pread(file.fileno(), READ, rng.randrange(blocks) * READ)) != READ:
                        raise SystemExit(f"{target.name}: a short read")
                    counts[number] += 1
        threads = [threading.Thread(target=job, args=(number,)) for number in range(jobs)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield f"random 4 KiB, {jobs} job{'s' if jobs > 1 else ''}", sum(counts) / (time.perf_counter() - began)


def whole_time(target, lab, command, count):
    """Seconds for all `count` lines that a command prints; extrapolated if it was cut off."""
    out = target.base / "lines"
    with open(out, "wb") as file:
        took = timed(lambda: limited(*command, stdout=file))
    lines = out.read_bytes().count(b"\n")
    if lines < count and took < LIMIT:
        raise SystemExit(f"{target.name}: {command} found {lines} of {count}")
    # A hundredth is no base to extrapolate from.
    return took * count / lines if lines * 100 > count else float("inf")


def find(target, lab):
    count = lab.sizes.dirs * 101 + 1
    command = ["find", target.mount / "many", "-printf", "%s %T@ %p\n"]
    yield "find, 100 to a directory", whole_time(target, lab, command, count)


def list_all(target, lab):
    # Of each directory its name, its total, and the empty line before the next.
    count = lab.sizes.dirs * 104 + 2
    yield "ls -lR, 100 to a directory", whole_time(target, lab, ["ls", "-lR", target.mount / "many"], count)


def find_deep(target, lab):
    count = lab.sizes.dirs // 2 * 21 + 1
    command = ["find", target.mount / "deep", "-printf", "%s %T@ %p\n"]
    yield "find, 20 deep", whole_time(target, lab, command, count)


def list_flat(target, lab):
    command = ["ls", "-l", target.mount / "flat"]
    yield "ls -l of one big directory", whole_time(target, lab, command, lab.sizes.dirs * 100 + 1)


def copy_out(target, lab):
    sink = lab.base / "sink"
    shutil.rmtree(sink, ignore_errors=True)
    ended = None

    def copy():
        nonlocal ended
        ended = limited("cp", "-r", target.mount / "small", sink)
    took = timed(copy)
    if ended and not same(lab.root / "small", sink):
        raise SystemExit(f"{target.name} read something else")
    yield "cp -r out", files_in(sink) / took
    shutil.rmtree(sink)


def tar_out(target, lab):
    out = lab.base / "tar"
    with open(out, "wb") as file:
        took = timed(lambda: limited("tar", "cf", "-", "-C", target.mount, "small", stdout=file))
    listed = subprocess.run(["tar", "tf", str(out)], capture_output=True, text=True).stdout.split()
    yield "tar out", sum(not name.endswith("/") for name in listed) / took
    out.unlink()


def eight_readers(target, lab):
    names = sorted(str(path.relative_to(lab.root)) for path in (lab.root / "small").rglob("f*"))
    counts, ends = [0] * 8, time.monotonic() + LIMIT

    def job(number):
        for name in names[number::8]:
            if time.monotonic() > ends:
                return
            if (target.mount / name).read_bytes() != (lab.root / name).read_bytes():
                raise SystemExit(f"{target.name}: {name} is something else")
            counts[number] += 1
    threads = [threading.Thread(target=job, args=(number,)) for number in range(8)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield "8 readers", sum(counts) / (time.perf_counter() - began)


def copy_in(target, lab):
    source, out = lab.root / "small", lab.root / "up/small"
    count, size = files_in(source), sum(f.stat().st_size for f in source.rglob("f*"))
    found = 0

    def copy():
        nonlocal found
        if limited("cp", "-r", source, target.mount / "up/small"):
            found = until_on_server(out, count, size)
        else:
            found = files_in(out)
    took = timed(copy)
    yield "cp -r in", found / took
    # A file of the right size may have its temporary name yet.
    ends = time.monotonic() + 5
    while found == count and not same(source, out):
        if time.monotonic() > ends:
            raise SystemExit(f"{target.name} wrote something else")
        time.sleep(0.05)


def rsync(target, lab):
    yield from rsync_from(target.mount, lab)


def rsync_from(tree, lab):
    local = lab.base / "sync"
    shutil.rmtree(local, ignore_errors=True)
    run("cp", "-a", lab.root / "small", local)
    command = ["rsync", "-a", "--no-owner", "--no-group", "--no-perms", "--stats"]
    # rsync sleeps 20 ms at a time until its other process has ended, and whether once or twice is
    # a matter of luck. So a warm one is the mean of many: a median jumps from one to the other.
    for state, runs in (("cold", 1), ("warm", 15)):
        took = 0
        for _ in range(runs):
            out = lab.base / "stats"
            with open(out, "w") as file:
                took += timed(lambda: limited(*command, f"{tree}/small/", f"{local}/", stdout=file))
            moved = [line for line in out.read_text().splitlines() if "files transferred" in line]
            if moved and not moved[0].endswith(" 0"):
                # It shows other times than the server's: then there is no such figure.
                return
        yield f"rsync -a, nothing to do, {state}", took / runs


def single(target, lab):
    def ms(work, *args):
        return timed(lambda: work(*args)) * 1e3

    def median(values):
        return statistics.median(list(values))
    many, up = target.mount / "many", target.mount / "up"
    yield "mounted in", target.mounted_in * 1e3
    yield "first stat after mount", ms(os.stat, many / "d000/f050")
    # Far apart and out of order, so that no foresight answers.
    spread = [(n * 7 + 3) % lab.sizes.dirs for n in range(7)]
    yield "stat in an unlisted directory", median(ms(os.stat, many / f"d{n:03}/f050") for n in spread)
    deep = target.mount / "deep" / "c03" / "/".join(f"l{n:02}" for n in range(1, 20)) / "leaf"
    yield "stat 20 deep", ms(os.stat, deep)

    def read_whole(path):
        with open(path, "rb", buffering=0) as file:
            file.read(65536)
    picked = [many / f"d{spread[0]:03}/f{(n * 37 + 11) % 100:03}" for n in range(10)]
    yield "read one small file", median(ms(read_whole, path) for path in picked)
    yield "read it again", median(ms(read_whole, path) for path in picked)

    def create(number):
        with open(up / f"new-{number}", "wb") as file:
            file.write(b"x" * 4096)
    numbers = range(7)
    yield "create 4 KiB and close", median(ms(create, n) for n in numbers)
    yield "mkdir", median(ms(os.mkdir, up / f"dir-{n}") for n in numbers)
    yield "rename", median(ms(os.rename, up / f"dir-{n}", up / f"moved-{n}") for n in numbers)
    yield "rmdir", median(ms(os.rmdir, up / f"moved-{n}") for n in numbers)
    # A rival may still be storing the file it said was stored.
    time.sleep(1)
    yield "unlink", median(ms(os.unlink, up / f"new-{n}") for n in numbers)
    time.sleep(1)
    yield "memory, idle", resident(target.daemon.pid) / 1024


def stat_while_reading(target, lab):
    reader = subprocess.Popen(["dd", f"if={target.mount}/big", "of=/dev/null", "bs=1M", "status=none"])
    time.sleep(0.1)
    took = []
    for number in range(20):
        if reader.poll() is not None:
            break
        path = target.mount / f"many/d{(number * 7 + 5) % lab.sizes.dirs:03}/f001"
        took.append(timed(lambda: os.stat(path)) * 1e3)
        time.sleep(0.01)
    reader.terminate()
    reader.wait()
    if len(took) > 3:
        yield "stat while reading, median", statistics.median(took)
        yield "stat while reading, longest", max(took)


WORKS = {
    "read": read, "again": read_again, "write": write, "random": random_reads, "find": find, "lslr": list_all,
    "deep": find_deep, "flat": list_flat, "out": copy_out, "tar": tar_out, "readers": eight_readers, "in": copy_in,
    "rsync": rsync, "single": single, "busy": stat_while_reading,
}


def references(work, lab):
    """What programs that are no mounts do: yields (name, metric, value)."""
    size, server, sink = lab.sizes.big * MIB, lab.server, lab.base / "sink"
    url = f"ftp://{server.way.host}:{server.port}"
    shutil.rmtree(sink, ignore_errors=True)
    if work == "read":
        get = curl(server, f"{url}/big", "-o", "/dev/null")
        took, receiving = with_cpu(lab, lambda: timed(lambda: run(*get)))
        yield "curl", "read", size / took / 1e6
        yield "curl", "read, CPU of all per GiB", receiving
        speed, answering = with_cpu(lab, lab.floor)
        yield "FUSE floor", "read", speed
        yield "FUSE floor", "read, CPU of all per GiB", answering
        # A daemon that receives as curl and answers as the floor, with all processors busy.
        cpu = receiving + answering
        yield "curl + floor", "read", os.cpu_count() * 1024 * MIB / cpu / 1e6
        yield "curl + floor", "read, CPU of all per GiB", cpu
    if work == "write":
        took = timed(lambda: run(*curl(server, "-T", lab.root / "big", f"{url}/up/big")))
        yield "curl", "write", size / took / 1e6
    if work == "again":
        yield "local disk", "read again", lab.local_read(drop=False)
        yield "local disk", "read again, page cache dropped", lab.local_read(drop=True)
    if work == "rsync":
        # No mount at all.
        for metric, took in rsync_from(lab.root, lab):
            if metric.endswith("warm"):
                yield "local disk", metric, took
    if work == "single" and lab.server.way.rtt:
        took = timed(lambda: run(*curl(server, f"{url}/many/d000/", "-o", "/dev/null")))
        yield "curl", "first stat after mount", took * 1e3
    if work in ("find", "lslr") and lab.server.way.rtt:
        # What each costs the server differs, so that more sessions are not always better.
        found = [walk_floor(lab, "many", sessions) for sessions in (12, 20, 31)]
        if all(found):
            metric = "find, 100 to a directory" if work == "find" else "ls -lR, 100 to a directory"
            names = lab.sizes.dirs * 101
            if any(listed != names for _, listed in found):
                raise SystemExit(f"the walk floor listed {found} of {names}")
            yield "walk floor", metric, min(seconds for seconds, _ in found)
    if not shutil.which("lftp"):
        return
    if work == "out":
        took = timed(lambda: run(*lftp(server, f"mirror --parallel=8 small {sink}")))
        yield "lftp", "cp -r out", files_in(sink) / took
        yield "lftp", "tar out", files_in(sink) / took
        yield "lftp", "8 readers", files_in(sink) / took
    if work == "in":
        took = timed(lambda: run(*lftp(server, f"mirror -R --parallel=8 {lab.root}/small up/small")))
        yield "lftp", "cp -r in", lab.sizes.small / took
