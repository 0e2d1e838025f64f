"""The folder of a modular model: how it is written without losing anything, how it is read and checked, and the hub.

``modtf.json``, the index, names everything else: the banks, and the original as a copy in the same folder or as a
pointer to where it can be loaded from. New files get new names and the index is replaced last, in one step; so the
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
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from httpx import HTTPError
from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from modtf.errors import ModtfError

INDEX = "modtf.json"
_FORMAT = 1
_TOKENIZER = "tokenizer_config.json"
_CARD = "README.md"
_BANKS, _COPY = "banks-{}.safetensors", "original-{}"
#: Names that saving makes up, with 12 digits of a hash of the content; nothing else is ever removed from a folder.
_OURS = re.compile(r"banks-[0-9a-f]{12}\.safetensors|original-[0-9a-f]{12}")
_AGAIN = "copy the whole folder again, or save again"


def checked_path(folder: Any) -> Path:
    """A folder's path; raises :class:`ModtfError` for what is no path."""
    if not isinstance(folder, str | os.PathLike) or folder == "":
        raise ModtfError(f"{folder!r} is no folder; give its path, such as 'my-banks'")
    return Path(folder)


# -- writing -----------------------------------------------------------------------------------------------------------


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
    """Write the banks with a copy of the original, or with a pointer to ``original.name_or_path``.

    ``about`` is what the index says of the model itself, ``dtype`` the type of what is written. Raises
    :class:`ModtfError` where there is nothing to point to, or where the folder cannot be written; it then holds what
    it held before.
    """
    source = original.name_or_path
    inside = _name_inside(folder, source)
    if not copy_original:
        if not source:
            raise ModtfError(
                "the original was made in memory, so there is nothing to point to; save with copy_original=True"
            )
        if same_weights(source, original) is False:
            raise ModtfError(
                f"the original is not, or no longer, what {source} holds, so there is nothing to point to; "
                "save with copy_original=True"
            )
        place = {"copy": inside} if inside else {"pointer": _absolute_if_folder(source)}
        fingerprint = fingerprint_of(dict(original.named_parameters()))
        _write(folder, about, _stored(banks, dtype), place, fingerprint)
        return
    fingerprint = fingerprint_of(dict(original.named_parameters()), dtype)
    names = [*([inside] if inside else []), *_possible_names(_COPY, fingerprint)]
    name = _first_usable(folder, names, lambda path: same_weights(path, original, dtype) is True)

    def write_what_is_missing(path: Path) -> None:
        if not (folder / name).exists():
            plain = original if dtype is None else copy.deepcopy(original).to(dtype)
            plain.save_pretrained(path)
        if tokenizer is not None and not (folder / name / _TOKENIZER).exists():
            tokenizer.save_pretrained(path)

    _write(folder, about, _stored(banks, dtype), {"copy": name}, fingerprint, write_what_is_missing)


def save_banks(folder: Path, about: dict[str, Any], banks: dict[str, Tensor], original: dict[str, Tensor]) -> None:
    """Write the banks alone; where the folder holds a kit of the same original, what it says of that stays."""
    try:
        before = read_index(folder)
    except ModtfError:
        before = {}
    if before and _belong(before, original):
        _write(
            folder,
            about,
            _stored(banks),
            before["original"],
            before["fingerprint"],
            known_checksums=before.get("sha256"),
        )
    else:
        _write(folder, about, _stored(banks), {}, fingerprint_of(original))


def should_copy(original: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> bool:
    """Whether a pointer would not do: nothing else holds the original as it is, or what does may go away.

    A ``tokenizer`` that was given must be found beside the original, too.
    """
    source = original.name_or_path
    if not source or (Path(source).parent / INDEX).is_file():  # the copy of another kit
        return True
    lacks_tokenizer = tokenizer is not None and Path(source).is_dir() and not (Path(source) / _TOKENIZER).is_file()
    return lacks_tokenizer or same_weights(source, original) is not True


def export(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save an ordinary model and its tokenizer in a new folder, which appears when it is complete."""
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise ModtfError(f"{folder} exists and is not empty; choose a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder.parent))
        try:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            temporary.chmod(0o755)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise ModtfError(f"could not save to {folder}: {error}") from error


def _write(
    folder: Path,
    about: dict[str, Any],
    banks: dict[str, Tensor],
    original: dict[str, str],
    fingerprint: str,
    write_copy: Callable[[Path], None] = lambda path: None,
    known_checksums: dict[str, str] | None = None,
) -> None:
    """Write new files beside the old ones, replace the index, and remove what it no longer names.

    ``write_copy`` is given a path in a temporary folder and writes there what the copy of the original lacks.
    """
    copied = original.get("copy")
    with _all_or_nothing(folder) as (temporary, placed):
        new_banks, new_copy = temporary / "banks", temporary / "original"
        save_file(banks, new_banks, metadata={"format": "pt"})
        checksum = _checksum(new_banks)
        names = _possible_names(_BANKS, _digest(banks))
        banks_name = _first_usable(folder, names, lambda path: _checksum(path) == checksum)
        write_copy(new_copy)
        moves = []
        if copied and new_copy.exists():
            if (folder / copied).exists():  # the tokenizer joins it; one without its configuration is not seen
                joining = sorted(new_copy.iterdir(), key=lambda path: path.name == _TOKENIZER)
                moves += [(path, folder / copied / path.name) for path in joining]
            else:
                moves.append((new_copy, folder / copied))
        moves.append((new_banks, folder / banks_name))
        for new, place in moves:
            if not place.exists():
                placed.append(place)
            os.replace(new, place)
        known = known_checksums or {}
        checksums = {name: known.get(name) or _checksum(folder / name) for name in _weights_of_copy(folder, copied)}
        index = (
            {"format": _FORMAT}
            | about
            | {
                "banks": banks_name,
                "original": original,
                "fingerprint": fingerprint,
                "sha256": {banks_name: checksum} | checksums,
            }
        )
        new_index = temporary / INDEX
        new_index.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        # A power cut must not leave an index whose files never reached the disk.
        of_copy = [*(folder / copied).rglob("*"), folder / copied] if copied else []
        for path in (*of_copy, folder / banks_name, new_index, folder):
            _sync(path)
        os.replace(new_index, folder / INDEX)
        _sync(folder)
    pointer = Path(original.get("pointer", "")).resolve()
    for path in list(folder.iterdir()):
        named = path.name in (banks_name, copied) or pointer.is_relative_to(path.resolve())
        if _OURS.fullmatch(path.name) and not named:
            _remove(path)


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """A temporary folder inside ``folder``, and a list to fill with what is placed beside it.

    If the block fails before the index was replaced, what is on the list is removed again. A full disk and the like
    become a :class:`ModtfError`.
    """
    placed: list[Path] = []
    index = folder / INDEX
    before = index.read_bytes() if index.is_file() else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
            yield Path(temporary), placed
    except BaseException as error:
        if (index.read_bytes() if index.is_file() else None) == before:
            for path in placed:
                _remove(path)
        if not isinstance(error, OSError | SafetensorError):
            raise
        raise ModtfError(
            f"could not save to {folder}: {error}. What it held before is still there; "
            "free some space or choose another folder"
        ) from error


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


def _stored(weights: dict[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    return {name: weight.detach().to(device="cpu", dtype=dtype).contiguous() for name, weight in weights.items()}


def _possible_names(pattern: str, digest: str) -> list[str]:
    return [pattern.format(digest[start : start + 12]) for start in range(len(digest) - 11)]


def _first_usable(folder: Path, names: Iterable[str], is_same: Callable[[Path], bool]) -> str:
    """The first name that is free or holds the same already: nothing is ever written over."""
    return next(name for name in names if not (folder / name).exists() or is_same(folder / name))


def _weights_of_copy(folder: Path, copied: str | None) -> list[str]:
    """Names of the original's files of weights, relative to the folder."""
    return sorted(f"{copied}/{path.name}" for path in (folder / copied).glob("*.safetensors")) if copied else []


def _name_inside(folder: Path, source: str) -> str | None:
    """The original's name in ``folder`` if it lies directly inside, links followed: then it is the copy already."""
    if source and Path(source).is_dir():
        for path in (Path(source).absolute(), Path(source).resolve()):
            if path.parent.resolve() == folder.resolve():
                return path.name
    return None


def _absolute_if_folder(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


# -- reading -----------------------------------------------------------------------------------------------------------


def local_folder(name: Any) -> Path:
    """The folder of a modular model; one of the hub is fetched first."""
    if not isinstance(name, str | os.PathLike):
        raise ModtfError(f"{name!r} is no modular model; give 'pocket', a folder, or a hub id such as 'user/name'")
    name = os.fspath(name)
    if Path(name).is_dir():
        return Path(name).resolve()
    if not _may_be_hub_id(name) or "/" not in name:
        raise ModtfError(f"{name!r} is neither 'pocket', nor a folder here, nor a hub id such as user/name")
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except (OSError, ValueError) as error:
        raise ModtfError(f"{name!r} is no folder here and could not be fetched from the hub: {error}") from error


def read_index(folder: Path) -> dict[str, Any]:
    """What ``modtf.json`` says; raises :class:`ModtfError` where it is missing, cut off or strange."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModtfError(
            f"{folder} holds no {INDEX}, so it is not a modular model; give a folder that save_pretrained wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise ModtfError(f"{path} cannot be read: {error}; {_AGAIN}") from error
    if isinstance(index, dict) and index.get("format") != _FORMAT:
        raise ModtfError(f"{folder} has format {index.get('format')}; this modtf reads {_FORMAT}: upgrade modtf")
    needed = {"encoder", "decoder", "banks", "original", "fingerprint"}
    missing = needed - (index.keys() if isinstance(index, dict) else set())
    if missing:
        raise ModtfError(f"{path} lacks {', '.join(sorted(missing))}; {_AGAIN}")
    if not _has_right_kinds(index):
        raise ModtfError(f"{path} holds values of the wrong kind; {_AGAIN}")
    for name in (index["banks"], index["original"].get("copy", index["banks"])):
        if Path(name).name != name:
            raise ModtfError(f"{path} names {name!r}, which is not a file beside it; {_AGAIN}")
    return index


def _has_right_kinds(index: dict[str, Any]) -> bool:
    original, stacks, checksums = index["original"], (index["encoder"], index["decoder"]), index.get("sha256", {})
    return (
        isinstance(index["banks"], str)
        and isinstance(index["fingerprint"], str)
        and isinstance(original, dict)
        and all(isinstance(original.get(key, ""), str) for key in ("pointer", "copy"))
        and (not original or "pointer" in original or "copy" in original)
        and all(isinstance(stack, dict) and isinstance(stack.get("granularities"), list) for stack in stacks)
        and all(type(g) is int for stack in stacks for g in stack["granularities"])
        and isinstance(index.get("task", ""), str)
        and isinstance(checksums, dict)
        and all(isinstance(checksum, str) for checksum in checksums.values())
    )


def load_original(folder: Path, index: dict[str, Any]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """The original that the index points to or holds, in single precision, and the tokenizer beside it."""
    if not index["original"]:
        raise ModtfError(
            f"{folder} holds banks without their original (a checkpoint of a training); "
            "give it: original=..., or load_banks"
        )
    copied = index["original"].get("copy")
    source = str(folder / copied) if copied else index["original"]["pointer"]
    try:
        original = AutoModelForSeq2SeqLM.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise ModtfError(
            f"the original of {folder} could not be loaded from {source}: {error}. "
            "Put it back there, or give it: original=..."
        ) from error
    for name in _weights_of_copy(folder, copied):
        _check_content(folder, index, name)
    has_tokenizer = (Path(source) / _TOKENIZER).is_file()
    return original, AutoTokenizer.from_pretrained(source) if has_tokenizer else None


def load_banks(folder: Path, index: dict[str, Any]) -> dict[str, Tensor]:
    """The banks that the index names, checked against its checksum."""
    path = folder / index["banks"]
    try:
        banks = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModtfError(
            f"the banks {path} are missing or cut off ({error}); copy the whole folder again, or save again"
        ) from error
    _check_content(folder, index, index["banks"])
    # modtf 0.1 wrote no checksums, but a digest of the weights into the name.
    if (
        "sha256" not in index
        and _OURS.fullmatch(path.name)
        and path.name not in _possible_names(_BANKS, _digest(banks))
    ):
        raise _damaged(path)
    return banks


def _check_content(folder: Path, index: dict[str, Any], name: str) -> None:
    expected = index.get("sha256", {}).get(name)
    if expected is not None and _checksum(folder / name) != expected:
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
    """Raise :class:`ModtfError` where the banks were trained for another original than the one with these weights."""
    if not _belong(index, original):
        raise ModtfError(
            f"the banks in {folder} were trained for another original: its fingerprint is {index['fingerprint'][:12]}, "
            f"the given one's is {fingerprint_of(original)[:12]}. "
            "Use the original that the banks were made from, or train new banks"
        )


def _belong(index: dict[str, Any], original: dict[str, Tensor]) -> bool:
    """Whether the index is of this original, or of a copy of it stored in half precision."""
    return index["fingerprint"] in (fingerprint_of(original), fingerprint_of(original, torch.float16))


def same_weights(source: str | Path, model: PreTrainedModel, dtype: torch.dtype | None = None) -> bool | None:
    """Whether the checkpoint in a folder, or of a hub id, holds the model's weights; None where that cannot be seen.

    Compares in the model's precision, or, where ``dtype`` is given, as they are stored in that type. One tensor is read
    at a time, from safetensors on this machine: no second model is loaded, and nothing is fetched.
    """
    source = str(source)
    if not Path(source).is_dir() and not _may_be_hub_id(source):
        return False  # a folder that is no longer there
    try:
        files = _safetensors_of(source)
        if not files:
            other_format = not Path(source).is_dir() or any(Path(source).glob("*.bin"))
            return None if other_format else False
        with ExitStack() as opened:
            stored: dict[str, Any] = {}
            for file in files:
                reader = opened.enter_context(safe_open(file, "pt"))
                stored |= dict.fromkeys(reader.keys(), reader)
            return _same_tensors(stored, model, dtype)
    except (OSError, ValueError, KeyError, SafetensorError):
        return None


def _safetensors_of(source: str) -> list[Path]:
    """The checkpoint's files of weights on this machine, one or many; none where there are no safetensors."""

    def find(name: str) -> Path | None:
        found = Path(source) / name if Path(source).is_dir() else try_to_load_from_cache(source, name)
        return Path(found) if isinstance(found, str | Path) and Path(found).is_file() else None

    whole, index = find(SAFE_WEIGHTS_NAME), find(SAFE_WEIGHTS_INDEX_NAME)
    if whole is not None:
        return [whole]
    if index is None:
        return []
    shards = {name: find(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    return [shard for shard in shards.values() if shard is not None]


def _same_tensors(stored: dict[str, Any], model: PreTrainedModel, dtype: torch.dtype | None) -> bool | None:
    """``stored`` has for each name the open file that it is in."""
    names_of: dict[int, tuple[Tensor, list[str]]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():  # tied weights have several names
        names_of.setdefault(id(tensor), (tensor, []))[1].append(name)
    prefix = f"{model.base_model_prefix}."  # stands in the names, or not, after the part of the model that was saved
    for tensor, names in names_of.values():
        own = tensor.detach().to(device="cpu", dtype=dtype)
        known = [key for name in names for key in (name, prefix + name, name.removeprefix(prefix)) if key in stored]
        if not known:
            if isinstance(tensor, nn.Parameter) or bool(tensor.any()):
                return None
            continue  # a buffer of zeros, such as BART's bias of the logits, need not be stored
        there = stored[known[0]].get_tensor(known[0])
        if (dtype is not None and there.dtype != dtype) or not torch.equal(there.to(own.dtype), own):
            return False
    return True


def _may_be_hub_id(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not Path(name).is_absolute() and name.count("/") <= 1


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _digest(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].view(torch.uint8).numpy().tobytes())
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
    folder: Path, repo_id: str, *, ratio: float, private: bool | None, token: str | bool | None, commit_message: str
) -> str:
    """Put a saved kit on the hub with a model card, unless the repository has one; returns its address.

    ``ratio`` is the highest that the kit can be assembled to. The old kit's files leave the repository.
    """
    # Not transformers' PushToHubMixin, which tags a card of its own kind, nor the hub's ModelHubMixin, which keeps the
    # arguments of __init__ in a config.json and wants to do saving and loading itself. Both come down to these calls.
    hub = HfApi(token=token)
    index = read_index(folder)
    source = index["original"].get("pointer", "a copy in this repository")
    try:
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
    except (OSError, ValueError, HTTPError) as error:
        raise ModtfError(f"could not upload to {repo_id!r}: {error}") from error
    return str(repository)
