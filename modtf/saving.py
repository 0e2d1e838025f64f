"""The folder of a modular model: how it is written without losing anything, how it is read and checked, and the hub.

``modtf.json``, the index, names everything else: the banks, and the original as a copy in the same folder or as a
pointer to where it can be loaded from. New files get new names and the index is replaced last, in one step, so the
folder holds either what it held before or all that is new.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from httpx import HTTPError
from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import sha_fileobj
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES
from transformers.utils import (
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    logging,
)

from modtf.bundled import BUNDLED_MODELS
from modtf.errors import ModtfError

INDEX = "modtf.json"
_FORMAT = 1
_TOKENIZER = "tokenizer_config.json"
_CARD = "README.md"
#: What saving writes, named by 12 digits of a hash of the content, and the temporary folder in which it prepares that.
#: Nothing else is ever removed from a folder.
_BANKS, _COPY = "banks-{}.safetensors", "original-{}"
_OURS = re.compile(r"banks-[0-9a-f]{12}\.safetensors|original-[0-9a-f]{12}")
_TEMPORARY, _PART = ".saving-", ".part"
_AGAIN = "copy the whole folder again, or save again"


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Without the bars that transformers draws for each save and load."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def checked_path(folder: Any) -> Path:
    """A folder's path; raises :class:`ModtfError` for anything that is not a path."""
    if not isinstance(folder, str | os.PathLike) or folder == "":
        raise ModtfError(f"{folder!r} is not a folder; give its path, such as 'my-banks'")
    try:
        os.lstat(folder)
    except (OSError, ValueError) as error:  # a null byte is a ValueError
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            raise ModtfError(f"{str(folder)!r:.80} is not a possible path: {error}") from error
    return Path(folder)


def checked_dtype(dtype: Any) -> torch.dtype:
    """A type of floating-point numbers, given as such or by its name; raises :class:`ModtfError` for all else."""
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ModtfError(f"the dtype is {dtype!r}; give a floating-point type, such as torch.float32 or 'float16'")
    return named


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never there in part; several processes may do so.

    Raises :class:`ModtfError` if the disk is full.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise ModtfError(
            f"{path} could not be written: {error.strerror}; run the same command again when there is room"
        ) from error


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files take their places in ``folder`` when the block is done, the configuration last."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder, ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)
        files = [path for path in Path(temporary).rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == CONFIG_NAME):
            place = folder / path.relative_to(temporary)
            place.parent.mkdir(exist_ok=True)
            os.replace(path, place)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """As ``save_pretrained``, but without how its last use padded and cut; and a full disk is always an ``OSError``."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer = copy.deepcopy(tokenizer)  # another thread may use it
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if type(error) is Exception:  # of tokenizers, in Rust
            raise OSError(str(error)) from error
        raise


def remove_left_over(folder: Path) -> None:
    """Remove what processes that were killed while saving have left in a folder in which none works now."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(f".*{_PART}"):
        with suppress(OSError):
            path.unlink()


# -- writing -----------------------------------------------------------------------------------------------------------


def must_copy(original: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, copy_original: bool | None) -> bool:
    """Whether to save a copy of the original: as asked or, with ``copy_original`` None, if a pointer would not do.

    A pointer does if ``original.name_or_path`` holds the original as it is, with its ``tokenizer`` if one was given,
    and is not part of another modular model, which may go away. Raises :class:`ModtfError` if one was asked for but
    there is nothing to point to.
    """
    source = original.name_or_path
    if copy_original is None:
        in_a_kit = (Path(source).parent / INDEX).is_file()
        return not source or in_a_kit or not _holds(source, original, tokenizer)
    if not copy_original and (not source or same_weights(source, original) is False):
        reason = f"is not, or no longer, what {source} holds" if source else "was made in memory"
        raise ModtfError(f"the original {reason}, so there is nothing to point to; save with copy_original=True")
    return copy_original


def save(
    folder: Path,
    about: dict[str, Any],
    banks: dict[str, Tensor],
    original: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    copy_original: bool,
    dtype: torch.dtype | None,
) -> None:
    """Write the banks with a copy of the original and its tokenizer, or with a pointer to ``original.name_or_path``.

    ``about`` is what the index says of the model itself. See :meth:`modtf.modular.ModularModel.save_pretrained`.
    """
    source = original.name_or_path
    with _one_at_a_time(folder):
        copied = _name_inside(folder, source)
        fingerprint = fingerprint_of(dict(original.named_parameters()), dtype if copy_original else None)
        if copy_original and not (copied and _holds(folder / copied, original, tokenizer, dtype)):
            copied = _usable_name(folder, _COPY, fingerprint, lambda path: _holds(path, original, tokenizer, dtype))
        pointer = str(Path(source).resolve()) if Path(source).is_dir() else source
        place = {"copy": copied} if copied else {"pointer": pointer}
        _write(folder, about | {"original": place, "fingerprint": fingerprint}, banks, dtype, original, tokenizer)


def save_banks(folder: Path, about: dict[str, Any], banks: dict[str, Tensor], original: dict[str, Tensor]) -> None:
    """Write the banks alone; see :meth:`modtf.modular.ModularModel.save_banks`."""
    index: dict[str, Any] = about | {"original": {}, "fingerprint": fingerprint_of(original)}
    before: dict[str, Any] = {}
    with _one_at_a_time(folder):
        with suppress(ModtfError):
            before = read_index(folder)
        if before.get("original"):
            check_fingerprint(folder, before, original)
            index |= {key: before[key] for key in ("original", "fingerprint", "sha256") if key in before}
        _write(folder, index, banks)


def check_new_folder(folder: Path) -> Path:
    """The whole path; raises :class:`ModtfError` if there is something."""
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise ModtfError(f"{folder} exists and is not empty; choose a new folder")
    return folder


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """The place in which to make a new folder; that appears under its name when the block is done, or not at all."""
    folder = check_new_folder(folder)
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder.parent) as temporary:
            complete = Path(temporary) / folder.name
            yield complete
            _for_others(complete.rglob("*.safetensors"))
            os.replace(complete, folder)
    except BaseException as error:
        for parent in missing:
            with suppress(OSError):  # others may have put something there
                parent.rmdir()
        if isinstance(error, OSError | SafetensorError):
            raise ModtfError(f"could not save to {folder}: {error}") from error
        raise


def _for_others(files: Iterable[Path]) -> None:
    """Let those read files who could read any other new file here; safetensors keeps its own to their owner."""
    for file in files:
        beside = file.with_name(f"{file.name}.mode")
        beside.touch()
        file.chmod(beside.stat().st_mode)
        beside.unlink()


def export(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save an ordinary model and its tokenizer in a new folder, which appears when it is complete."""
    with new_folder(folder) as complete:
        model.save_pretrained(complete)
        save_tokenizer(tokenizer, complete)


def _write(
    folder: Path,
    index: dict[str, Any],
    banks: dict[str, Tensor],
    dtype: torch.dtype | None = None,
    original: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Write the banks, and the original if the index names a copy that is not there; then replace the index.

    Files of the original keep the checksums that ``index`` has for them: one damaged meanwhile must still be noticed.
    """
    copied = index["original"].get("copy")
    stored = {name: weight.detach().to(device="cpu", dtype=dtype).contiguous() for name, weight in banks.items()}
    with _all_or_nothing(folder) as temporary:
        new_banks, new_copy, new_index = temporary / "banks", temporary / "original", temporary / INDEX
        save_file(stored, new_banks, metadata={"format": "pt"})
        _for_others([new_banks])
        checksum = checksum_of(new_banks)
        banks_name = _usable_name(folder, _BANKS, digest_of(stored), lambda path: checksum_of(path) == checksum)
        if copied and original is not None and not (folder / copied).exists():
            plain = original if dtype is None else copy.deepcopy(original).to(dtype)
            plain.save_pretrained(new_copy)
            _for_others(new_copy.rglob("*.safetensors"))
            if tokenizer is not None:
                save_tokenizer(tokenizer, new_copy)
            if not (folder / copied).exists():  # another process may have been quicker
                os.replace(new_copy, folder / copied)
        os.replace(new_banks, folder / banks_name)
        checksums = {banks_name: checksum}
        for name in _weights_of_copy(folder, copied):
            checksums[name] = index.get("sha256", {}).get(name) or checksum_of(folder / name)
        complete = {"format": _FORMAT, **index, "banks": banks_name, "sha256": checksums}
        new_index.write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")
        # A power cut must not leave an index whose files never reached the disk.
        of_copy = [*(folder / copied).rglob("*"), folder / copied] if copied else []
        for path in (*of_copy, folder / banks_name, new_index, folder):
            _sync(path)
        os.replace(new_index, folder / INDEX)


def lock_of(folder: Path, what: str = "") -> FileLock:
    """The lock of a folder among the processes of a user on this machine, for saving or for ``what`` else."""
    place = hashlib.sha256(f"{folder.resolve()}{what}".encode()).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else ""  # on Windows each user has a temporary folder
    return FileLock(Path(tempfile.gettempdir()) / f"modtf-{user}-{place}.lock")


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes of this machine: none may clean up what another has yet to name."""
    lock = lock_of(folder)
    with suppress(OSError, NotImplementedError):  # some disks have no locks
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``, for a block that replaces the index at its end.

    Afterwards, what the index does not name is removed; if the block fails, only what it added. Errors of the disk
    become a :class:`ModtfError`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = set(folder.iterdir())
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder, ignore_cleanup_errors=True) as temporary:
            try:
                yield Path(temporary)
            except BaseException:
                _remove_unnamed(folder, keep=before)
                raise
    except (OSError, SafetensorError) as error:
        raise ModtfError(
            f"could not save to {folder}: {error}. What it held before is still there; "
            "free some space or choose another folder"
        ) from error
    try:
        _sync(folder)
    except OSError as error:
        raise ModtfError(f"{folder} holds the new model, but a power cut may undo that: {error}; save again") from error
    _remove_unnamed(folder)


def _remove_unnamed(folder: Path, keep: Collection[Path] = ()) -> None:
    """Remove what saving has written here, but neither what the index names nor what is in ``keep``.

    What cannot be removed now is left to the next time.
    """
    with suppress(OSError, ModtfError):  # an index that cannot be read may name anything
        index: dict[str, Any] = {"banks": "", "original": {}}
        if (folder / INDEX).exists():
            index = read_index(folder)
        original = index["original"]
        place = folder / original["copy"] if "copy" in original else Path(original.get("pointer", ""))
        an_hour_ago = time.time() - 3600
        for path in set(folder.iterdir()) - {*keep, folder / index["banks"]}:
            unnamed = _OURS.fullmatch(path.name) and not place.resolve().is_relative_to(path.resolve())
            # Of a process that was killed: one that still works, as of several that save together, is quicker.
            left_over = path.name.startswith(_TEMPORARY) and path.stat().st_mtime < an_hour_ago
            if (unnamed or left_over) and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif unnamed or left_over:
                path.unlink()


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    windows = os.name == "nt"  # it syncs only what is open for writing, and no folders
    if windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives cannot
            raise
    finally:
        os.close(handle)


def _usable_name(folder: Path, pattern: str, digest: str, is_same: Callable[[Path], bool]) -> str:
    """The pattern with digits of the digest, free or of a file with the same content: nothing is ever written over."""
    names = (pattern.format(digest[start : start + 12]) for start in range(len(digest) - 11))
    return next(name for name in names if not (folder / name).exists() or is_same(folder / name))


def _weights_of_copy(folder: Path, copied: str | None) -> list[str]:
    """Names of the original's files of weights, relative to the folder."""
    return sorted(f"{copied}/{path.name}" for path in (folder / copied).glob("*.safetensors")) if copied else []


def _name_inside(folder: Path, source: str) -> str | None:
    """The original's name in ``folder`` if it lies directly inside, links followed: then it is the copy already."""
    places = (Path(source).absolute(), Path(source).resolve()) if source else ()
    return next((path.name for path in places if path.is_dir() and path.parent.resolve() == folder.resolve()), None)


def _holds(
    source: str | Path,
    original: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    dtype: torch.dtype | None = None,
) -> bool:
    """Whether a folder holds the original with its generation configuration and, if one is given, its tokenizer.

    Of a hub id, only weights are compared.
    """
    if Path(source).is_dir():
        try:
            saved, settings = tokenizer_beside(str(source)), _generation_config(source, original)
        except (ModtfError, OSError, ValueError):
            return False
        if tokenizer is not None and (saved is None or _rules_of(saved) != _rules_of(tokenizer)):
            return False
        if _settings_of(settings) != _settings_of(original.generation_config):
            return False
    return same_weights(source, original, dtype) is True


def _rules_of(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """What decides about the tokens of a text."""
    rules: Any = tokenizer.get_vocab()
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        del rules["truncation"], rules["padding"]  # those of its last use
    return [rules, tokenizer.special_tokens_map, tokenizer.model_max_length]


def _generation_config(folder: str | Path, original: PreTrainedModel) -> GenerationConfig:
    if (Path(folder) / GENERATION_CONFIG_NAME).is_file():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig.from_model_config(original.config)


def _settings_of(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_diff_dict().items() if name != "transformers_version"}


def _has_no_tokenizer(source: str | Path) -> bool:
    return Path(source).is_dir() and not (Path(source) / _TOKENIZER).is_file()


# -- reading -----------------------------------------------------------------------------------------------------------


def local_folder(name: Any) -> Path:
    """The folder of a modular model; one of the hub is fetched first."""
    folder = checked_path(name)
    if folder.is_dir():
        return folder.resolve()
    if "/" not in os.fspath(name):  # hub ids of kits have one: no need to wait for the network
        raise ModtfError(
            f"{name!r} is neither bundled ({', '.join(BUNDLED_MODELS)}) nor a folder here; "
            "give one of these, or a hub id, such as 'user/name'"
        )
    try:
        return Path(snapshot_download(os.fspath(name), allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except (OSError, ValueError) as error:
        raise ModtfError(f"{name!r} is not a folder here, and could not be fetched from the hub: {error}") from error


def read_index(folder: Path) -> dict[str, Any]:
    """What ``modtf.json`` says; raises :class:`ModtfError` if it is missing, cut off or has unexpected values."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModtfError(
            f"{folder} holds no {INDEX}, so it is not a modular model; give a folder that save_pretrained of a "
            "modular model wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise ModtfError(f"{path} cannot be read: {error}; {_AGAIN}") from error
    if isinstance(index, dict) and index.get("format", _FORMAT) != _FORMAT:
        raise ModtfError(f"{folder} has format {index.get('format')}; this modtf reads {_FORMAT}: upgrade modtf")
    if not _is_complete(index):
        raise ModtfError(f"{path} lacks values or has values of the wrong kind; {_AGAIN}")
    for name in (index["banks"], index["original"].get("copy", index["banks"])):
        if name in ("", "..") or Path(name).name != name:
            raise ModtfError(f"{path} names {name!r}, which is not a file beside it; {_AGAIN}")
    return index


def _is_complete(index: Any) -> bool:
    match index:
        case {
            "encoder": {"granularities": [*encoder]},
            "decoder": {"granularities": [*decoder]},
            "banks": str(),
            "original": dict(original),
            "fingerprint": str(),
        }:
            # which version 0.1 did not write
            task, prefix, checksums = index.get("task", ""), index.get("prefix", ""), index.get("sha256", {})
            return (
                all(type(g) is int for g in [*encoder, *decoder])
                and (not original or "copy" in original or "pointer" in original)
                and isinstance(checksums, dict)
                and all(isinstance(text, str) for text in (task, prefix, *original.values(), *checksums.values()))
            )
    return False


def load_original(folder: Path, index: dict[str, Any]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """The original that the index points to or holds, in single precision, and the tokenizer in its folder."""
    if not index["original"]:
        raise ModtfError(
            f"{folder} holds banks without their original (a checkpoint of a training); "
            "give it, ModularModel.from_pretrained(folder, original=...), or put the banks into a kit, load_banks(folder)"
        )
    copied = index["original"].get("copy")
    source = str(folder / copied) if copied else index["original"]["pointer"]
    speech = index.get("model_type") in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES
    family = AutoModelForSpeechSeq2Seq if speech else AutoModelForSeq2SeqLM
    try:
        original = family.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise ModtfError(
            f"the original of {folder} could not be loaded from {source}: {error}. "
            "Put it back there, or give it: ModularModel.from_pretrained(folder, original=...)"
        ) from error
    for name in _weights_of_copy(folder, copied):
        _check_content(folder, index, name)
    return original, tokenizer_beside(source) if Path(source).is_dir() else None


def tokenizer_beside(source: str, **settings: Any) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the folder of an original, or under its hub id, with ``settings``; None where there is none.

    Raises :class:`ModtfError` if it cannot be loaded.
    """
    if not source or _has_no_tokenizer(source):  # there AutoTokenizer would make up an empty one
        return None
    try:
        return AutoTokenizer.from_pretrained(source, **settings)
    except (OSError, ValueError) as error:
        raise ModtfError(
            f"the tokenizer at {source!r} could not be loaded ({error}); give one: modularize(..., tokenizer=...)"
        ) from error


def load_banks(folder: Path, index: dict[str, Any]) -> dict[str, Tensor]:
    """The banks that the index names, checked against its checksum."""
    path = folder / index["banks"]
    try:
        banks = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModtfError(f"the banks {path} are missing or cut off ({error}); {_AGAIN}") from error
    _check_content(folder, index, path.name)
    # modtf 0.1 wrote no checksums, but put a digest of the weights into the name.
    if "sha256" not in index and _OURS.fullmatch(path.name) and path.name != _BANKS.format(digest_of(banks)[:12]):
        raise _damaged(path)
    return banks


def _check_content(folder: Path, index: dict[str, Any], name: str) -> None:
    expected = index.get("sha256", {}).get(name)
    if expected is not None and checksum_of(folder / name) != expected:
        raise _damaged(folder / name)


def _damaged(path: Path) -> ModtfError:
    return ModtfError(f"{path} is damaged: its content is not what was saved (its checksum differs); {_AGAIN}")


# -- which original is it? ---------------------------------------------------------------------------------------------


def fingerprint_of(weights: dict[str, Tensor], stored: torch.dtype | None = None) -> str:
    """A hash of the names, shapes and evenly spaced values of ``weights``, as they are once stored in the given type.

    Up to 256 values of each are read, so that it takes milliseconds for small models and well under a second for large
    ones; they are rounded to bfloat16, so that an original has the same fingerprint whether it was loaded in float32
    or in bfloat16.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        flat = weights[name].detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 256)][:256].cpu()
        rounded = sample.to(stored or sample.dtype).to(torch.bfloat16).to(torch.float32)
        digest.update(f"{name} {tuple(weights[name].shape)}".encode())
        digest.update(rounded.numpy().tobytes())
    return digest.hexdigest()


def check_fingerprint(folder: Path, index: dict[str, Any], original: dict[str, Tensor]) -> None:
    """Raise :class:`ModtfError` if the index is neither of this original nor of a copy of it in half precision."""
    given = fingerprint_of(original)
    if index["fingerprint"] not in (given, fingerprint_of(original, torch.float16)):
        raise ModtfError(
            f"the banks in {folder} were trained for another original: its fingerprint is {index['fingerprint'][:12]}, "
            f"the given one's is {given[:12]}. Use that original, or another folder"
        )


def same_weights(source: str | Path, model: PreTrainedModel, dtype: torch.dtype | None = None) -> bool | None:
    """Whether the checkpoint in a folder, or of a hub id, holds the model's weights; None where that cannot be seen.

    Compares in the model's precision or, if ``dtype`` is given, as they are stored in that type. One tensor is read at
    a time, from safetensors on this machine: no second model is loaded, and nothing is fetched.
    """
    folder = Path(source)
    try:
        if not folder.is_dir():
            config = try_to_load_from_cache(str(source), CONFIG_NAME)
            if not isinstance(config, str):
                return None
            folder = Path(config).parent
        elif not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
            return False
        names = {SAFE_WEIGHTS_NAME}
        if not (folder / SAFE_WEIGHTS_NAME).is_file():
            shards = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text(encoding="utf-8"))
            names = set(shards["weight_map"].values())
        return _same_tensors([folder / name for name in names], model, dtype)
    except HFValidationError:  # this is not a hub id, so it is a folder that is no longer there
        return False
    except (OSError, ValueError, KeyError, SafetensorError):
        return None


def _same_tensors(files: list[Path], model: PreTrainedModel, dtype: torch.dtype | None) -> bool | None:
    own = model.state_dict(keep_vars=True)
    missing = set(own.values())  # a tied weight has several names, but is one tensor
    prefix = f"{model.base_model_prefix}."  # part of the names or not, depending on which part of the model was saved
    for file in files:
        with safe_open(file, "pt") as stored:
            for key in stored.keys():  # noqa: SIM118
                tensor = next((own[n] for n in (key, prefix + key, key.removeprefix(prefix)) if n in own), None)
                if tensor is None or tensor not in missing:
                    continue
                missing.remove(tensor)
                expected, there = tensor.detach().to(device="cpu", dtype=dtype), stored.get_tensor(key)
                if (dtype is not None and there.dtype != dtype) or not torch.equal(there.to(expected.dtype), expected):
                    return False
    # A buffer of zeros, such as BART's bias of the logits, need not be stored.
    return None if any(isinstance(tensor, nn.Parameter) or tensor.any() for tensor in missing) else True


def checksum_of(path: Path) -> str:
    with path.open("rb") as file:
        return sha_fileobj(file).hex()


def digest_of(weights: dict[str, Tensor]) -> str:
    """A hash of all names and values."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# -- the hub -----------------------------------------------------------------------------------------------------------


_CARD_TEXT = """---
library_name: modtf
tags: [modular-transformers, {model_type}]
---

# {name}

A {model_type} model with modularized layers: trained once, it can be assembled to any compression ratio from 1x to
{ratio:.4g}x, counted in layers.

- task: {task}
- encoder: {encoder[depth]} layers, granularities {encoder[granularities]}
- decoder: {decoder[depth]} layers, granularities {decoder[granularities]}
- original: {source}

It needs [modtf](https://github.com/modtf/modtf):

```python
import modtf

modular = modtf.load("{repo_id}")
small = modular.assemble(ratio={ratio:.4g})  # an ordinary model of transformers
```

Licence: for the owner of these weights to state; those of the original and of the training data apply.
"""


def upload(
    folder: Path, repo_id: str, ratio: float, private: bool | None, token: str | bool | None, commit_message: str
) -> str:
    """Put a saved kit on the hub with a model card, unless the repository has one; returns its address.

    ``ratio`` is the highest that the kit can be assembled to. The old kit's files leave the repository.
    """
    # Not transformers' PushToHubMixin, which tags a card of its own kind, nor the hub's ModelHubMixin, which keeps the
    # arguments of __init__ in a config.json and wants to do saving and loading itself. Both come down to these calls.
    hub = HfApi(token=token)
    index = read_index(folder)
    source = index["original"].get("pointer", "a copy in this repository")
    with on_the_hub(repo_id):
        repository = hub.create_repo(repo_id, private=private, exist_ok=True)
        if not hub.file_exists(repository.repo_id, _CARD):
            name = repository.repo_id.split("/")[-1]
            card = _CARD_TEXT.format(**index, name=name, repo_id=repository.repo_id, ratio=ratio, source=source)
            (folder / _CARD).write_text(card, encoding="utf-8")
        hub.upload_folder(
            repo_id=repository.repo_id,
            folder_path=folder,
            commit_message=commit_message,
            delete_patterns=["banks-*.safetensors", "original-*"],
        )
    return str(repository)


def check_repository(repo_id: str) -> None:
    """Raise :class:`ModtfError` unless a repository of the hub can have this id."""
    with on_the_hub(repo_id):
        validate_repo_id(repo_id)


@contextmanager
def on_the_hub(repo_id: str) -> Iterator[None]:
    """What goes wrong in an upload is a :class:`ModtfError`."""
    try:
        yield
    except ModtfError:
        raise
    except (OSError, ValueError, HTTPError) as error:
        raise ModtfError(f"could not upload to {repo_id!r}: {error}") from error
