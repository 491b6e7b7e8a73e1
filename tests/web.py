"""A web server on this machine for tests, which answers as a function tells it."""

import contextlib
import http.server
import threading


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
