"""A web server on this machine for tests, which answers as a function tells it."""

import collections
import contextlib
import http.server
import threading
import time
import urllib.parse


@contextlib.contextmanager
def serve(answer):
    """Serve on a free port of 127.0.0.1 and give the address; `answer(handler)` answers GET and HEAD."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Site:
    """A directory served with ranges, and what was asked for.

    `delay` is the seconds before each answer; `answers` by path are functions that answer instead, given the handler
    and how often the path was asked for.
    """

    def __init__(self, root):
        self.root, self.delay, self.answers = root, 0.0, {}
        self.requests = collections.Counter()
        self.most_at_once, self._at_once, self._lock = 0, 0, threading.Lock()

    def answer(self, handler):
        path = urllib.parse.unquote(urllib.parse.urlsplit(handler.path).path)
        with self._lock:
            if handler.command == "GET":
                self.requests[path] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.delay)
        with self._lock:
            self._at_once -= 1
        special = next((self.answers[key] for key in (path, "*") if key in self.answers), None)
        if special is None or special(handler, self.requests[path]) == "as usual":
            send_file(handler, self.root / path.lstrip("/"))


def send_file(handler, path):
    """Answer with a file, or the part of it that is asked for."""
    if not path.is_file():
        return send(handler, b"", 404)
    data, asked = path.read_bytes(), handler.headers.get("Range")
    about = {"ETag": f'"{path.stat().st_mtime_ns:x}"'}
    if not asked:
        return send(handler, data, 200, about)
    start, _, stop = asked.removeprefix("bytes=").partition("-")
    first = int(start) if start else max(0, len(data) - int(stop))
    last = min(int(stop) if start and stop else len(data) - 1, len(data) - 1)
    return send(handler, data[first : last + 1], 206, {**about, "Content-Range": f"bytes {first}-{last}/{len(data)}"})


def send(handler, data, status=200, headers=()):
    """Answer with some bytes."""
    handler.send_response(status)
    for name, value in {**dict(headers), "Content-Length": str(len(data))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)


@contextlib.contextmanager
def serve_directory(root):
    """Serve a directory and give the address and its `Site`."""
    site = Site(root)
    with serve(site.answer) as address:
        yield address, site
