"""Press a server with wrk: the same upload again and again, on a number of connections."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

BOUNDARY = "part"
_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=part"
local file = io.open("%(body)s", "rb")
wrk.body = file:read("*a")
file:close()

counts, accepted_ms = {}, {}
%(pause)s

function response(status, headers, body)
  counts[status] = (counts[status] or 0) + 1
  if status == 200 then
    local header = headers["server-timing"] or headers["Server-Timing"] or ""
    local total = string.match(header, "total;dur=([%%d.]+)")
    if total then table.insert(accepted_ms, tonumber(total)) end
  end
end

local thread_of
function setup(thread) thread_of = thread end

function done(summary, latency, requests)
  local counts, accepted_ms = thread_of:get("counts"), thread_of:get("accepted_ms")
  table.sort(accepted_ms)
  local parts = {}
  for status, count in pairs(counts) do
    table.insert(parts, string.format('"%%d": %%d', status, count))
  end
  local p99 = accepted_ms[math.max(1, math.ceil(0.99 * #accepted_ms))] or 0
  io.write(string.format(
    '\\nRESULT {"seconds": %%f, "p50_ms": %%f, "p99_ms": %%f, "accepted_p99_ms": %%f,'
    .. ' "num_errors": %%d, "statuses": {%%s}}\\n',
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, p99,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    table.concat(parts, ", ")))
end
"""


@dataclass(frozen=True)
class Load:
    """The result of pressing a server."""

    images_per_s: float
    """Images that were answered with status 200, per second."""
    p50_ms: float
    """Median time of all answers, refusals included."""
    p99_ms: float
    accepted_p99_ms: float
    """For answers with the header Server-Timing: time in the server, without refusals."""
    num_errors: int
    """Connections that failed, and answers that took longer than a minute."""
    statuses: dict[str, int]


def press(
    address: str, image: Path, *, clients: int, seconds: float, pause_ms: int = 0, field: str = ""
) -> Load:
    """Send an image on `clients` connections for some seconds.

    Each connection waits `pause_ms` before its next request. `field` is the name of the form field.
    Raises RuntimeError if wrk fails.
    """
    with TemporaryDirectory() as directory:
        body, script = Path(directory, "body"), Path(directory, "script.lua")
        body.write_bytes(upload_form(image.read_bytes(), field or "image"))
        pause = f"function delay() return {pause_ms} end" if pause_ms else ""
        script.write_text(_SCRIPT % {"body": body, "pause": pause})
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:.0f}s", "--timeout", "60s"]
        done = subprocess.run(
            [*command, "-s", str(script), address], capture_output=True, text=True, check=False
        )
    if done.returncode or "RESULT " not in done.stdout:
        raise RuntimeError(f"wrk failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """The result in the output of wrk."""
    result = json.loads(output.rpartition("RESULT ")[2])
    answered = result["statuses"].get("200", 0)
    return Load(
        images_per_s=round(answered / result["seconds"], 1),
        p50_ms=round(result["p50_ms"], 1),
        p99_ms=round(result["p99_ms"], 1),
        accepted_p99_ms=round(result["accepted_p99_ms"], 1),
        num_errors=result["num_errors"],
        statuses=result["statuses"],
    )


def upload_form(content: bytes, field: str) -> bytes:
    """The body of an upload: one file in a form whose boundary is BOUNDARY."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="photo.jpg"\r\n'
    )
    end = f"\r\n--{BOUNDARY}--\r\n"
    return head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + content + end.encode()
