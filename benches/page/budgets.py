#!/usr/bin/env python3
"""Measures what the page of classifiers costs in a browser, and compares it with its budgets.

    python3 benches/page/budgets.py target/release/lora-recycle

Starts a server on an empty data folder, a headless Chromium and chromedriver, and does what people do: opens the first page, teaches
and sorts thousands of pictures, adds one more example, reloads. Times of the main thread are thread time, which other work on the
machine hardly changes; waits are wall time and named so. Needs Chromium and chromedriver on PATH and the standard library alone.
"""

import argparse
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

PROJECT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "assets/examples"
QUERIES = 2000
CLASSES = 100
EXAMPLES_PER_CLASS = 10
START_SECONDS = 120
WAIT_SECONDS = 600


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the program, best a release build")
    parser.add_argument("--queries", type=int, default=QUERIES, help="pictures to sort")
    parser.add_argument("--json", metavar="FILE", help="writes the figures there, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        with server(arguments.program, work) as origin, browser(work) as page:
            figures = measure(page, origin, work, arguments.queries)
    width = max(len(name) for name in figures)
    failed = False
    for name, (value, budget) in figures.items():
        exceeded = budget is not None and value > budget
        failed |= exceeded
        print(f"{name:{width}}  {value:10.6g}  {'' if budget is None else f'at most {budget:g}'}{'  EXCEEDED' if exceeded else ''}")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({name: value for name, (value, _) in figures.items()}, indent=1) + "\n")
    sys.exit(1 if failed else 0)


def measure(page, origin, work, queries):
    figures = {}
    page.command("Network.enable")
    page.command("Performance.setTimeDomain", timeDomain="threadTicks")
    page.command("Performance.enable")
    page.open(f"{origin}/")
    page.wait("document.documentElement.dataset.ready === 'true'")
    page.wait("performance.getEntriesByType('resource').every((entry) => entry.responseEnd > 0)")
    sizes = page.value("[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')].map((entry) => entry.transferSize)")
    figures["first page, requests"] = (len(sizes), 8)
    figures["first page, kB"] = (sum(sizes) / 1000, 60)

    # A thousand examples in a hundred classes, then pictures to sort.
    pictures = sorted(EXAMPLES.glob("*/*.jpg"))
    made = make_folders(work / "taught", pictures)
    page.pick("#home-folder", [made])
    total = CLASSES * EXAMPLES_PER_CLASS
    page.wait(f"document.getElementById('bench-counts').textContent === '{CLASSES} classes, {total} pictures' && document.getElementById('bench-saved').textContent.startsWith('Saved ')")
    # One picture first: whoever taught so many waits once until they are encoded, as long as the machine takes.
    page.pick("#choose-queries", make_files(work / "first", pictures[:1], 1))
    page.wait("document.getElementById('summary').textContent.startsWith('1 picture sorted') && document.getElementById('progress').hidden")
    page.click("#clear-queries")
    page.wait("document.getElementById('summary').textContent === ''")
    trace = Trace(page)
    before = metrics(page)
    files = make_files(work / "sorted", pictures, queries)
    page.script("""
        window.firstRead = null; window.firstAnswer = null;
        new MutationObserver(() => {
            const read = /Reading (\\d+) of/.exec(document.getElementById('progress-text').textContent);
            if (window.firstRead === null && read && Number(read[1]) >= 16) window.firstRead = performance.now();
            if (window.firstAnswer === null && document.getElementById('summary').textContent) window.firstAnswer = performance.now();
        }).observe(document.getElementById('bench'), { subtree: true, childList: true, characterData: true });
    """)
    page.pick("#choose-queries", files)
    page.wait(f"window.firstAnswer !== null && !document.getElementById('progress-text').textContent.includes('Reading')")
    after = metrics(page)
    figures[f"{queries} pictures read, main thread s"] = (after["TaskDuration"] - before["TaskDuration"], 8)
    longest_ms, process = trace.longest()
    figures["longest task of the main thread, ms"] = (longest_ms, 100)
    figures["first answers after the first 16 are read, wall s"] = (page.value("(window.firstAnswer - window.firstRead) / 1000"), 2)
    page.wait(f"document.getElementById('summary').textContent.startsWith('{queries} pictures sorted') && document.getElementById('progress').hidden")
    end = metrics(page)
    figures[f"{queries} pictures read and sorted, main thread s"] = (end["TaskDuration"] - before["TaskDuration"], None)
    figures["elements of the document"] = (page.value("document.querySelectorAll('*').length"), 4000)
    figures["renderer, resident MB"] = (resident_megabytes(process), 300)

    # One more example among a thousand.
    page.script("performance.clearResourceTimings()")
    [extra] = make_files(work / "extra", pictures[:1], 1)
    page.pick(".class-row [data-part=files]", [extra])
    page.wait(f"document.getElementById('bench-counts').textContent === '{CLASSES} classes, {total + 1} pictures'")
    uploads = page.value("performance.getEntriesByType('resource').filter((entry) => new URL(entry.name).pathname.endsWith('/images') && entry.initiatorType === 'fetch').map((entry) => entry.responseEnd - entry.requestStart)")
    figures["one more example, uploads"] = (len(uploads), 1)
    figures["one more example, wall ms of the server"] = (uploads[0], 150)
    page.script("performance.clearResourceTimings()")
    page.reload()
    page.wait(f"document.getElementById('bench-counts').textContent === '{CLASSES} classes, {total + 1} pictures'")
    figures["reload with 1,001 examples, wall s"] = (page.value("performance.now() / 1000"), 1)
    return figures


def make_folders(root, pictures):
    for number in range(CLASSES):
        for index in range(EXAMPLES_PER_CLASS):
            place = root / f"class {number:03}" / f"{index}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            copy(pictures[(number + index) % len(pictures)], place, number * EXAMPLES_PER_CLASS + index)
    return root


def make_files(root, pictures, count):
    root.mkdir(parents=True)
    return [copy(pictures[index % len(pictures)], root / f"{index:05}.jpg", 1_000_000 + index) for index in range(count)]


def copy(picture, place, number):
    """The same picture under another digest: readers ignore what follows a JPEG's end."""
    place.write_bytes(picture.read_bytes() + number.to_bytes(8, "big"))
    return place


def metrics(page):
    return {entry["name"]: entry["value"] for entry in page.command("Performance.getMetrics")["metrics"]}


def resident_megabytes(process):
    [line] = [line for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1000


class Trace:
    """Tasks of the page's main thread, in thread time, as chromedriver's log has them."""

    def __init__(self, page):
        self.page = page
        self.names = {}
        self.read()

    def read(self):
        """[(thread, ms)] of the tasks since the last call."""
        tasks = []
        for entry in self.page.log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] != "Tracing.dataCollected":
                continue
            event = message["params"]
            thread = (event.get("pid"), event.get("tid"))
            if event.get("name") == "thread_name":
                self.names[thread] = event["args"]["name"]
            elif event.get("name") == "ThreadControllerImpl::RunTask":
                tasks.append((thread, event.get("tdur", 0) / 1000))
        return tasks

    def longest(self):
        """(ms, process) of the longest task of a page's main thread."""
        main = [(ms, process) for (process, thread), ms in self.read() if self.names.get((process, thread)) == "CrRendererMain"]
        if not main:
            raise SystemExit("the trace has no task of a page's main thread")
        return max(main)


class server:
    """`serve` on a free port and an empty data folder."""

    def __init__(self, program, work):
        self.command = [program, "serve", "--listen", f"127.0.0.1:{free_port()}", "--data-dir", str(work / "data")]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        origin = f"http://{self.command[3]}"
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{origin}/readyz", timeout=5).read()
                return origin
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise SystemExit("the server did not start") from None
                time.sleep(0.1)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class browser:
    """A headless Chromium under chromedriver, by the WebDriver protocol."""

    def __init__(self, work):
        self.profile = work / "profile"

    def __enter__(self):
        binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        driver = shutil.which("chromedriver")
        if not binary or not driver:
            raise SystemExit("Chromium and chromedriver are needed (on Debian: apt install chromium chromium-driver)")
        port = free_port()
        self.process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.address = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
                     "--disable-sync", "--disable-dev-shm-usage", "--window-size=1280,900", f"--user-data-dir={self.profile}"]
        capabilities = {"goog:chromeOptions": {"binary": binary, "args": arguments, "perfLoggingPrefs": {"traceCategories": "toplevel,__metadata"}},
                        "goog:loggingPrefs": {"performance": "ALL"}}
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                begun = self.post("", {"capabilities": {"alwaysMatch": capabilities}})
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        self.address += f"/{begun['sessionId']}"
        return self

    def __exit__(self, *_):
        try:
            self.request("", None, "DELETE")
        finally:
            self.process.kill()
            self.process.wait()

    def request(self, path, body, method):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"content-type": "application/json"}, method=method)
        try:
            return json.load(urllib.request.urlopen(request, timeout=WAIT_SECONDS))["value"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{path}: {json.load(error)['value']['message']}") from None
        except urllib.error.URLError as error:
            raise error.reason from None

    def post(self, path, body):
        return self.request(path, body, "POST")

    def open(self, address):
        self.post("/url", {"url": address})

    def reload(self):
        self.post("/refresh", {})

    def script(self, text, *arguments):
        return self.post("/execute/sync", {"script": text, "args": list(arguments)})

    def value(self, expression):
        return self.script(f"return {expression};")

    def wait(self, condition):
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.value(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise SystemExit(f"never held: {condition}\nthe page says:\n{self.value('document.body.innerText')}")
            time.sleep(0.5)

    def pick(self, selector, files):
        [element] = self.post("/element", {"using": "css selector", "value": selector}).values()
        self.post(f"/element/{element}/value", {"text": "\n".join(map(str, files))})

    def click(self, selector):
        self.script("document.querySelector(arguments[0]).click()", selector)

    def command(self, name, **parameters):
        return self.post("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def log(self, kind):
        return self.post("/se/log", {"type": kind})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
