"""Training batches of examples, each a pure function of (seed, step).

Two things make them cheap on a CPU: a source is encoded once for several of its texts (``source_index`` is the row of
the source that a text belongs to; see :func:`modtf.training.batches.encode_sources_once`), and texts of similar length
share a batch.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from modtf.errors import ModtfError
from modtf.tasks.examples import Example
from modtf.tasks.task import Task

#: The most texts of one source that stay together, so that a batch holds many different sources.
_TEXTS_PER_SOURCE = 4
#: Batches are cut from pools of this many batches, each sorted by length: little padding, yet a random mixture.
_BATCHES_PER_POOL = 24
#: Lengths are padded to a multiple of the first, numbers of sources to one of the second. Fewer shapes save time: a CPU
#: prepares its kernels anew for each of them.
_LENGTHS, _SOURCES = 4, 16

#: The index of an example and the indices of some of its texts.
Chunk = tuple[int, tuple[int, ...]]

#: The token ids of sources and of texts by tokenizer. Trainings share them, and a GPU does not wait for the tokenizer,
#: which takes tens of milliseconds for a batch.
_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]
_KNOWN = WeakKeyDictionary()


class TaskBatches(Dataset):
    """``steps`` batches of ``batch_size`` texts (the last batch of a pool may be smaller).

    Item ``step`` holds integer tensors: ``{"input_ids": (sources, source), "attention_mask": (sources, source),
    "source_index": (texts,), "labels": (texts, target)}``; labels are padded with -100. How an example is varied
    (:attr:`Task.vary`) depends on (seed, step) only, so that a resumed training sees the same batches. Raises
    :class:`ModtfError` for a batch size below 1 and for no examples.
    """

    def __init__(
        self,
        task: Task,
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        steps: int,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        if batch_size < 1 or not examples:
            raise ModtfError(
                f"cannot make batches of {batch_size} texts from {len(examples)} examples; give at least 1 of each"
            )
        self.task, self.examples, self.tokenizer = task, examples, tokenizer
        self.steps, self.batch_size, self.seed = steps, batch_size, seed

    def __len__(self) -> int:
        return self.steps

    @cached_property
    def _plan(self) -> list[list[Chunk]]:
        """The chunks of each step."""
        return list(itertools.islice(self._batches_of_all_epochs(), self.steps))

    @cached_property
    def lengths(self) -> list[tuple[int, list[int]]]:
        """For each example, the number of tokens in its source and in each of its texts."""
        sources = self._tokens([example.source for example in self.examples])
        texts = iter(self._tokens([text for example in self.examples for text in example.references], target=True))
        return [
            (len(source), [len(next(texts)) for _ in example.references])
            for source, example in zip(sources, self.examples, strict=True)
        ]

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """For each step, the tokens of its sources and those of its texts, with padding."""
        shapes = []
        for chunks in self._plan:
            sources = [self.lengths[i][0] for i, _ in chunks]
            texts = [self.lengths[i][1][t] for i, of_source in chunks for t in of_source]
            rows = self._rows(len(sources)), len(texts)
            shapes.append((rows[0] * _multiple(max(sources), _LENGTHS), rows[1] * _multiple(max(texts), _LENGTHS)))
        return shapes

    def _rows(self, sources: int) -> int:
        """The rows for so many sources: of a small batch, no more than it can have."""
        return _multiple(sources, min(_SOURCES, self.batch_size))

    def _tokens(self, texts: Sequence[str], target: bool = False, keep: bool = True) -> list[np.ndarray]:
        """The token ids of each text; ``keep`` those of new ones for the next time."""
        known = _KNOWN.setdefault(self.tokenizer, ({}, {}))[target]
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if not new:
            return [known[text] for text in texts]
        ids = self.tokenizer(**{"text_target" if target else "text": new})["input_ids"]
        found = {text: np.array(of_text, np.int32) for text, of_text in zip(new, ids, strict=True)}
        if keep:
            known.update(found)
        return [found[text] if text in found else known[text] for text in texts]

    def _width(self, chunk: Chunk) -> tuple[int, int]:
        """How wide a chunk makes its batch: its longest text (in multiples of padding), then its source."""
        i, members = chunk
        source, texts = self.lengths[i]
        return math.ceil(max(texts[t] for t in members) / _LENGTHS), source

    def _batches_of_all_epochs(self) -> Iterator[list[Chunk]]:
        for epoch in itertools.count():
            rng = random.Random(f"{self.seed} epoch {epoch}")
            chunks = []
            for i, (_, texts) in enumerate(self.lengths):
                by_length = sorted(range(len(texts)), key=texts.__getitem__)
                for k in range(0, len(texts), _TEXTS_PER_SOURCE):
                    chunks.append((i, tuple(by_length[k : k + _TEXTS_PER_SOURCE])))
            rng.shuffle(chunks)
            batches: list[list[Chunk]] = []
            for pool in _cut(chunks, self.batch_size * _BATCHES_PER_POOL):
                pool.sort(key=self._width)
                batches += _cut(pool, self.batch_size)
            rng.shuffle(batches)
            yield from batches

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"{self.seed} step {step}")
        sources: list[str] = []
        targets: list[str] = []
        source_index: list[int] = []
        for i, texts in self._plan[step]:
            example = self.examples[i]
            source, references = self.task.vary(example.source, tuple(example.references[t] for t in texts), rng)
            source_index += [len(sources)] * len(references)
            sources.append(source)
            targets += references
        # Fill up with sources that no text refers to.
        sources += sources[-1:] * (self._rows(len(sources)) - len(sources))
        # Varied sources are new ones at each step.
        ids, mask = _padded(self._tokens(sources, keep=False), self.tokenizer.pad_token_id)
        labels, _ = _padded(self._tokens(targets, target=True, keep=False), -100)
        return {"input_ids": ids, "attention_mask": mask, "source_index": torch.tensor(source_index), "labels": labels}


def _padded(rows: Sequence[np.ndarray], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows, filled up with a value to a common length, and a mask that is 1 where they are not; (rows, length)."""
    length = _multiple(max(map(len, rows)), _LENGTHS)
    ids = np.full((len(rows), length), value, np.int64)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = row
    mask = np.arange(length) < np.array([[len(row)] for row in rows])
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def _multiple(number: int, of: int) -> int:
    """The next multiple."""
    return math.ceil(number / of) * of


def _cut(chunks: Sequence[Chunk], texts: int) -> list[list[Chunk]]:
    """Cut into runs of exactly ``texts`` texts, for fewer shapes; the last run may be smaller.

    A chunk that does not fit into what is left of a run is cut in two.
    """
    runs: list[list[Chunk]] = [[]]
    free = texts
    for i, members in chunks:
        while members:
            if free == 0:
                runs.append([])
                free = texts
            taken = members[:free]
            runs[-1].append((i, taken))
            members = members[len(taken) :]
            free -= len(taken)
    return runs
