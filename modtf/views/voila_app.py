"""Voila as the explorer's page needs it. Importing this takes as long as importing Voila."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_core.utils import run_sync
from tornado.ioloop import IOLoop
from tornado.web import HTTPError
from voila.app import Voila
from voila.request_info_handler import RequestInfoSocketHandler
from voila.tornado.handler import TornadoVoilaHandler

#: Has templates that take the place of Voila's of the same name.
TEMPLATES = Path(__file__).parent
#: The next kernel starts so long after a page was sent: the browser needs the processor first.
REST_SECONDS = 5.0


class PageHandler(TornadoVoilaHandler):
    """The page. Sets the cookie that its requests are then checked for (XSRF), and has the next kernel started."""

    async def get(self, path: str | None = None) -> None:
        _ = self.xsrf_token  # reading it sets the cookie; Voila's prelaunch hook could, but excludes preheating
        try:
            await super().get(path)
        finally:
            if self.current_user:  # a request that was refused starts no kernel
                refill = partial(self.settings["refill"], delay=0, notebook_name=self.notebook_path)
                IOLoop.current().call_later(REST_SECONDS, refill)


class PageApp(Voila):
    """Serves one notebook, with our templates and a kernel that has run it beforehand.

    Voila hands a preheated kernel to one visitor, and starts the next one a second later, when the first may still
    compute. Here that waits until the visitor has the page; whoever comes in between gets a kernel that starts then.
    """

    def setup_template_dirs(self) -> None:
        super().setup_template_dirs()
        self.template_paths.insert(0, str(TEMPLATES))

    def init_settings(self) -> dict[str, Any]:
        settings = super().init_settings()
        manager: Any = self.kernel_manager
        refill, manager.fill_if_needed = manager.fill_if_needed, lambda **given: None
        return {**settings, "refill": refill}

    def init_handlers(self) -> list[Any]:
        # Preheating adds a handler that tells kernels who opened their page, with the token, and asks for none.
        handlers = [handler for handler in super().init_handlers() if handler[1] is not RequestInfoSocketHandler]
        return [
            (path, PageHandler if handler is TornadoVoilaHandler else handler, *rest)
            for path, handler, *rest in handlers
        ]

    def stop(self) -> None:
        # A kernel without a page may be in the middle of its imports, and complains if it is asked to stop.
        for kernel in self.kernel_manager.list_kernel_ids():
            with suppress(HTTPError):  # a page that was closed just now has its kernel stopped meanwhile
                opened = self.kernel_manager.kernel_model(kernel)["connections"]
                run_sync(self.kernel_manager.shutdown_kernel)(kernel, now=not opened)
        with suppress(HTTPError):
            super().stop()
