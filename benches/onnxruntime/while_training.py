#!/usr/bin/env python3
"""How long one picture takes to classify while the server is idle, and while a job computes on all job threads.

    python3 benches/onnxruntime/while_training.py target/release/lora-recycle assets/examples [--requests 200]

Starts a server with an empty data folder, classifies one picture again and again (two classes of two examples each), then queues a
tuning job on the same example pictures, and does the same while that job runs. Prints medians and 95th percentiles in
milliseconds and their ratio. The job is cancelled at the end.
"""
import argparse
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
import zipfile
from pathlib import Path


def form(parts):
    """Multipart bytes of (name, file name or None, content), and their content type."""
    boundary = uuid.uuid4().hex
    body = io.BytesIO()
    for name, file_name, content in parts:
        extra = f'; filename="{file_name}"' if file_name else ""
        body.write(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode())
        body.write(content + b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
    return body.getvalue(), f"multipart/form-data; boundary={boundary}"


class Server:
    def __init__(self, program, data_folder):
        command = [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", data_folder]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "listening on http://" in line:
                self.base = "http://" + line.split("http://")[1].strip()
                break
        # A pipe that nobody reads stops the server once it is full.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def call(self, path, body=None, content_type="application/json"):
        request = urllib.request.Request(self.base + path, body, {"content-type": content_type})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("pictures", type=Path, help="folder of class folders, two pictures each at least")
    parser.add_argument("--requests", type=int, default=200)
    arguments = parser.parse_args()
    classes = {folder.name: sorted(folder.glob("*.jpg")) for folder in sorted(arguments.pictures.iterdir()) if folder.is_dir()}
    query = next(iter(classes.pop("queries", next(iter(classes.values())))))
    two = list(classes)[:2]
    parts = [(f"support/{name}", path.name, path.read_bytes()) for name in two for path in classes[name][:2]]
    body, content_type = form(parts + [("query", query.name, query.read_bytes())])
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, paths in classes.items():
            for path in paths:
                file.write(path, f"{name}/{path.name}")

    with tempfile.TemporaryDirectory() as folder:
        server = Server(arguments.program, folder)

        def measure(label):
            times = []
            for number in range(arguments.requests + 10):
                start = time.perf_counter()
                server.call("/api/v1/classify", body, content_type)
                if number >= 10:
                    times.append((time.perf_counter() - start) * 1e3)
            median, high = percentile(times, 0.5), percentile(times, 0.95)
            print(f"{label}: median {median:.1f} ms, p95 {high:.1f} ms, {len(times)} requests", flush=True)
            return median, high

        try:
            idle = measure("idle")
            recipe = json.dumps({"steps": 100000, "batch_size": 64}).encode()
            job, job_type = form([("name", None, b"load"), ("recipe", None, recipe), ("archive", "pictures.zip", archive.getvalue())])
            address = f"/api/v1/jobs/{server.call('/api/v1/jobs/tune', job, job_type)['jobs'][0]['id']}"
            while (state := server.call(address))["state"] != "running" or not state["progress"]:
                if state["state"] not in ("queued", "running"):
                    sys.exit(f"the job ended early: {state}")
                time.sleep(0.1)
            before = server.call(address)["progress"]["step"]
            busy = measure("while a job tunes")
            after = server.call(address)
            if after["state"] != "running" or after["progress"]["step"] <= before:
                sys.exit(f"the job did not go on meanwhile: {after}")
            server.call(address + "/cancel", b"{}")
            print(f"ratio: median {busy[0] / idle[0]:.2f}, p95 {busy[1] / idle[1]:.2f}")
        finally:
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main()
