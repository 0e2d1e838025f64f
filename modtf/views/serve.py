"""The explorer as a page of its own: Voila on 127.0.0.1, behind a token.

Voila alone, not Jupyter Server with Voila as a guest: that would also offer files and terminals to whoever gets in.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
import threading
import time
import webbrowser
from importlib import import_module
from pathlib import Path
from typing import Any

from modtf.errors import ModtfError

PAGE = Path(__file__).with_name("page.ipynb")
HOST = "127.0.0.1"
DEFAULT_PORT = 8866

#: Tells the page's kernel where to save checkpoints.
SAVE_FOLDER = "MODTF_SAVE_FOLDER"

#: The page runs inline scripts of its own (Voila, plotly) and fetches nothing from elsewhere: it needs no network,
#: and what is typed goes nowhere.
_CONTENT_POLICY = "; ".join(
    (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:",
        f"connect-src 'self' ws://{HOST}:* data: blob:",
        "frame-ancestors 'self'",
        "object-src 'none'",
        "base-uri 'self'",
    )
)


def serve(port: int = 0, open_browser: bool = True) -> None:
    """Serve the explorer until Ctrl-C or SIGTERM; prints its address with the token, and opens it in a browser.

    ``port`` 0 means the usual one (8866); where the port is taken, a free one is used, and a line says so. The token is
    ``JUPYTER_TOKEN`` where that is set, and a new one each time otherwise; no request is answered without it. Raises
    :class:`ModtfError` where Voila is not installed or the port does not exist.
    """
    if not 0 <= port <= 65535:
        raise ModtfError(f"port {port} does not exist; give one from 1024 to 65535, or 0 for the usual one")
    try:
        voila: Any = import_module("voila.app")
    except ImportError as error:
        raise ModtfError(
            f"the page needs Voila, which is not installed here ({error}): pip install 'modtf[demo]'"
        ) from error
    chosen = free_port(port or DEFAULT_PORT)
    if port and chosen != port:
        print(f"Port {port} is taken; using {chosen}.", file=sys.stderr)
    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_urlsafe(32)
    url = f"http://{HOST}:{chosen}/?token={token}"

    os.environ[SAVE_FOLDER] = os.getcwd()  # checkpoints go where the command was given, not where the page lies
    app = voila.Voila()
    app.initialize([str(PAGE), "--no-browser"])
    app.ip, app.port, app.port_retries, app.token = HOST, chosen, 0, token
    app.log_level = "ERROR"
    _close(app)
    # A shell that starts the server in the background ignores Ctrl-C for it, so SIGTERM does what Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_announce, args=(chosen, url, open_browser), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        app.start()  # returns when all kernels are shut down
    print("Stopped.", flush=True)


def free_port(wanted: int) -> int:
    """``wanted``, or any free port of 127.0.0.1 where that is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was closed a moment ago is free
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ModtfError(f"no port of {HOST} is free; close some programs and try again")


def _close(app: Any) -> None:
    """Set what no configuration file of the user's may open."""
    app.voila_configuration.file_allowlist = []  # the page is all there is
    app.voila_configuration.show_tracebacks = True  # on one's own page an error should say what it is
    app.config.KernelSpecManager.kernel_dirs = []  # the kernel is this Python, whatever others are installed
    app.config.MappingKernelManager.cull_idle_timeout = 3600  # of a page that could not say goodbye, its browser killed
    if os.name != "nt":
        app.config.KernelManager.transport = "ipc"  # no port between server and kernel
    # Voila leaves the protection against forged requests off. Its page supports it, but needs to be given the cookie.
    app.voila_configuration.prelaunch_hook = lambda handler, notebook, cwd: handler.xsrf_token and None
    app.tornado_settings = {
        "xsrf_cookies": True,
        "ws_ping_interval": 0,  # on one machine, no connection is lost unnoticed
        "allow_remote_access": False,  # answer to local host names only, against DNS rebinding
        "headers": {"Content-Security-Policy": _CONTENT_POLICY, "Referrer-Policy": "no-referrer"},
    }


def _announce(port: int, url: str, open_browser: bool) -> None:
    """Say where the page is once it answers."""
    for _ in range(600):
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        return
    print(f"modtf is at {url}\nCtrl-C stops it.", flush=True)
    if open_browser:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(url)
