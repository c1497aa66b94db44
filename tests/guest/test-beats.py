#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""beatmon and beatcheck without QEMU: says heartbeats into the sockets and reads the verdicts. Run by make check."""
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

TIMEOUT_S = 10
BOOT = "BOOT b=00aa khz=1 pages=5 fill=zero ws=0 rate=0 hb=10000\n"


def full(number, boot="00aa", bad=0, passes=0):
    return f"H n={number} b={boot} t=0 d=7 v={passes} e={bad} g=3\n"


def short(first, last, boot="00aa"):
    return "".join(f"h {n} {boot}\n" for n in range(first, last + 1))


# name: [(connection, what it says)...], what the verdict must hold, intact?
CASES = {
    "plain": ([(1, BOOT + full(1) + short(2, 9) + full(10, passes=3))],
              {"beats": 10, "first": 1, "last": 10, "lost": 0, "repeated": 0, "backward": 0, "boots": 1, "passes": 3}, True),
    "moved": ([(1, BOOT + full(1) + short(2, 9)), (2, short(10, 20))], {"beats": 20, "lost": 0, "boots": 1}, True),
    "moved-within-a-line": ([(1, BOOT + full(1) + short(2, 9) + "h 10 0"), (2, "0aa\n" + short(11, 20))],
                            {"beats": 20, "lost": 0, "noise": 0}, True),
    "moved-before-the-newline": ([(1, BOOT + full(1) + "h 2 00aa"), (2, "\n" + short(3, 4))], {"beats": 4, "noise": 0}, True),
    "torn-and-dead": ([(1, BOOT + full(1) + "h 2 0"), (2, BOOT.replace("00aa", "00bb") + full(1, "00bb"))],
                      {"boots": 2, "noise": 0, "backward": 0}, False),
    "lost": ([(1, BOOT + full(1) + short(2, 9) + short(13, 20))], {"beats": 17, "lost": 3, "repeated": 0}, False),
    "two-copies": ([(1, BOOT + short(1, 10)), (2, short(11, 12)), (1, short(11, 12)), (2, short(13, 13)), (1, short(13, 13))],
                   {"repeated": 2, "backward": 1, "lost": 0}, False),
    "older-copy": ([(1, BOOT + short(1, 10)), (2, short(4, 6))], {"backward": 1, "repeated": 2, "lost": 0}, False),
    "two-boots-at-once": ([(1, BOOT + short(1, 10)), (2, short(1, 5, "00bb")), (1, short(11, 12))],
                          {"boots": 2, "backward": 2}, False),
    "wrong-words": ([(1, BOOT + short(1, 10) + full(11, bad=2) + full(12, bad=5))], {"errors": 5, "lost": 0}, False),
    "noise": ([(1, BOOT + short(1, 10) + "h 1x 00aa\nH n= \n" + short(11, 12))], {"noise": 2, "lost": 0, "beats": 12}, True),
    "silent": ([(1, BOOT)], {"beats": 0, "boots": 1}, False),
}


def wait_until(what, condition):
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.01)


def verdict(directory, vm):
    run = subprocess.run(["./beatcheck", "--window", "0", directory, vm], stdout=subprocess.PIPE, check=False)
    return run.returncode, json.loads(run.stdout)


def say(directory, name, script):
    connections = {}
    file = f"{directory}/{name}.beats"
    for number, text in script:
        before = os.path.getsize(file)
        if number not in connections:
            connections[number] = socket.socket(socket.AF_UNIX)
            connections[number].connect(f"{directory}/{name}.sock")
            wait_until("the connection to be recorded", lambda: os.path.getsize(file) > before)
            before = os.path.getsize(file)
        connections[number].sendall(text.encode())
        wait_until(f"{name} to be heard", lambda: os.path.getsize(file) > before)
    return connections


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        with open(f"{directory}/names", "w", encoding="ascii") as names:
            names.writelines(f"{name}\n" for name in CASES)
        with subprocess.Popen(["./beatmon", directory]) as beatmon:
            try:
                for name, (script, wanted, intact) in CASES.items():
                    wait_until(f"beatmon to listen for {name}", lambda: os.path.exists(f"{directory}/{name}.sock"))
                    connections = say(directory, name, script)
                    status, got = verdict(directory, name)
                    for connection in connections.values():
                        connection.close()
                    wrong = {key: got[key] for key in wanted if got[key] != wanted[key]}
                    if wrong or status != (0 if intact else 1):
                        print(f"FAILED: {name}: status {status}, wanted {wanted}, got {got}")
                        failed += 1
            finally:
                beatmon.terminate()
    print(f"{len(CASES) - failed} of {len(CASES)} cases are right")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
