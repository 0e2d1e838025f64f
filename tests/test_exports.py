"""Exports for the engines that people serve with: the texts of each are those of the assembly, whatever its depths."""

from __future__ import annotations

import copy
import json
import os
import re
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import SENTENCES, randomize
from families import TINY, _bart
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file
from test_saving import Hub
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, set_seed

import modtf
import modtf.exports
from modtf.errors import ModtfError
from modtf.exports import FORMATS, export, export_sizes, format_named, push_to_hub
from modtf.exports.card import lines_of, scores_of
from modtf.exports.limit import time_of, within
from modtf.mapping import Assembly
from modtf.saving import check_repository
from modtf.tasks import Example

#: Unequal depths: more layers in the encoder, or fewer.
DEEP, SHALLOW = Assembly((1, 1, 2), (2, 2)), Assembly((2, 2), (1, 1, 2))
FAMILIES = ("t5", "t5-gated", "mt5", "bart", "mbart", "marian", "m2m_100", "pegasus")
EXAMPLES = [Example(text, (text,)) for text in (*SENTENCES[:2], "A pub!")]


def need(to: str, precision: str = "float32") -> None:
    try:
        format_named(to, precision)
    except ModtfError as error:
        pytest.skip(str(error))


def renamed(tokenizer: Any, names: dict[str, str], **special: str) -> PreTrainedTokenizerFast:
    """The tokenizer with other names for its special tokens, and so with another padding."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    words = {names.get(word, word): number for word, number in rules["model"]["vocab"].items()}
    rules["model"]["vocab"] = words
    for token in rules["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    rules["post_processor"]["special_tokens"]["</s>"]["ids"] = [words["</s>"]]
    made = Tokenizer.from_str(json.dumps(rules))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="<pad>", **special)


@pytest.fixture
def kit(make_modular: Any, tokenizer: Any, request: pytest.FixtureRequest, monkeypatch: Any) -> modtf.ModularModel:
    """A random kit of 4 + 4 layers of the family that is asked for, which writes 24 tokens at most."""
    monkeypatch.setattr(modtf.ModularModel, "longest", 24)
    family = request.param
    if family in ("t5", "t5-gated", "bart"):
        return make_modular(family, 4, 4, tokenizer=tokenizer, vocabulary=len(tokenizer))
    set_seed(0)
    if family == "marian":  # its padding is the last token, begins a text, and is all zeros
        tokenizer = renamed(tokenizer, {"<pad>": "<unk>"}, unk_token="<unk>")
        pad = len(tokenizer) - 1
        special = {"vocab_size": pad + 1, "pad_token_id": pad, "decoder_start_token_id": pad, "forced_eos_token_id": 1}
        model = _bart("Marian", 4, 4, model="MarianMTModel", **special)
        model.generation_config.bad_words_ids = [[pad]]
    elif family == "m2m_100":
        tokenizer = renamed(tokenizer, {"<pad>": "</s>", "</s>": "<pad>"})
        model = _bart("M2M100", 4, 4, vocab_size=len(tokenizer), pad_token_id=1, eos_token_id=0)
    else:
        model = TINY[family](4, 4, vocab_size=len(tokenizer))
    randomize(module for module in model.modules() if "Position" not in type(module).__name__)
    if family == "marian":
        model.get_input_embeddings().weight.data[pad] = 0
    if family in ("mbart", "m2m_100"):
        model.generation_config.forced_bos_token_id = 57  # stands for the code of a language
    modular = modtf.modularize(model.eval(), tokenizer=tokenizer)
    randomize((module for stack in modular.stacks for module in stack.banks.modules()), 1)
    return modular


def written(folder: Path, to: str, modular: modtf.ModularModel, texts: list[str]) -> list[str]:
    return format_named(to).reader(folder, modular.longest)(texts)


def lines_in(folder: Path, monkeypatch: Any, capsys: Any) -> str:
    """What the lines on the card print, without modtf."""
    monkeypatch.chdir(folder.parent)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    capsys.readouterr()
    exec(compile(code, "card", "exec"), {})
    printed: str = capsys.readouterr().out
    return printed.strip()


def slow_or_not(family: str, to: str) -> Any:
    """Tracing takes a quarter of a minute, so that two families stand for the others in a quick run."""
    slow = to == "onnx" and family not in ("t5", "bart")
    return pytest.param(family, to, marks=[pytest.mark.slow] if slow else [], id=f"{family}-{to}")


@pytest.mark.parametrize(
    ("kit", "to"), [slow_or_not(family, to) for family in FAMILIES for to in FORMATS[:3]], indirect=["kit"]
)
def test_texts_are_those_of_the_assembly(
    kit: modtf.ModularModel, to: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    need(to)
    family = kit.architecture.model_type
    sources = [example.source for example in EXAMPLES]
    batches = []
    every = (DEEP, SHALLOW)
    for assembly in every if to != "onnx" else every[family not in ("t5", "mbart") :][:1]:  # a quarter of a minute each
        made = export(kit, assembly, tmp_path / assembly.shape, to=to, examples=EXAMPLES)
        assert made.check is not None and made.check.equal == made.check.inputs == len(EXAMPLES), str(made.check)
        assert made.check.scores == made.check.own_scores and made.check.milliseconds > 0
        batches.append(written(tmp_path / assembly.shape, to, kit, sources))  # padded to a common length
        # The lines do not force the end of a text that is cut off, as some families do.
        printed = lines_in(tmp_path / assembly.shape, monkeypatch, capsys)
        assert printed and printed[:-2].startswith(batches[-1][0].strip()[:-2])
        assert batches[-1] == kit.write(sources, assembly).texts
    assert len(batches) == 1 or batches[0] != batches[1], "or this would show nothing"


@pytest.mark.parametrize("kit", ["t5", "t5-gated", "mt5", "bart"], indirect=True)
def test_scores_are_those_of_the_assembly(kit: modtf.ModularModel, tmp_path: Path) -> None:
    """Greedy texts do not show whether logits are scaled; the scores of beams do."""
    need("ctranslate2")
    import ctranslate2

    export(kit, DEEP, tmp_path / "out", to="ctranslate2", examples=[])
    model, inputs = kit.assemble(assembly=DEEP), kit.encode([SENTENCES[0]])
    tokens = kit.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    target = torch.tensor([[5, 9, 17, 1]])
    translator = ctranslate2.Translator(str(tmp_path / "out"))
    (found,) = translator.score_batch([tokens], [kit.tokenizer.convert_ids_to_tokens(target[0, :-1])])
    with torch.inference_mode():
        start = torch.full((1, 1), model.generation_config.decoder_start_token_id)
        logits = model(**inputs, decoder_input_ids=torch.cat([start, target[:, :-1]], 1)).logits
    expected = logits.log_softmax(-1).gather(-1, target[..., None])[0, :, 0]
    assert torch.allclose(torch.tensor(found.log_probs), expected, atol=1e-3)


#: What a format can be written in besides float32, and the types of the tensors that lie on the disk then.
OTHERS = [
    ("transformers", "bfloat16"), ("transformers", "float16"), ("ctranslate2", "float16"), ("ctranslate2", "bfloat16"),
    ("ctranslate2", "int8"), ("ctranslate2", "int8_float32"), ("ctranslate2", "int8_float16"),
    ("ctranslate2", "int8_bfloat16"), ("onnx", "int8"),
]  # fmt: skip


@pytest.fixture(scope="module")
def pocket() -> modtf.ModularModel:
    return modtf.load("pocket")


#: Unequal depths, as small as they come.
POCKET = Assembly((4, 4, 4), (6, 6))


@pytest.mark.parametrize(("to", "precision"), OTHERS)
def test_less_precision(pocket: modtf.ModularModel, to: str, precision: str, tmp_path: Path) -> None:
    need(to, precision)
    made = export(pocket, POCKET, tmp_path / "out", to=to, precision=precision, check=10)
    assert made.check is not None and made.check.inputs == 10
    assert made.check.equal >= 5, "rounding changes some words, not most texts"
    assert made.megabytes < 0.8 * 4 * 1.31, "of 1.31 million parameters"
    if to == "transformers":
        kinds = {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()}
        assert kinds == {getattr(torch, precision)}
    assert {weight.dtype for weight in pocket.parameters()} == {torch.float32}, "the kit stays as it is"


def test_several_sizes_with_an_index(pocket: modtf.ModularModel, tmp_path: Path) -> None:
    need("ctranslate2", "int8")
    sizes = {"3x": POCKET, "6x": pocket.mapping.coarsest}
    made = export_sizes(pocket, sizes, tmp_path / "kit", to="ctranslate2", precision="int8", check=2)
    index = json.loads((tmp_path / "kit" / "sizes.json").read_text())
    assert list(index["sizes"]) == [size.name for size in made] == ["3x", "6x"]
    for name, assembly in sizes.items():
        assert index["sizes"][name]["assembly"] == str(assembly) and index["sizes"][name]["check"]["inputs"] == 2
        text = pocket.tokenizer.decode(pocket.tokenizer("name[Zizzi]")["input_ids"])
        assert isinstance(written(tmp_path / "kit" / name, "ctranslate2", pocket, [text])[0], str)
    assert ModelCard((tmp_path / "kit" / "README.md").read_text()).data.to_dict()["library_name"] == "ctranslate2"


# -- GGUF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "int8"])
def test_a_gguf_file_holds_the_weights(pocket: modtf.ModularModel, precision: str, tmp_path: Path) -> None:
    """Its texts, too, where llama.cpp's own engine is installed."""
    need("gguf", precision)
    import gguf

    made = export(pocket, POCKET, tmp_path / "out", to="gguf", precision=precision, check=5)
    assert made.check is None or made.check.equal >= 4
    read = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    fields = {name: field.contents() for name, field in read.fields.items()}
    assert (fields["t5.block_count"], fields["t5.decoder_block_count"]) == (3, 2)
    vocabulary = pocket.tokenizer.get_vocab()
    assert fields["tokenizer.ggml.tokens"] == sorted(vocabulary, key=vocabulary.__getitem__)
    model = pocket.assemble(assembly=POCKET)
    weights = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in read.tensors}
    assert len(weights) == len(dict(model.named_parameters()))
    tolerance = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2, "int8": 2e-2}[precision]
    for name, expected in {
        "token_embd.weight": model.shared.weight,
        "enc.blk.2.ffn_down.weight": model.encoder.block[2].layer[1].DenseReluDense.wo.weight,
        "dec.blk.1.cross_attn_q.weight": model.decoder.block[1].layer[1].EncDecAttention.q.weight,
        "dec.output_norm.weight": model.decoder.final_layer_norm.weight * model.config.d_model**-0.5,
    }.items():
        found = torch.tensor(weights[name].reshape(expected.shape))
        assert (found - expected).abs().max() <= tolerance * expected.abs().max(), name


def test_unigrams_go_along_as_llama_cpp_reads_them(make_modular: Any, tmp_path: Path) -> None:
    need("gguf")
    import gguf

    rules = Tokenizer(models.Unigram())
    rules.pre_tokenizer, rules.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False)
    rules.train_from_iterator(SENTENCES, trainer)
    rules.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, **named)
    kit = make_modular("t5-gated", 4, 4, tokenizer=tokenizer, vocabulary=len(tokenizer) + 5)
    with pytest.raises(ModtfError, match="positions up to 128 apart, not 16"):
        export(kit, DEEP, tmp_path / "out", to="gguf", examples=[])
    for part in (kit.config, *kit.modules()):
        if hasattr(part, "relative_attention_max_distance"):
            part.relative_attention_max_distance = 128
    made = export(kit, DEEP, tmp_path / "out", to="gguf", examples=EXAMPLES)
    assert made.check is None or made.check.equal == len(EXAMPLES)
    read = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    fields = {name: field.contents() for name, field in read.fields.items()}
    pieces = json.loads(rules.to_str())["model"]["vocab"]
    assert fields["tokenizer.ggml.model"] == "t5"
    assert fields["tokenizer.ggml.tokens"] == [piece for piece, _ in pieces] + [
        f"[PAD{number}]" for number in range(len(pieces), len(pieces) + 5)
    ]
    assert fields["tokenizer.ggml.scores"][: len(pieces)] == pytest.approx([score for _, score in pieces])
    types = gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN, gguf.TokenType.NORMAL
    assert tuple(fields["tokenizer.ggml.token_type"][:4]) == types


@pytest.mark.parametrize(
    ("kit", "assembly", "words"),
    [
        ("t5", SHALLOW, "no more decoder layers than the encoder"),
        ("bart", DEEP, "the format gguf takes t5, mt5, not bart"),
    ],
    indirect=["kit"],
)
def test_what_llama_cpp_cannot_read_is_refused(
    kit: modtf.ModularModel, assembly: Assembly, words: str, tmp_path: Path
) -> None:
    need("gguf")
    kit.config.relative_attention_max_distance = 128
    with pytest.raises(ModtfError, match=words):
        export(kit, assembly, tmp_path / "out", to="gguf", examples=[])
    assert not list(tmp_path.iterdir())


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "paper"}, "there is no export to 'paper'; choose from transformers, ctranslate2, onnx, gguf"),
        (
            {"precision": "int8"},
            "the format transformers has no precision 'int8'; choose from float32, bfloat16, float16",
        ),
        (
            {"to": "onnx", "precision": "float16"},
            "the format onnx has no precision 'float16'; choose from float32, int8",
        ),
    ],
)
def test_refusals(pocket: modtf.ModularModel, options: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModtfError, match=words):
        export(pocket, POCKET, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_a_source_that_is_too_long(pocket: modtf.ModularModel, tmp_path: Path) -> None:
    long = [Example("name[" + "Zizzi " * 300 + "]", ("",))]
    with pytest.raises(ModtfError, match="at most 256 are possible: shorten it or split it"):
        export(pocket, POCKET, tmp_path / "out", examples=long)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", FORMATS[1:])
def test_a_missing_package_is_named(pocket: modtf.ModularModel, to: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(modtf.exports, "find_spec", lambda name: None)
    with pytest.raises(ModtfError) as told:
        export(pocket, POCKET, tmp_path / "out", to=to)
    assert str(told.value) == f'the format {to} needs a package that is not installed: pip install "modtf[{to}]"'


@pytest.mark.parametrize("kit", ["m2m_100"], indirect=True)
def test_a_padding_that_ctranslate2_does_not_expect(kit: modtf.ModularModel, tmp_path: Path) -> None:
    need("ctranslate2")
    kit.config.pad_token_id = 5
    with pytest.raises(ModtfError, match="whose padding is token 1, and here it is 5; choose --to onnx"):
        export(kit, DEEP, tmp_path / "out", to="ctranslate2", examples=EXAMPLES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("assemblies", "words"),
    [
        ({}, "no assemblies were given; give at least one"),
        ({"../../out": POCKET}, "'../../out' is not the name of a folder; give one such as '2x'"),
        ({"2x": "encoder 6·6 | decoder 5·7"}, "5"),
    ],
)
def test_sizes_that_cannot_be(pocket: modtf.ModularModel, assemblies: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModtfError, match=words):
        export_sizes(pocket, assemblies, tmp_path / "a" / "b" / "out", check=0)
    assert not list(tmp_path.iterdir()), "nor are there folders above it"


@pytest.mark.parametrize("number", [-1, 2.5, True])
def test_a_number_of_inputs_that_cannot_be(pocket: modtf.ModularModel, number: Any, tmp_path: Path) -> None:
    with pytest.raises(ModtfError, match=f"check is {number!r}; give a number of inputs, 0 for none"):
        export(pocket, POCKET, tmp_path / "out", check=number)


def test_what_an_engine_raises_while_it_is_checked(
    pocket: modtf.ModularModel, tmp_path: Path, monkeypatch: Any
) -> None:
    def reader(*_: Any) -> Any:
        return lambda texts: 1 // 0

    monkeypatch.setattr("modtf.exports.transformers.reader", reader)
    with pytest.raises(ModtfError, match=r"transformers cannot take .*: ZeroDivisionError: .*; choose another format"):
        export(pocket, POCKET, tmp_path / "a" / "out", check=1)
    assert not list(tmp_path.iterdir()), "nor is there a folder above it"


def test_other_texts_are_refused(pocket: modtf.ModularModel, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("modtf.exports.transformers.reader", lambda *_: lambda texts: ["something else"])
    with pytest.raises(ModtfError, match=r"other texts than .* in float32, 3 of 3, so nothing"):
        export(pocket, POCKET, tmp_path / "out", check=3)
    assert not list(tmp_path.iterdir())
    made = export(pocket, POCKET, tmp_path / "out", precision="float16", check=3)  # there it is said
    assert made.check is not None and made.check.equal == 0
    assert "0 of 3 texts are those of the assembly" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("to", FORMATS)
def test_all_or_nothing(pocket: modtf.ModularModel, to: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Whatever fails at the end, and however: nothing is left, and what was there stays."""
    need(to)
    if to == "onnx":  # seconds less
        monkeypatch.setattr("modtf.exports.onnx._graph", lambda *given: given[2].write_text("a part"))
    for error in (OSError(28, os.strerror(28)), RuntimeError("none of mine")):

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(f"modtf.exports.{to}.save_tokenizer", fail)
        with pytest.raises(ModtfError):
            export(pocket, POCKET, tmp_path / "out", to=to)
        assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ModtfError, match="exists and is not empty; choose a new folder"):
        export(pocket, POCKET, tmp_path / "out", to=to)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


# -- the card and the hub ----------------------------------------------------------------------------------------------


def test_the_card_says_what_was_made_and_measured(pocket: modtf.ModularModel, tmp_path: Path) -> None:
    assembly = pocket.choose(3, "speed_first")  # one of the measured table
    export(pocket, assembly, tmp_path / "pocket-3x", check=2)
    card = (tmp_path / "pocket-3x" / "README.md").read_text()
    for words in (
        f"`{assembly}`, one size of pocket", "layers: 6-2, of 12-12", "parameters: 1,962,", "precision: float32",
        "BLEU 66.16 (99.9 % of the full model's)", "slot errors 1.91", "2 of 2 texts are those", "ms a text", "threads: 1",
        'folder = "pocket-3x"', "Licence: cc-by-sa-4.0", "reads sources of up to",
    ):  # fmt: skip
        assert words in card, words
    assert len({path.stat().st_mode for path in (tmp_path / "pocket-3x").iterdir()}) == 1, "others may read all of it"
    assert str(tmp_path) not in card and ModelCard(card).data.to_dict()["library_name"] == "transformers"
    export(pocket, Assembly((4, 4, 4), (1,) * 12), tmp_path / "unmeasured", check=0)
    card = (tmp_path / "unmeasured" / "README.md").read_text()
    assert "measured by modtf in full precision: not this size" in card and "no: it was not asked for" in card
    measured = {scores_of(pocket, assembly) for assembly in pocket.profile.kept}
    assert "keeps at least" in "".join(measured) and "BLEU" in "".join(measured) and "not this size" not in measured


@pytest.mark.parametrize(("check", "why"), [(0, "it was not asked for"), (1, "llama_cpp is not installed")])
def test_why_nothing_was_checked(
    check: int, why: str, pocket: modtf.ModularModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("gguf")
    monkeypatch.setattr("modtf.exports.find_spec", lambda name: None if name == "llama_cpp" else name)
    assert export(pocket, POCKET, tmp_path / "out", to="gguf", check=check).unchecked == why
    assert f"no: {why}" in (tmp_path / "out" / "README.md").read_text()


def test_push_to_hub(pocket: modtf.ModularModel, tmp_path: Path, monkeypatch: Any) -> None:
    hub = Hub(tmp_path / "hub", monkeypatch, has_card=True)
    export(pocket, POCKET, tmp_path / "out", check=0)
    where = push_to_hub(tmp_path / "out", "somebody/small", private=True, commit_message="First")
    assert where == "https://huggingface.co/somebody/small"
    assert hub.asked["private"] is True and hub.asked["commit_message"] == "First"
    there = tmp_path / "hub" / "somebody" / "small"
    assert {path.name for path in there.iterdir()} == {path.name for path in (tmp_path / "out").iterdir()}
    assert "README.md" in {path.name for path in there.iterdir()}, "a card of other files must not stay"
    hub.holds.add("sizes.json")
    sizes = tmp_path / "sizes.json"
    sizes.write_text('{"sizes": {"2x": {}, "6x": {}}}')
    monkeypatch.setattr(HfApi, "hf_hub_download", staticmethod(lambda *_: str(sizes)))
    push_to_hub(tmp_path / "out", "somebody/again")
    assert not any(fnmatch("assets/logo.png", pattern) for pattern in hub.asked["delete_patterns"]), "not an export's"
    old = (
        "sizes.json",
        "6x/config.json",
        "model.safetensors",
        "model.bin",
        "2x/model.bin",
        "encoder.onnx",
        "model.gguf",
    )
    assert all(any(fnmatch(name, pattern) for pattern in hub.asked["delete_patterns"]) for name in old)
    hub.holds.add("modtf.json")
    with pytest.raises(ModtfError, match=r"^somebody/small holds a kit, whose weights would be lost; choose another"):
        push_to_hub(tmp_path / "out", "somebody/small")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModtfError, match=r"holds no README.md, so it is no export; make one with modtf export"):
        push_to_hub(tmp_path / "empty", "somebody/small")
    with pytest.raises(ModtfError, match="could not upload to '\\?\\?\\?'"):
        check_repository("???")


def test_the_cards_lines_follow_the_settings_of_generation(pocket: modtf.ModularModel) -> None:
    kit = copy.deepcopy(pocket)
    config = kit.model.generation_config
    config.no_repeat_ngram_size, config.bad_words_ids, config.forced_bos_token_id = 3, [[7]], 9
    ctranslate2, onnx = (lines_of(kit, "x", format_named(name).HOW) for name in ("ctranslate2", "onnx"))
    seven, nine = kit.tokenizer.convert_ids_to_tokens([7, 9])
    for setting in (f"target_prefix=[[{nine!r}]]", f"suppress_sequences=[[{seven!r}]]", "no_repeat_ngram_size=3"):
        assert setting in ctranslate2
    assert "logits[:, [7]] = -np.inf\n    tokens.append" in onnx and "tokens[1] = config.forced_bos_token_id" in onnx
    for how in (ctranslate2, onnx):
        compile(how, "card", "exec")
    plain = lines_of(pocket, "x", format_named("ctranslate2").HOW)
    assert "beam_size=1, max_decoding_length=128, max_input_length=0)" in plain


# -- a limit of time ---------------------------------------------------------------------------------------------------


def test_the_best_assembly_within_a_time(pocket: modtf.ModularModel) -> None:
    def timed(assembly: Assembly) -> float:
        return 1 + 0.5 * len(assembly.encoder) + 2 * len(assembly.decoder) + (assembly == slower)

    slower = None
    slower, took = within(pocket, 12.0, timed)
    assert took == timed(slower) - 1 <= 12
    ranked = pocket.profile.ranked
    assert all(timed(better) > 12 for better in ranked[: ranked.index(slower)])
    second, _ = within(pocket, took, timed)  # the first one is slower than its numbers of layers tell
    assert second != slower and ranked.index(second) > ranked.index(slower)
    with pytest.raises(ModtfError, match=r"no assembly takes 2 ms or less for a text; the fastest of 4 .* takes 6.0"):
        within(pocket, 2, timed)


def test_what_an_engine_raises_while_it_is_timed(pocket: modtf.ModularModel) -> None:
    def write(*_: Any) -> None:
        raise RuntimeError("no such kernel\nat line 7")

    engine = SimpleNamespace(__name__="modtf.exports.onnx", write=write)
    with pytest.raises(
        ModtfError,
        match=r"onnx cannot take encoder 6·6 \| decoder 6·6: RuntimeError: no such kernel; choose another format$",
    ):
        time_of(pocket, pocket.choose(6), engine, "float32", ["name[Zizzi]"])


def test_without_a_profile_the_largest_counts(make_modular: Any) -> None:
    kit = make_modular("t5")
    found, _ = within(kit, 5, lambda assembly: float(assembly.layers))
    assert found == max((a for a in kit.assemblies("size_first") if a.layers <= 5), key=lambda a: a.layers)
