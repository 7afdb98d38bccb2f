#!/usr/bin/env python3
"""A question to a stored classifier against the plain encoding of the same picture, and the memory of the server over many questions.

    python3 benches/classifiers.py target/release/lora-recycle assets/examples/queries/clownfish.jpg

Needs Python alone, on Linux. The classifier gets 1,000 pictures in 100 classes; it begins once their copies are encoded, too. Both requests
are measured in turns in one run, in alternating order; medians are printed. Memory is what the process holds in RAM (VmRSS).
"""
import argparse
import http.client
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

CLASSES, PER_CLASS, SIDE = 100, 10, 32
PORTION = 50
BOUNDARY = "boundary-of-the-benchmark"
WAIT_SECONDS = 3600


class Server:
    def __init__(self, program, data_folder):
        self.process = subprocess.Popen(
            [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", data_folder],
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stderr:
            if "listening on http://" in line:
                self.connection = http.client.HTTPConnection(line.split("http://")[1].strip())
                break
        else:
            sys.exit("the server did not start")
        # A full pipe would stop the server.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def post(self, path, body, media_type):
        self.connection.request("POST", f"/api/v1{path}", body, {"content-type": media_type})
        response = self.connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            sys.exit(f"{path} answered {response.status}: {answer[:300]}")
        return answer

    def resident_mib(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        sys.exit("the server ended")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def form(parts):
    """`parts`: (name, file name, bytes)."""
    body = bytearray()
    for name, file_name, content in parts:
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n\r\n'.encode()
        body += content + b"\r\n"
    return bytes(body) + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


def png(rows):
    """`rows` of RGB bytes."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def example(drawn, colours):
    """Two colours of the class in a drawn pattern."""
    rows = []
    for _ in range(SIDE):
        rows.append(bytes(value for _ in range(SIDE) for value in drawn.choice(colours)))
    return png(rows)


def fill(server, path):
    drawn = random.Random(1)
    pictures = []
    for label in range(CLASSES):
        colours = [[drawn.randrange(256) for _ in range(3)] for _ in range(2)]
        pictures += [(f"support/{label}", f"{label}-{index}.png", example(drawn, colours)) for index in range(PER_CLASS)]
    for start in range(0, len(pictures), PORTION):
        server.post(f"{path}/images", *form(pictures[start : start + PORTION]))


def wait_for_copies(classify):
    end = time.monotonic() + WAIT_SECONDS
    while json.loads(classify())["results"][0]["head"] != "lda-augmented":
        if time.monotonic() > end:
            sys.exit("the copies of the examples were not encoded in time")
        time.sleep(1)


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(works, rounds):
    times = {name: [] for name in works}
    for turn in range(rounds):
        order = list(works) if turn % 2 == 0 else list(works)[::-1]
        for name in order:
            times[name].append(seconds(works[name]))
    return {name: statistics.median(values) * 1e3 for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--requests", type=int, default=5000, help="questions over which memory is watched")
    arguments = parser.parse_args()
    content = arguments.picture.read_bytes()
    query, image = form([("query", "query.jpg", content)]), form([("image", "query.jpg", content)])

    with tempfile.TemporaryDirectory() as folder:
        server = Server(arguments.program, folder)
        try:
            made = server.post("/classifiers", json.dumps({"name": "Budget"}), "application/json")
            path = f"/classifiers/{json.loads(made)['id']}"

            def classify():
                return server.post(f"{path}/classify", *query)

            start = time.monotonic()
            fill(server, path)
            wait_for_copies(classify)
            print(f"{CLASSES * PER_CLASS} examples in {CLASSES} classes after {time.monotonic() - start:.0f} s, load {os.getloadavg()[0]:.2f}")

            works = {"classify": classify, "embed": lambda: server.post("/embed", *image)}
            in_turns(works, 10)
            medians = in_turns(works, arguments.rounds)
            print(f"classify {medians['classify']:.2f} ms, embed {medians['embed']:.2f} ms, ratio {medians['classify'] / medians['embed']:.3f}")

            part = max(1, arguments.requests // 10)
            memory = [server.resident_mib()]
            for number in range(1, arguments.requests + 1):
                classify()
                if number % part == 0:
                    memory.append(server.resident_mib())
            print(f"memory over {arguments.requests} questions, MiB: " + ", ".join(f"{own:.1f}" for own in memory))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
