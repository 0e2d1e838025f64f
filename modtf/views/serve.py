"""The explorer as a page of its own: Voila on 127.0.0.1, behind a token.

Voila runs alone, not as an extension of Jupyter Server, which would also expose files and terminals.
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
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from modtf.errors import ModtfError

PAGE = Path(__file__).with_name("page.ipynb")
HOST = "127.0.0.1"
DEFAULT_PORT = 8866

#: Voila's imports end in one that builds a grammar of international addresses (IRIs), for checks that nothing here makes,
#: and takes longer than all others together.
_SLOW_GRAMMAR = "rfc3987_syntax"

#: What the page needs of JupyterLab's extensions; others that are installed would only be waited for.
_EXTENSIONS = [
    "@jupyter-widgets/jupyterlab-manager",
    "@voila-dashboards/widgets-manager7",
    "@voila-dashboards/widgets-manager8",
]

#: Tell the page's kernel where to save checkpoints, and whether to hide the scores.
SAVE_FOLDER, QUIET = "MODTF_SAVE_FOLDER", "MODTF_QUIET"

#: The page runs its own inline scripts (Voila, plotly) and loads nothing from other servers: it needs no network, and
#: input typed into it stays on this machine.
_CONTENT_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    f"connect-src 'self' ws://{HOST}:* data: blob:; "
    "frame-ancestors 'self'; object-src 'none'; base-uri 'self'"
)


def serve(port: int = 0, open_browser: bool = True, quiet: bool = False) -> None:
    """Serve the explorer until Ctrl-C or SIGTERM. Prints its address with the token, and opens it in a browser.

    ``port`` 0 means the default, 8866. If the port is taken, another one is used and printed. The token, which every
    request needs, is ``JUPYTER_TOKEN`` if that is set, and otherwise a new random one. With ``quiet`` the page opens
    without scores. Raises :class:`ModtfError` if Voila is not installed, the port number is invalid, or no port is free.
    """
    if not 0 <= port <= 65535:
        raise ModtfError(f"{port} is not a valid port; give one from 1024 to 65535, or 0 for the default")
    try:
        with _without(_SLOW_GRAMMAR):
            import_module("voila.app")
    except ImportError as error:
        raise ModtfError(f"the page needs Voila, which is missing here ({error}): pip install 'modtf[demo]'") from error
    from modtf.views.voila_app import PageApp

    chosen = free_port(port or DEFAULT_PORT)
    if port and chosen != port:
        print(f"Port {port} is taken; using {chosen}.", file=sys.stderr)
    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_urlsafe(32)
    url = f"http://{HOST}:{chosen}/?token={token}"

    os.environ[SAVE_FOLDER] = os.getcwd()  # save checkpoints where the command was run, not beside the page
    os.environ[QUIET] = "yes" if quiet else ""
    app = PageApp()
    app.initialize([str(PAGE), "--no-browser"])
    app.ip, app.port, app.port_retries, app.token = HOST, chosen, 0, token
    app.log_level = "ERROR"
    _lock_down(app)
    _stop_on_signals(app)
    threading.Thread(target=_announce, args=(chosen, url, open_browser), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        app.start()  # returns when all kernels are shut down
    print("Stopped.", flush=True)


def _stop_on_signals(app: Any) -> None:
    """Let SIGTERM and Ctrl-C (SIGINT) end the server's loop; a second one interrupts whatever runs.

    An interrupt in the middle of an import may be caught, and yet Python then ends as if it had not been.
    """

    def stop(number: int, frame: Any) -> None:
        signal.signal(number, signal.default_int_handler)
        loop = getattr(app, "ioloop", None)
        if loop is None:  # the server does not listen yet
            raise KeyboardInterrupt
        loop.add_callback_from_signal(loop.stop)

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background processes ignore it
        signal.signal(signal.SIGINT, stop)


def free_port(wanted: int) -> int:
    """``wanted``, or any free port of 127.0.0.1 if that one is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed counts as free
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ModtfError(f"no port of {HOST} is free; close some programs and try again")


def _lock_down(app: Any) -> None:
    """Fix the settings that no configuration file of the user's may loosen."""
    app.voila_configuration.file_allowlist = []  # serve the page and no other file
    app.voila_configuration.extension_allowlist = _EXTENSIONS
    app.voila_configuration.show_tracebacks = True  # the page is local, so errors may be shown in full
    app.config.KernelSpecManager.kernel_dirs = []  # run this Python, whatever other kernels are installed
    app.config.MappingKernelManager.cull_idle_timeout = 3600  # seconds; a killed browser leaves its kernel behind
    if os.name != "nt":
        app.config.KernelManager.transport = "ipc"  # no open port between server and kernel
    # One kernel more than there are pages has the explorer ready for the next visitor. No two pages share a kernel.
    app.voila_configuration.preheat_kernel, app.voila_configuration.default_pool_size = True, 1
    app.voila_configuration.prelaunch_hook, app.voila_configuration.progressive_rendering = None, False  # exclude it
    app.tornado_settings = {
        "xsrf_cookies": True,  # Voila leaves protection against forged requests off
        "ws_ping_interval": 0,  # no pings: on one machine, a lost connection is noticed anyway
        "allow_remote_access": False,  # answer to local host names only, against DNS rebinding
        "headers": {"Content-Security-Policy": _CONTENT_POLICY, "Referrer-Policy": "no-referrer"},
    }


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Let imports do without a module that they can do without."""
    blocked = module not in sys.modules
    if blocked:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if blocked:
            del sys.modules[module]


def _announce(port: int, url: str, open_browser: bool) -> None:
    """Print the address once the server answers, for at most a minute."""
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
