"""One piece of the explorer's work, abandoned as soon as something newer is requested."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from modtf.evaluation import Latency
from modtf.mapping import Assembly
from modtf.modular import Written
from modtf.views.state import Job, Request, Side

if TYPE_CHECKING:
    from modtf.views.controller import Controller

#: One model runs at a time in this process: two at once would distort each other's times, and tokenizers are not
#: thread-safe.
MACHINE = threading.Lock()


class Stale(Exception):
    """Something newer was requested."""


class Run:
    """The work on one request. Its methods raise :class:`Stale` once something newer is requested."""

    def __init__(self, controller: Controller, request: Request, generation: int) -> None:
        self.controller, self.request, self.generation = controller, request, generation
        self.modular, self.task = controller.modular, controller.task

    @property
    def stale(self) -> bool:
        return self.generation != self.controller.state.generation

    def answer(self, **fields: Any) -> None:
        """Publish fields of the state."""
        with self.controller.changed:
            if self.stale:
                raise Stale
            self.controller.publish(replace(self.controller.state, **fields))

    def progress(self, **fields: Any) -> None:
        """Publish fields of the running job."""
        self.answer(job=replace(self.controller.state.job or Job(""), **fields))

    def pause(self, seconds: float) -> None:
        """Wait, but stop waiting once this work is stale."""
        with self.controller.changed:
            self.controller.changed.wait_for(lambda: self.stale, seconds)

    @contextmanager
    def machine(self) -> Iterator[None]:
        """Hold :data:`MACHINE`, so that nothing else runs meanwhile."""
        with MACHINE:
            if self.stale:
                raise Stale
            yield

    def write(
        self,
        assembly: Assembly,
        full: str | None = None,
        source: str | None = None,
        each: Callable[[torch.Tensor], None] = lambda tokens: None,
        engine: str | None = None,
    ) -> Side:
        """Write one greedy text, timed without the model's first run, and judge it.

        ``full`` is the full model's text to compare with (default: the new text itself), ``source`` the input (default:
        the request's), as is the ``engine``. ``each`` is called with the tokens of each decoding step, of shape ``(1,)``.
        """
        source = self.request.source if source is None else source
        engine = self.request.engine if engine is None else engine
        with self.machine():
            model = self.modular.assembled(assembly)
            warm = self.controller.warm.setdefault(model, set())
            if engine not in warm:  # a compiled one is compiled first
                self.modular.write([source], assembly, max_new_tokens=2, engine=engine or None)
                warm.add(engine)
        written = self.write_all([source], assembly, each, engine)
        (text,), tokens = written.texts, written.tokens[0].tolist()
        ends = model.generation_config.eos_token_id
        finished = bool(tokens) and tokens[-1] in (ends if isinstance(ends, list) else [ends])
        return Side(
            assembly,
            self.controller.size(assembly),
            text,
            self.task.judge(source, text, text if full is None else full),
            Latency((1000 * written.seconds,), max(1, len(tokens))),
            written.engine,
            cut=not finished and len(tokens) >= self.modular.longest,
        )

    def write_all(
        self,
        sources: Sequence[str],
        assembly: Assembly,
        each: Callable[[torch.Tensor], None] = lambda tokens: None,
        engine: str = "",
        draft: Assembly | None = None,
    ) -> Written:
        """Write greedy texts as one batch; ``each`` gets the tokens of each decoding step, of shape ``(batch,)``."""

        def watch(tokens: torch.Tensor) -> bool:
            each(tokens)
            return self.stale

        with self.machine():
            written = self.modular.write(list(sources), assembly, engine=engine or None, watch=watch, draft=draft)
            if self.stale:
                raise Stale
            return written
