"""A small web server on localhost, for tests of downloads: ranges, cuts, refusals, and a record of what was asked."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server does.

    Args:
        files: path ("/a.zip") -> content.
        etag: sent with every file; None: none is sent.
        ranges: False: a range is ignored.
        wrong_range: answer a range with one that begins elsewhere.
        cuts: how many bytes to send of each of the next answers before the connection is cut.
        statuses: HTTP statuses of the next answers.
        silent_s: seconds to wait before every answer.
        lengths: False: say no length.
        asked: (path, Range header) of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    ranges: bool = True
    wrong_range: bool = False
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    silent_s: float = 0.0
    lengths: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving() -> Iterator[Site]:
    """A site, served until the block ends."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            _answer(self, site)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that has gone is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(handler: BaseHTTPRequestHandler, site: Site) -> None:
    asked = handler.headers.get("Range")
    site.asked.append((handler.path, asked))
    time.sleep(site.silent_s)
    content = site.files.get(handler.path)
    status = site.statuses.pop(0) if site.statuses else (404 if content is None else 200)
    if content is None or status != 200:
        handler.send_error(status)
        return
    start = 0
    valid = handler.headers.get("If-Range") in (None, site.etag)
    if asked and site.ranges and valid:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            handler.send_error(416)
            return
        status = 206
    handler.send_response(status)
    if status == 206:
        first = start + 1 if site.wrong_range else start
        handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
    if site.etag:
        handler.send_header("ETag", site.etag)
    if site.lengths:
        handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    most = site.cuts.pop(0) if site.cuts else len(content)
    handler.wfile.write(content[start : start + most])
