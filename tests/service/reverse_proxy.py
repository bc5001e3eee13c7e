"""A small reverse proxy that publishes a service under a path of another address."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

NOT_FORWARDED = {"connection", "transfer-encoding", "date"}


@contextmanager
def published(
    url: str, root_path: str, *, strips: bool, headers: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address without a slash at its end, under which a proxy publishes the service at `url`.

    If `strips`, the proxy removes the root path from the addresses that it forwards. It adds
    `headers` to the requests. Addresses outside of the root path are not forwarded.
    """
    with httpx.Client(base_url=url, timeout=60) as client:

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                if self.path != root_path and not self.path.startswith(f"{root_path}/"):
                    return self.send_error(404, "outside of the root path")
                path = (self.path.removeprefix(root_path) or "/") if strips else self.path
                own = {name: value for name, value in self.headers.items() if name != "Connection"}
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = client.request(
                    self.command, path, headers={**own, **(headers or {})}, content=body
                )
                self.send_response_only(answer.status_code)
                for name, value in answer.headers.items():
                    if name not in NOT_FORWARDED:
                        self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.content)

            do_GET = do_HEAD = do_POST = forward

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}{root_path}"
            finally:
                server.shutdown()
                thread.join()
