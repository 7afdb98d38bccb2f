"""Parts that run one after another, each with a limit, within a limit of all of them; none stops the others."""

import json
import os
import signal
import subprocess
import time

TAIL = 3000  # characters of an output that are kept


class Skipped(Exception):
    """What the part needs is not there; with the reason."""


class Failed(Exception):
    """With the reason, and what was found nevertheless."""

    def __init__(self, reason, results=None):
        super().__init__(reason)
        self.results = results or {}


class Runner:
    """Writes `path` after every part, so that what was found is there whatever comes after."""

    def __init__(self, path, seconds, commit):
        self.path, self.seconds, self.commit = path, seconds, commit
        self.started = time.monotonic()
        self.parts, self.comparison = [], []

    def left(self):
        return self.seconds - (time.monotonic() - self.started)

    def part(self, name, limit, work, unless=None):
        """`work(seconds)` gives results; `unless` is a reason to skip it."""
        started = time.monotonic()
        limit = min(limit, self.left())
        own = {"name": name, "limit_seconds": round(max(limit, 0.0), 1)}
        try:
            if unless:
                raise Skipped(unless)
            if limit <= 1:
                raise Skipped(f"the {self.seconds} s of all parts are over")
            own |= {"status": "passed", "results": work(limit)}
        except Skipped as skipped:
            own |= {"status": "skipped", "reason": str(skipped)}
        except Failed as failed:
            own |= {"status": "failed", "reason": str(failed), "results": failed.results}
        except Exception as error:  # A defect of the check itself must not cost the other parts.
            own |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        own["seconds"] = round(time.monotonic() - started, 1)
        self.parts.append(own)
        self.write()
        print(f"{own['status']:8} {name:12} {own['seconds']:6.1f} s  {own.get('reason', '').splitlines()[0] if own.get('reason') else ''}", flush=True)
        return own

    def write(self):
        count = lambda status: sum(part["status"] == status for part in self.parts)
        report = {
            "commit": self.commit,
            "seconds": round(time.monotonic() - self.started, 1),
            "limit_seconds": self.seconds,
            **{status: count(status) for status in ("passed", "failed", "skipped")},
            "comparison": self.comparison,
            "parts": self.parts,
        }
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(report, indent=1) + "\n")
        unfinished.replace(self.path)


def run(words, seconds, environment=None):
    """Runs a program and all that it starts for `seconds` at most: exit status (None where its time was over), standard output, errors."""
    process = subprocess.Popen(
        list(map(str, words)), env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=seconds)
        return process.returncode, out, errors
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
        return None, out, errors


def told(status, out, errors):
    """What went wrong in a program: a line, and the end of what it said."""
    said = (errors.strip() or out.strip())[-TAIL:]
    reason = "its time is over" if status is None else f"exit status {status}"
    if last := said.splitlines()[-1:]:
        reason += f": {last[0][:200]}"
    return reason, {"output": said}
