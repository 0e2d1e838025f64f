"""CTranslate2 in the loop's place: each assembly is compiled when it is first used, and kept on disk.

CTranslate2 computes in C++ what the loop calls from Python, in float32 or with weights of 8 bits. In float32 it writes
the loop's texts, up to rounding.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from modtf.architectures import scale_of_logits
from modtf.decoding import Choice, Watch, check_length, not_followed
from modtf.errors import ModtfError
from modtf.saving import checksum_of, digest_of, no_progress_bars, save_tokenizer

CTRANSLATE2, CTRANSLATE2_INT8 = "ctranslate2", "ctranslate2-int8"
#: The precision of each engine's weights.
PRECISIONS = {CTRANSLATE2: "float32", CTRANSLATE2_INT8: "int8"}
#: Model types that are known to be converted rightly.
FAMILIES = ("t5", "mt5", "bart", "mbart", "marian", "m2m_100", "pegasus")
#: Where compiled assemblies are kept, and how many megabytes of them; the ones not used for longest go first.
FOLDER, MEGABYTES = "MODTF_CACHE", "MODTF_CACHE_MB"
_MEGABYTES = 1000
_CPU = torch.device("cpu")
#: A file beside the compiled ones.
_CHECKSUMS = "checksums.json"
_KNOWN_MODULES = ("torch.nn.modules.", "transformers.models.", "transformers.activations")
#: Settings that CTranslate2 follows and the loop does not.
_FOLLOWED = {"bad_words_ids", "min_length", "min_new_tokens", "no_repeat_ngram_size", "repetition_penalty"}


class Compiled:
    """A compiled assembly, loaded."""

    def __init__(
        self, folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase, device: torch.device = _CPU
    ) -> None:
        """``config`` is the configuration of generation."""
        import ctranslate2

        self.translator = ctranslate2.Translator(
            str(folder),
            device="cuda" if device.type == "cuda" else "cpu",
            device_index=device.index or 0,
            intra_threads=torch.get_num_threads(),
        )
        self.config, self.tokenizer = config, tokenizer

    def write(self, input_ids: Tensor, attention_mask: Tensor, length: int, watch: Watch | None = None) -> Tensor:
        """Greedy tokens (batch, at most ``length``), as :func:`modtf.decoding.decode` but without the start token.

        ``input_ids`` and ``attention_mask`` are (batch, source); only one text can be watched.
        """
        check_length(length)
        if watch is not None and len(input_ids) > 1:
            raise ModtfError("several texts cannot be watched with CTranslate2, which writes them unevenly; give one")
        tokenizer, options = self.tokenizer, options_of(self.config, self.tokenizer)
        choice = Choice(self.config, length)
        sources = [
            tokenizer.convert_ids_to_tokens(ids[mask.bool()].tolist())
            for ids, mask in zip(input_ids, attention_mask, strict=True)
        ]
        prefix, watched = options["target_prefix"], [] if watch is None else [watch]
        results = self.translator.translate_batch(
            sources,
            **options | {"target_prefix": prefix and [prefix] * len(sources)},
            beam_size=1,
            max_decoding_length=length,
            max_input_length=0,  # no limit: it would cut a long source without a word
            end_token=choice.ends or None,
            return_end_token=True,
            callback=(lambda step: bool(watched[0](input_ids.new_tensor([step.token_id])))) if watched else None,
        )
        # A thread of the translator may be the last to hold the callback. If that held the translator, it would be
        # destroyed in its own thread, which ends the process.
        watched.clear()
        texts = [tokenizer.convert_tokens_to_ids(result.hypotheses[0])[:length] for result in results]
        forced = self.config.forced_eos_token_id
        for text in texts:
            if forced is not None and len(text) == length:
                text[-1] = forced  # where a text is cut off, as `generate` does it
        longest = max(map(len, texts))
        return input_ids.new_tensor([text + [choice.pad] * (longest - len(text)) for text in texts])


def load_compiled(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, engine: str) -> Compiled:
    """``model`` for this engine, from the folder of compiled ones, or compiled now.

    Raises :class:`ModtfError` where CTranslate2 is missing, or where it cannot take the model.
    """
    check_installed()
    family = model.config.model_type
    if family not in FAMILIES:
        raise ModtfError(f"CTranslate2 takes {', '.join(FAMILIES)}, not {family}; leave the engine open")
    cache, limit = _cache(), _limit()
    place = cache / _name_of(model, tokenizer, PRECISIONS[engine])
    with FileLock(cache / ".lock"):
        if place.is_dir():
            with suppress(OSError, RuntimeError, ValueError):  # damaged: it is made anew
                if json.loads((place / _CHECKSUMS).read_text()) != _checksums(place):
                    raise ValueError("another file than was written")
                loaded = Compiled(place, model.generation_config, tokenizer, model.device)
                os.utime(place)  # used now
                return loaded
            shutil.rmtree(place)
        try:
            with tempfile.TemporaryDirectory(prefix=".compiling-", dir=cache) as temporary, no_progress_bars():
                complete = Path(temporary) / "complete"
                convert(model, tokenizer, complete, PRECISIONS[engine])
                (complete / _CHECKSUMS).write_text(json.dumps(_checksums(complete)))
                complete.rename(place)
            _make_room(place, limit)
            return Compiled(place, model.generation_config, tokenizer, model.device)
        except ModtfError:
            raise
        except Exception as error:  # a converter of others may raise anything
            reason = str(error).strip().partition("\n")[0]
            raise ModtfError(f"CTranslate2 cannot take this model: {reason}; leave the engine open") from error


def check_installed() -> None:
    """Raise :class:`ModtfError` if CTranslate2 is missing."""
    if not is_installed():
        raise ModtfError('CTranslate2 is not installed: pip install "modtf[ctranslate2]"')


def is_installed() -> bool:
    return find_spec("ctranslate2") is not None


def _cache() -> Path:
    """Where compiled assemblies are kept: in a folder of this user's, or of this process's where there is none."""
    named = os.environ.get(FOLDER)
    try:
        folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modtf"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:  # there may be no home at all
        if named:
            raise ModtfError(
                f"{FOLDER} is {named}, where nothing can be written ({error}); choose another folder"
            ) from error
        return Path(_own_folder().name)
    return folder


@lru_cache(None)
def _own_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="modtf-", ignore_cleanup_errors=True)


def _limit() -> int:
    """How many bytes may be kept."""
    limit = os.environ.get(MEGABYTES) or str(_MEGABYTES)
    if not limit.isdecimal():
        raise ModtfError(f"{MEGABYTES} is {limit!r}; give a whole number of megabytes")
    return int(limit) * 10**6


def _name_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, precision: str) -> str:
    """Of all that a compiled model depends on."""
    about = [
        digest_of(dict(model.state_dict())),
        model.config.to_json_string(),
        model.generation_config.to_json_string(),
        type(tokenizer).__name__,
        sorted(tokenizer.get_vocab().items()),
        sorted(tokenizer.special_tokens_map.items()),
        [version(package) for package in ("modtf", "transformers", "ctranslate2")],
        precision,
    ]
    return f"ctranslate2-{hashlib.sha256(repr(about).encode()).hexdigest()[:32]}"


def _checksums(folder: Path) -> dict[str, str]:
    return {file.name: checksum_of(file) for file in sorted(folder.iterdir()) if file.name != _CHECKSUMS}


def _make_room(newest: Path, limit: int) -> None:
    """Remove what has not been used for longest, until the rest keeps within the limit."""
    kept = 0
    for folder in sorted(newest.parent.glob("ctranslate2-*"), key=lambda one: one.stat().st_mtime, reverse=True):
        kept += sum(file.stat().st_size for file in folder.iterdir())
        if kept > limit and folder != newest:
            shutil.rmtree(folder, ignore_errors=True)


def convert(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, precision: str) -> None:
    """Write a model for CTranslate2 into a new folder; raises :class:`ModtfError` where its converter cannot take it."""
    from ctranslate2.converters import TransformersConverter

    _check_modules(model)
    config: Any = model.config
    start = model.generation_config.decoder_start_token_id
    place = {"marian": config.vocab_size - 1, "m2m_100": 1}.get(config.model_type)  # as the published ones have it
    if place is not None and config.pad_token_id != place:
        raise ModtfError(
            f"CTranslate2 takes a {config.model_type} whose padding is token {place}, and here it is "
            f"{config.pad_token_id}; choose --to onnx or transformers"
        )
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        model.save_pretrained(temporary)
        save_tokenizer(tokenizer, Path(temporary))
        settings = Path(temporary) / "config.json"
        # The converter asks where the norms stand: transformers knows that by the family, and does not write it down.
        # It takes an mBART for the first one, which begins with the code of a language, unless a class is named.
        more = {
            "normalize_before": config.model_type in ("mbart", "pegasus"),
            "normalize_embedding": config.model_type in ("bart", "mbart"),
            "tokenizer_class": type(tokenizer).__name__,
        }
        settings.write_text(json.dumps(json.loads(settings.read_text()) | more))
        converter = TransformersConverter(temporary)
        if config.model_type in ("t5", "mt5"):
            load, scaled = converter.load_model, scale_of_logits(model) < 1

            def load_model(*given: Any, **named: Any) -> Any:
                """The converter takes tied embeddings for a sign of scaled logits, as they were before transformers 5."""
                loaded = load(*given, **named)
                loaded.config.tie_word_embeddings = scaled
                return loaded

            converter.load_model = load_model
        converter.convert(str(folder), quantization=precision)
    # The converter writes null for what the tokenizer has not. The engine takes no null, but must have these two.
    settings = folder / "config.json"
    kept = {name: value for name, value in json.loads(settings.read_text()).items() if value is not None}
    tokens = dict.fromkeys(("bos_token", "unk_token"), tokenizer.eos_token)
    if config.model_type != "marian":  # which begins with zeros
        kept["decoder_start_token"] = tokenizer.convert_ids_to_tokens(start)
    settings.write_text(json.dumps(tokens | kept, indent=2))


def _check_modules(model: PreTrainedModel) -> None:
    """Raise :class:`ModtfError` for what the converter would not see, since it reads weights by their names."""
    for module in model.modules():
        kind = type(module)
        if not kind.__module__.startswith(_KNOWN_MODULES):
            raise ModtfError(
                f"the model has a module that CTranslate2 would leave out ({kind.__name__}); leave the engine open"
            )
        if module._forward_hooks or module._forward_pre_hooks or {"forward", "_hf_hook"} & module.__dict__.keys():
            raise ModtfError(
                f"a {kind.__name__} has a hook, or a forward of its own, which CTranslate2 would not call; leave the engine open"
            )


#: What :func:`options_of` gives where nothing is set.
UNSET = {
    "target_prefix": None, "suppress_sequences": None, "no_repeat_ngram_size": 0, "repetition_penalty": 1, "min_decoding_length": 0,
}  # fmt: skip


def options_of(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The settings of ``generate`` by the names that CTranslate2 has for them; raises :class:`ModtfError` for others."""
    unknown = set(not_followed(config)) - _FOLLOWED
    if unknown:
        raise ModtfError(f"CTranslate2 does not follow {', '.join(sorted(unknown))} of the generation configuration")
    forced = config.forced_bos_token_id
    never = [word for word in config.bad_words_ids or () if word != [config.pad_token_id]]  # a Marian's is not kept
    return {
        "target_prefix": None if forced is None else tokenizer.convert_ids_to_tokens([forced]),
        "suppress_sequences": [tokenizer.convert_ids_to_tokens(word) for word in never] or None,
        "no_repeat_ngram_size": config.no_repeat_ngram_size or 0,
        "repetition_penalty": config.repetition_penalty or 1,
        "min_decoding_length": max(config.min_new_tokens or 0, (config.min_length or 0) - 1),  # the start token counts
    }
