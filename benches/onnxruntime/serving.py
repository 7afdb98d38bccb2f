#!/usr/bin/env python3
"""Start-up, latency and throughput of `lora-recycle serve` against the same graph called raw through onnxruntime.

    python3 benches/onnxruntime/serving.py target/release/lora-recycle assets/examples [--threads 2]

Needs Python's onnxruntime (the version that `make setup` fetches), numpy and Pillow. The server and the raw session use the same
graph file, the same number of threads and the same pictures. Both are measured in turns in one run; medians are
printed, with the 10th and 90th percentile. The server's time is the whole request: HTTP, JPEG decoding, resizing, inference, JSON.
"""
import argparse
import base64
import http.client
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import onnxruntime
from PIL import Image

ROUNDS, BATCH, SIZE = 60, 32, 98
MEAN, STD = numpy.array([0.485, 0.456, 0.406]), numpy.array([0.229, 0.224, 0.225])


class Server:
    def __init__(self, program, data_folder, threads):
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", data_folder, "--threads", str(threads)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stderr:
            if "listening on http://" in line:
                self.address = line.split("http://")[1].strip()
                break
        self.connection = http.client.HTTPConnection(self.address)
        while self.request("GET", "/readyz")[0] != 200:
            time.sleep(0.005)
        self.start_seconds = time.perf_counter() - start

    def request(self, method, path, body=None):
        self.connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        response = self.connection.getresponse()
        return response.status, response.read()

    def embed(self, body):
        status, answer = self.request("POST", "/api/v1/embed", body)
        if status != 200:
            sys.exit(f"embed answered {status}: {answer[:300]}")
        return answer

    def stop(self):
        self.process.terminate()
        self.process.wait()


def jpeg(picture, side):
    output = io.BytesIO()
    picture.resize((side, side), Image.BICUBIC).save(output, "JPEG", quality=90)
    return output.getvalue()


def body(files):
    return json.dumps({"images": [base64.b64encode(file).decode() for file in files]})


def pixels(files):
    rows = []
    for file in files:
        picture = Image.open(io.BytesIO(file)).convert("RGB").resize((SIZE, SIZE), Image.BICUBIC)
        rows.append((numpy.asarray(picture) / 255 - MEAN) / STD)
    return numpy.ascontiguousarray(numpy.array(rows, dtype=numpy.float32).transpose(0, 3, 1, 2))


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(works, rounds):
    times = {name: [] for name in works}
    for name, work in works.items():
        for _ in range(3):
            work()
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: numpy.percentile(values, [50, 10, 90]) * 1e3 for name, values in times.items()}


def row(name, times, reference):
    median, low, high = times
    print(f"| {name} | {median:.1f} | {low:.1f} to {high:.1f} | {median / reference:.2f} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("pictures")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    pictures = [Image.open(p).convert("RGB") for p in sorted(Path(arguments.pictures).rglob("*.jpg"))]
    load = os.getloadavg()[0]

    with tempfile.TemporaryDirectory() as folder:
        cold = Server(arguments.program, folder, arguments.threads)
        cold.stop()
        warm = []
        for _ in range(5):
            server = Server(arguments.program, folder, arguments.threads)
            warm.append(server.start_seconds)
            server.stop()
        server = Server(arguments.program, folder, arguments.threads)
        graph = next((Path(folder) / "cache" / "onnx").glob(f"*-{SIZE}.onnx"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

        one = {side: [jpeg(pictures[0], side)] for side in (SIZE, 320)}
        many = {side: [jpeg(pictures[i % len(pictures)], side) for i in range(BATCH)] for side in (SIZE, 320)}
        # The same pictures must give the same features, or the comparison is of two different things.
        ours = numpy.array([r["feature"] for r in json.loads(server.embed(body(many[SIZE])))["results"]])
        raw = session.run(["feature"], {"pixels": pixels(many[SIZE])})[0]
        cosine = ((ours * raw).sum(1) / numpy.linalg.norm(ours, axis=1) / numpy.linalg.norm(raw, axis=1)).min()

        def raw_call(files):
            values = pixels(files)
            return lambda: session.run(["feature", "cls_attention"], {"pixels": values})

        def whole_call(files):
            return lambda: session.run(["feature", "cls_attention"], {"pixels": pixels(files)})

        def served(files):
            request = body(files)
            return lambda: server.embed(request)

        single = in_turns({
            "raw call on ready pixels": raw_call(one[SIZE]),
            f"served, {SIZE} px JPEG": served(one[SIZE]),
            "served, 320 px JPEG": served(one[320]),
            "Pillow + raw call, 320 px JPEG": whole_call(one[320]),
        }, ROUNDS)
        batch = in_turns({
            "raw call on ready pixels": raw_call(many[SIZE]),
            f"served, {SIZE} px JPEG": served(many[SIZE]),
            "served, 320 px JPEG": served(many[320]),
            "Pillow + raw call, 320 px JPEG": whole_call(many[320]),
        }, ROUNDS // 3)
        server.stop()

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, "
          f"onnxruntime {onnxruntime.__version__}, load average at start {load:.2f}; smallest cosine between the two features {cosine:.6f}")
    print(f"start until /readyz answers 200: {cold.start_seconds:.2f} s with an empty data folder, "
          f"{numpy.median(warm):.2f} s (median of {len(warm)}) with a cached graph\n")
    print("| one picture | median ms | 10th to 90th percentile | ratio to the raw call |\n|---|---|---|---|")
    for name, times in single.items():
        row(name, times, single["raw call on ready pixels"][0])
    print(f"\n| {BATCH} pictures in one request | median ms | 10th to 90th percentile | ratio to the raw call |\n|---|---|---|---|")
    for name, times in batch.items():
        row(name, times, batch["raw call on ready pixels"][0])


if __name__ == "__main__":
    main()
