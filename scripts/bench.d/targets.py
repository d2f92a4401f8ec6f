"""The programs that are measured: ferryfs and its rivals, each as a mount of the server; and what
is no mount but shows the limits (curl, lftp, the FUSE floor, the local disk)."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time

from lab import SCRIPTS, run

RCLONE = ["--config", "/dev/null", "--attr-timeout", "1h", "--dir-cache-time", "1h", "--poll-interval", "0",
          "--no-checksum", "--max-read-ahead", "1Mi", "--buffer-size", "32Mi", "--transfers", "8",
          "--vfs-fast-fingerprint", "--log-level", "ERROR"]
# Its fastest modes: without a cache on disk, and with one.
RCLONE_MODES = {
    "rclone off": ["mount2", "--vfs-cache-mode", "off"],
    "rclone full": ["mount", "--vfs-cache-mode", "full", "--vfs-read-ahead", "64Mi", "--vfs-write-back", "0s"],
}

# What makes it fast: it read 536 MB/s here with these, and 52 without, on a noisy machine.
CURLFTPFS = "tcp_nodelay,cache_timeout=3600,attr_timeout=3600,entry_timeout=3600," \
            "big_writes,max_readahead=1048576,kernel_cache,sync_read"


def is_mounted(directory):
    with open("/proc/self/mounts") as mounts:
        return any(line.split()[1] == str(directory) for line in mounts)


def family(pid):
    """A process and its children."""
    try:
        children = open(f"/proc/{pid}/task/{pid}/children").read().split()
    except OSError:
        children = []
    return [pid, *children]


def resident(pid):
    """Resident KiB of a process and its children."""
    total = 0
    for member in family(pid):
        try:
            for line in open(f"/proc/{member}/status"):
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        except OSError:
            pass
    return total


class Target:
    """One program; `with` mounts the server by it, afresh, with empty caches, and unmounts."""

    def __init__(self, name, command, server, base):
        self.name, self.command, self.server, self.base = name, command, server, base
        self.mount = base / "mnt"
        self.peak = self.idle = 0

    def __enter__(self):
        # On disk, where a daemon keeps what it caches and stages unless told otherwise.
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="ferryfs-bench-"))
        self.start()
        return self

    def start(self):
        self.mount.mkdir(exist_ok=True)
        command = [part.format(mnt=self.mount, scratch=self.scratch) for part in self.command]
        self.log = open(self.scratch / "log", "a")
        began = time.perf_counter()
        self.daemon = subprocess.Popen(self.server.way.at_client(command), stdin=subprocess.DEVNULL,
                                       stdout=self.log, stderr=self.log, start_new_session=True)
        limit = time.monotonic() + 30
        while not is_mounted(self.mount):
            if self.daemon.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"{self.name} does not mount:\n" + (self.scratch / "log").read_text())
            time.sleep(0.002)
        self.mounted_in = time.perf_counter() - began
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()

    def watch(self):
        while not self.over.wait(0.05):
            self.peak = max(self.peak, resident(self.daemon.pid))

    def stop(self):
        self.over.set()
        self.watcher.join()
        subprocess.run(["umount", str(self.mount)], check=False, stderr=subprocess.DEVNULL)
        try:
            self.daemon.wait(60)
        except subprocess.TimeoutExpired:
            subprocess.run(["umount", "-l", str(self.mount)], check=False)
            self.daemon.kill()
            self.daemon.wait()
        self.log.close()

    def again(self):
        """A new mount with the caches that the one before left."""
        self.stop()
        self.start()

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.scratch)


def mounts(server, base, names, more):
    """The targets that are installed, ours first; `names` chooses, or is None for all. `more` are
    options for ours."""
    host = server.way.host
    password = base / "password"
    password.write_text(server.password)
    password.chmod(0o600)
    release = SCRIPTS.parent / "target/release/ferryfs"
    options = f"password_file={password},state_dir={{scratch}}/state,cache_dir={{scratch}}/cache"
    options += f",tls=require,cafile={server.cafile}" if server.tls else ",tls=off"
    options += "".join(f",{option}" for option in more)
    url = f"ftp://{server.user}@{host}:{server.port}/"
    found = [("ferryfs", [str(release), "-f", url, "{mnt}", "-o", options]),
             ("ferryfs ro", [str(release), "-f", url, "{mnt}", "-o", options + ",ro"]),
             ("writeback", [str(release), "-f", url, "{mnt}", "-o", options + ",writeback"])]
    rclone = os.environ.get("RCLONE") or shutil.which("rclone")
    if rclone:
        hidden = run(rclone, "obscure", server.password, capture_output=True, text=True).stdout.strip()
        remote = f":ftp,host={host},port={server.port},user={server.user},pass={hidden}," \
                 "idle_timeout=10m,no_check_upload=true"
        remote += ",explicit_tls=true,no_check_certificate=true:" if server.tls else ":"
        for name, mode in RCLONE_MODES.items():
            found.append((name, [rclone, *mode, "--cache-dir", "{scratch}", *RCLONE, remote, "{mnt}"]))
    if shutil.which("curlftpfs"):
        secret = ["-o", f"{CURLFTPFS},user={server.user}:{server.password}"]
        secret += ["-o", "ssl,no_verify_peer,no_verify_hostname"] if server.tls else []
        found.append(("curlftpfs", ["curlftpfs", "-f", *secret, f"ftp://{host}:{server.port}/", "{mnt}"]))
    return [Target(name, command, server, base) for name, command in found if not names or name in names]


def curl(server, *words):
    tls = ["--ssl-reqd", "-k"] if server.tls else []
    command = ["curl", "-sS", *tls, "-u", f"{server.user}:{server.password}", *words]
    return server.way.at_client(command)


def lftp(server, script):
    tls = "yes" if server.tls else "no"
    setup = f"set ssl:verify-certificate no; set ftp:ssl-allow {tls}; set ftp:ssl-force {tls}; " \
            f"set ftp:ssl-protect-data {tls}; set net:max-retries 2; set mirror:set-permissions no; "
    url = f"ftp://{server.way.host}:{server.port}/"
    command = ["lftp", "-u", f"{server.user},{server.password}", "-e", f"{setup}{script}; quit", url]
    return server.way.at_client(command)


# What is known to work on each server, and saves round trips.
FLOOR = {"proftpd": ["together", "close"], "pure-ftpd": ["together"], "pyftpdlib": []}


def walk_floor(lab, directory, sessions):
    """Seconds in which a client that does nothing else lists the directories in one, and how many
    names it was told; None where a listing is not by MLSD."""
    server = lab.server
    if server.kind not in FLOOR or server.tls:
        return None
    floor = SCRIPTS.parent / "target/release/examples/walk-floor"
    # One login every 5 ms: of more at once some servers greet the last ones a second later.
    command = [floor, server.way.host, server.port, server.user, lab.base / "password", directory, sessions, 5]
    told = run(*server.way.at_client(command + FLOOR[server.kind]), capture_output=True, text=True).stdout
    seconds, names = told.split()
    return float(seconds), int(names)
