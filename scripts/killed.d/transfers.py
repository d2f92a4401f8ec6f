"""Without kills: uploads, downloads and listings one after the other, of small and of larger files,
each compared byte by byte. Over TLS, servers that insist on a resumed session refuse the next data
connection of a client that runs out of tickets."""

import os
import time

from contents import Content, outline
from stage import Mount, Trouble, clear


def size_of(rng, number):
    return rng.randrange(1, 30_000) if number % 2 else rng.randrange(300_000, 3 << 20)


def compare(what, data, expected):
    if data != expected:
        raise Trouble(f"{what}: {outline(data)}, not {outline(expected)}")


def transfers(binary, base, server, rounds, rng, tell):
    """`rounds` times: a file goes in by one mount, and is listed and read by another that keeps
    nothing."""
    up, down = Mount(binary, base, "up"), Mount(binary, base, "down")
    try:
        up.start(server, "", ["timeout=30s"])
        down.start(server, "", ["timeout=30s", "cache_size=0", "dir_cache=0s"])
        began = time.monotonic()
        for number in range(rounds):
            if number % 100 == 0:
                # Nothing is big.
                clear(server.root)
                tell(f"{number} of {rounds} transfers, {time.monotonic() - began:.0f} s")
            name, content = f"d{number}/t{number}", Content.new(number + 1, size_of(rng, number)).bytes()
            began_one = time.monotonic()
            os.mkdir(up.at / f"d{number}")
            with open(up.at / name, "wb") as file:
                file.write(content)
            compare(f"upload {number}", (server.root / name).read_bytes(), content)
            names = os.listdir(down.at / f"d{number}")
            if names != [f"t{number}"]:
                raise Trouble(f"listing {number}: {names}")
            compare(f"download {number}", (down.at / name).read_bytes(), content)
            took = time.monotonic() - began_one
            if took > 10:
                raise Trouble(f"transfer {number} took {took:.0f} s")
        for mount in (up, down):
            told = mount.status()
            if bool(told.get("tls")) != server.tls:
                raise Trouble(f"TLS is not as it should be: {told}")
            mount.finish()
    finally:
        up.give_up()
        down.give_up()
