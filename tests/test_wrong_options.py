"""Every option of every command given a wrong value, alone: one line says what is possible, and no file is left behind.

The options are read from the parsers themselves, so that a new one fails here until it has a row.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from families import _t5
from transformers import Seq2SeqTrainingArguments

import modtf
from modtf import cli
from modtf.commands import training, versus
from modtf.commands.data import load_model
from modtf.training import options as training_options
from modtf.training.options import NOT_OFFERED

# -- the tables: what is typed behind a command that is right, and words of the one line ---------------------------------

FEW = "--steps 2 --batch-size 4 --report-to none"
#: The commands with everything right.
RIGHT = {
    "demo": "--no-browser",
    "generate": "--model kit 'name[Zizzi], eatType[pub]'",
    "evaluate": "--model kit",
    "profile": "--model kit",
    "export": "--model kit out",
    "plan": f"--model original --data data {FEW}",
    "train original": f"--model original --data data {FEW} --output out",
    "train kit": f"--model original --data data {FEW} --output out",
    "versus": "--model kit --output out",
}
TRAININGS = ("plan", "train original", "train kit", "versus")

KIT = {
    "--model nobody": "neither bundled (translator, pocket) nor a folder here; give one of these, or a hub id",
    "--model nobody/nothing": "'nobody/nothing' is not a folder here, and could not be fetched from the hub",
    "--model /nowhere": "'/nowhere' is not a folder here",
    "--model notes.txt": "neither bundled (translator, pocket) nor a folder here",
    "--model original": "holds no modtf.json, so it is not a modular model; give a folder that save_pretrained of a modular model wrote",
    "--model cut-off": "missing or cut off",
    "--model ''": "'' is not a folder; give its path",
    "--task poems": "the task 'poems' is unknown; choose from text, e2e, translation",
    "--task ''": "the task '' is unknown; choose from",
}

POCKET = "--model pocket --strategy quality_first"  # it has a profile
ASSEMBLY = {
    "--ratio 0.5": "ratios from 1 to 2",
    "--ratio 2.1": "ratios from 1 to 2",
    "--ratio nan": "ratios from 1 to 2",
    "--strategy cheapest": "invalid choice: 'cheapest' (choose from",
    "--strategy quality_first": "has no profile.json; make one with `modtf profile`, or choose another strategy",
    "--strategy quality_first --model pocket": "no limit given; give one of ratio, max_parameters, max_megabytes",
    "--assembly six": "'six' is not an assembly; write for example 'encoder 6·6 | decoder 2·2·2·6'",
    "--assembly 'encoder 3 1 | decoder 2 2'": "the encoder has no granularity 3; it has 1, 2",
    "--assembly 'encoder 2 2 | decoder 2'": "covers 2 layers; the stack has 4: cover all of them",
    "--assembly ''": "'' is not an assembly; write for example",
    "--max-parameters 5": "max_parameters needs the strategy 'quality_first'",
    f"--max-parameters 5 {POCKET}": "no assembly has 5 parameters or less; the smallest one has",
    f"--max-parameters nan {POCKET}": "max_parameters is nan; give a number above 0",
    "--max-megabytes 5": "max_megabytes needs the strategy 'quality_first'",
    f"--max-megabytes 0 {POCKET}": "max_megabytes is 0.0; give a number above 0",
    "--max-latency-ms 5": "max_latency_ms needs the strategy 'quality_first'",
    f"--max-latency-ms -1 {POCKET}": "max_latency_ms is -1.0; give a number above 0",
    "--min-quality 99": "min_quality needs the strategy 'quality_first'",
    f"--min-quality 101 {POCKET}": "min_quality is 101; give a percentage of the full model's scores, up to 100",
}

DATA = {
    "--data /nowhere": "is no file or folder here, and cannot be read from the hub",
    "--data nobody/nothing": "is no file or folder here, and cannot be read from the hub",
    "--data notes.txt": "notes.txt is of a kind that is not known; give one of .jsonl, .json, .csv, .tsv, .parquet",
    "--data empty": ".jsonl, .csv, .tsv or .parquet; it has none of that kind",
    "--data broken.jsonl": "broken.jsonl cannot be read",
    "--data numbers.jsonl": "numbers.jsonl, row 1: 'source' is 7, not a text",
    "--data blank.jsonl": "blank.jsonl has no rows to use: 1 are empty",
    "--data latin.jsonl": "latin.jsonl has no rows to use: 0 are empty, 1 not UTF-8",
    "--data questions.csv": "has no column 'source'; it has 'question', 'answer': name them, --source-column and",
    "--data ''": "--data is missing; give a file, a folder or a data set of the hub",
    "--source-column question": "has no column 'question'; it has 'source', 'target': name them, --source-column and",
    "--target-column answer": "has no column 'answer'; it has 'source', 'target': name them, --source-column and",
    "--data-config en": "--data-config has no effect on data, which is no data set of the hub; leave it out",
    "--max-source-length 3": "--max-source-length is 3; give 4 or more",
    "--max-target-length -1": "--max-target-length is -1; give 4 or more",
    "--config /nowhere": "--config /nowhere: there is no such file",
    "--config empty": "--config empty cannot be read as YAML or JSON",
    "--config notes.txt": "--config notes.txt holds no options; write lines such as 'steps: 1000'",
    "--config nothing.yaml": "--config nothing.yaml holds no options",
    "--config latin.jsonl": "--config latin.jsonl cannot be read as YAML or JSON",
    "--config broken.yaml": "--config broken.yaml cannot be read as YAML or JSON",
    "--config unknown.yaml": "--config unknown.yaml: 'colour' is no option of COMMAND; see COMMAND --help",
    "--config help.yaml": "--config help.yaml: 'help' is no option of COMMAND",
    "--config another.yaml": "--config another.yaml: a file cannot name another one; give both",
    "--config list.yaml": "--config list.yaml: max_source_length is [8, 9]; give one value, not a list",
    "--config words.yaml": "argument --max-source-length: invalid int value: 'many'",
    "--config mapping.yaml": """argument --max-source-length: invalid int value: '{"tokens": 8}'""",
}  # fmt: skip

EVALUATE = {
    "--model original": "--data is missing; give a file, a folder or a data set of the hub",
    "--model original --data data --ratios 2": "original is an original, of one size; leave out --ratios, or train a kit",
    "--data data/train.jsonl --split train": "--split has no effect on one file, data/train.jsonl; leave it out",
    "--split exam": "data has no exam.jsonl, .csv, .tsv or .parquet; it has dev.jsonl, test.jsonl, train.jsonl",
    "--metrics accuracy": "--metrics accuracy is no metric of the task 'text'; it has bleu, chrf, rouge_l",
    "--ratios 1 9": "ratios from 1 to 2",
    "--ratios nan": "ratios from 1 to 2",
    "--strategies cheapest": "invalid choice: 'cheapest' (choose from",
    "--strategies quality_first": "has no profile.json; make one with `modtf profile`",
    "--beams 0": "--beams is 0; give 1 or more",
    "--json empty": "--json empty is a folder; give a file",
    "--json nowhere/scores.json": "/nowhere; create it first",
    "--json notes.txt/scores.json": "/notes.txt; create it first",
    "--json /proc/scores.json": "nothing can be written to /proc",
}
PROFILE = {
    "--split exam": EVALUATE["--split exam"],
    "--inputs 0": "--inputs is 0; give 1 or more",
    "--seed 1.5": "argument --seed: invalid int value: '1.5'",
    "--times": "has no profile.json; make one with `modtf profile`",
}

EXPORT = {
    "--data ''": "--data is missing; give a file",
    "--to paper": "there is no export to 'paper'; choose from transformers, ctranslate2, onnx, gguf",
    "--precision int4": "the format transformers has no precision 'int4'; choose from float32, bfloat16, float16",
    "--precision int8": "the format transformers has no precision 'int8'; choose from float32, bfloat16, float16",
    "--half --precision float16": "not allowed with argument --half",
    "--ratios 1 9": "ratios from 1 to 2",
    "--ratios 1 2 --ratio 2": "both --ratios and --ratio were given; give one of them",
    "--check -1": "--check is -1; give 0 or more",
    "--max-latency-ms 0.0001": "no assembly takes 0.0001 ms or less for a text; the fastest of",
    "--max-latency-ms 5 --to gguf": "--max-latency-ms cannot be measured with --to gguf; choose another format",
    "--max-latency-ms nan": "max_latency_ms is nan; give a number above 0",
    f"--max-latency-ms -1 {POCKET}": "max_latency_ms is -1.0; give a number above 0",
    "--max-latency-ms 5 --min-quality 99": "both --max-latency-ms and --min-quality were given; give one of them",
    "--private": "--private has no effect without --push-to-hub; leave it out",
    "--max-latency-ms 5 --ratio 2": "both --max-latency-ms and --ratio were given; give one of them",
    "--push-to-hub ???": "could not upload to '???'",
}

#: Options of a training that transformers lacks, or that modtf checks.
TRAINING = {
    "--task poems": "the task 'poems' is unknown; choose from text, e2e, translation",
    "--task ''": "the task '' is unknown; choose from",
    "--task e2e": "in data; found no CSV files. Give the folder of the E2E data",
    "--source-prefix x --task e2e": "--source-prefix has no effect on the task 'e2e'",
    "--source-language deu_Latn": "knows no languages; leave out --source-language and --target-language",
    "--target-language eng_Latn": "knows no languages; leave out --source-language and --target-language",
    "--output notes.txt": "--output notes.txt is a file; give a folder for the checkpoints and the result",
    "--output-dir ''": "--output is missing; give a folder for the checkpoints and the result",
    "--batch-size 0": "--batch-size is 0; give 1 or more",
    "--batch-size 4 --gradient-accumulation-steps 3": "give a multiple of 3",
    "--steps 0": "--steps is 0; give 1 or more",
    "--max-steps -1": "--steps is -1; give 1 or more",
    "--per-device-train-batch-size 0": "--per-device-train-batch-size is 0; give 1 or more",
    "--gradient-accumulation-steps 0": "--gradient-accumulation-steps is 0; give 1 or more",
    "--gradient-accumulation-steps 3": "4 texts per step cannot be shared evenly",
    "--threads 0": "--threads is 0; give 1 or more",
    "--learning-rate 0": "--learning-rate is 0; give a number above 0",
    "--learning-rate nan": "--learning-rate is nan; give a number above 0",
    "--learning-rate inf": "--learning-rate is inf; give a number above 0",
    "--adamw-learning-rate -1": "--adamw-learning-rate is -1; give a number above 0",
    "--dropout 1": "--dropout is 1; give a number of at least 0 and below 1",
    "--dropout nan": "--dropout is nan; give a number of at least 0 and below 1",
    "--seed -1": "--seed is -1; give a number from 0 to 4294967295",
    "--seed 4294967296": "--seed is 4294967296; give a number from 0 to 4294967295",
    "--warmup-steps -1": "--warmup-steps is -1; give 0 or more",
    "--warmup-steps inf": "--warmup-steps is inf; give 0 or more",
    "--max-grad-norm -1": "--max-grad-norm is -1; give 0 or more",
    "--weight-decay -1": "--weight-decay is -1; give 0 or more",
    "--logging-steps 0": "--logging-steps is 0; give a number above 0",
    "--logging-steps 1.5": "--logging_steps must be an integer if bigger than 1",
    "--save-steps 0": "--save-steps is 0; give a number above 0",
    "--save-steps nan": "--save-steps is nan; give a number above 0",
    "--save-total-limit -1": "--save-total-limit is -1; give 0 or more",
    "--save-strategy best": "--save-strategy is best, but a training does not evaluate; give steps, epoch or no",
    "--optim adamw_torch_xla": "give another --optim",
    "--optim-args x": "--optim-args has no effect on the default optimizer, Muon with AdamW; give another one",
    "--optim-args x --optim adafactor": "give another --optim, other --optim-args",
    "--optim-target-modules x": "--optim-target-modules has no effect on the default optimizer",
    "--adam-beta1 0.8": "--adam-beta1 has no effect on the default optimizer",
    "--adam-beta1 1 --optim adamw_torch": "--adam-beta1 is 1; give a number of at least 0 and below 1",
    "--adam-beta2 -1 --optim adamw_torch": "--adam-beta2 is -1; give a number of at least 0 and below 1",
    "--adam-epsilon -1 --optim adamw_torch": "--adam-epsilon is -1; give 0 or more",
    "--lr-scheduler-type greedy": "lr_scheduler_type greedy requires an eval strategy",
    "--lr-scheduler-type warmup_stable_decay": "give another --lr-scheduler-type, or other --lr-scheduler-kwargs",
    "--lr-scheduler-kwargs x": "--lr-scheduler-kwargs x cannot be read as JSON",
    "--lr-scheduler-kwargs [1]": "--lr-scheduler-kwargs [1] cannot be read as JSON: it is no object; give an object",
    """--lr-scheduler-kwargs '{"x": 1}'""": "give another --lr-scheduler-type, or other --lr-scheduler-kwargs",
    "--gradient-checkpointing-kwargs '{x'": "--gradient-checkpointing-kwargs {x cannot be read as JSON",
    "--torch-compile-backend x": "give another --torch-compile-backend or --torch-compile-mode",
    "--torch-compile-mode x": "give another --torch-compile-backend or --torch-compile-mode",
    "--neftune-noise-alpha -1": "--neftune-noise-alpha is -1; give a number above 0",
    "--torch-empty-cache-steps 0": "`torch_empty_cache_steps` must be an integer bigger than 0",
    "--report-to x": "x is not supported, only",
    "--report-to comet_ml": "give another --report-to, such as none",
    "--push-to-hub": "or leave out --push-to-hub",
    "--accelerator-config /nowhere": "--accelerator-config /nowhere cannot be read as JSON",
    """--accelerator-config '{"x": 1}'""": "unexpected keyword argument 'x'",
    """--accelerator-config '{"split_batches": true}'""": "split_batches and dispatch_batches of --accelerator-config",
    "--dataloader-num-workers -1": "--dataloader-num-workers is -1; give 0 or more",
    "--dataloader-prefetch-factor 2": "--dataloader_prefetch_factor can only be set when",
    "--dataloader-persistent-workers": "give other options --dataloader-*",
    "--ddp-backend gloo": "--ddp-backend has no effect on one process; start several with torchrun",
    "--ddp-bucket-cap-mb 0": "--ddp-bucket-cap-mb is 0; give 1 or more",
    "--ddp-timeout 0": "--ddp-timeout is 0; give 1 or more",
    "--fsdp x": "Unknown `fsdp` option: x",
    "--fsdp full_shard": "Train a whole copy in each process (DDP)",
    "--fsdp-config empty": "--fsdp-config empty cannot be read as JSON",
    "--deepspeed /nowhere": "--deepspeed /nowhere cannot be read as JSON",
}
OF_TRANSFORMERS = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
if "activation_checkpointing_kwargs" in OF_TRANSFORMERS:  # the newer name of the other
    TRAINING["--activation-checkpointing-kwargs x"] = "--activation-checkpointing-kwargs x cannot be read as JSON"
NEW_FOLDER = {
    "--output ''": "--output is missing; give a folder",
    "--output notes.txt/run": "/notes.txt (Not a directory); give another one",
    "--output /proc/run": "nothing can be written to /proc",
    "--output kit": "--output kit holds another model (modtf.json); give a folder for this training alone",
    "--output original": "--output original holds another model (config.json); give a folder for this training alone",
}
MODEL = {
    "--model nobody": "the model nobody could not be loaded: there is no such folder, and the hub says: We couldn't connect",
    "--model /nowhere": "/nowhere holds no model (no config.json); give a folder that holds one, or a hub id",
    "--model notes.txt": "notes.txt holds no model (no config.json); give a folder that holds one, or a hub id",
    "--model kit": "kit holds no model (no config.json); give a folder that holds one, or a hub id",
    "--model bare": "bare holds no tokenizer (no tokenizer_config.json); save one there",
    "--model ''": "--model is empty; give a folder that holds a model, or a hub id",
}
TRAIN_KIT = {
    "--pairs -1": "--pairs is -1; give 0 or more",
    "--without-data": "the task 'text' cannot draw inputs; leave out --without-data",
    "--faultless": "the task text cannot tell which texts have faults; leave out --faultless",
    "--granularities 3": "granularity 3 does not divide the encoder's 4 layers; possible: 2, 4",
    "--granularities 0": "granularity 0 does not divide the encoder's 4 layers; possible: 2, 4",
    "--granularities 1": "no modularized layers, so nothing can be replaced; modularize it with granularities",
    "--begin-with /nowhere": "/nowhere holds no modtf.json, so it is not a modular model",
    "--begin-with notes.txt": "notes.txt/modtf.json cannot be read",
    "--begin-with cut-off": "missing or cut off",
    "--begin-with 'kit' --granularities 4": "do not fit this model",
    "--dev /nowhere": "/nowhere (dev) is no file or folder here",
    "--dev notes.txt": "notes.txt is of a kind that is not known; give one of .jsonl",
    "--dev empty": "empty has no dev.jsonl",
    "--watch-inputs -1": "--watch-inputs is -1; give 0 or more",
    "--watch-steps 0": "--watch-steps is 0; give 1 or more",
    "--config switch.yaml": "--config switch.yaml: faultless is 3; give true or false",
    "--ddp-find-unused-parameters false": "ddp_find_unused_parameters cannot be off, nor ddp_static_graph on; leave",
    "--ddp-static-graph true": "ddp_find_unused_parameters cannot be off, nor ddp_static_graph on; leave both out",
    "--neftune-noise-alpha 5": "neftune_noise_alpha has no effect here",
    "--labels-weight -1": "labels_weight -1, logits_weight 1, hidden_weight 0.2, attention_weight 0; give weights of 0 or",
    "--logits-weight 0 --hidden-weight 0": "at least one above 0",
    "--logits-weight nan": "logits_weight nan",
    "--hidden-weight inf": "hidden_weight inf",
    "--attention-weight -1": "attention_weight -1",
    "--temperature 0": "the temperature is 0.0; give one above 0",
    "--temperature nan": "the temperature is nan; give one above 0",
    "--replacing-probability 2": "replacing_probability is 2.0; give a number from 0 to 1",
    "--full-at 2": "full_at is 2.0; give a number from 0 to 1",
    "--coarse-at -1": "coarse_at is -1.0; give a number from 0 to 1",
    "--mixtures nan": "mixtures is nan; give a number from 0 to 1",
    "--whole 0.95": "mixtures and whole are shares of all steps, but 0.1 + 0.95 is more than 1; lower one of them",
    "--matched 2": "matched is 2.0; give a number from 0 to 1",
}
KIT_ALONE = {
    "--report-inputs -1": "--report-inputs is -1; give 0 or more",
    "--assemblies-per-step 0": "assemblies_per_step is 0; give 1 or more",
    "--assembly six": "'six' is not an assembly; write for example",
    "--assembly 'encoder 3 1 | decoder 2 2'": "the encoder has no granularity 3; it has 1, 2",
    "--assembly 'encoder [1]*4 | decoder [1]*4'": "is the original, which does not train; give an assembly with modules",
}
VERSUS = KIT | {
    "--output notes.txt/run": "give another one",
    "--output-dir x": "--output-dir has no effect here: --output says where all of them go; leave it out",
    "--output-dir ''": "--output-dir has no effect here",
    "--output_dir x": "--output-dir has no effect here",
    "--ratios 9": "ratios from 1 to 2",
    "--ratios 1": "a student of ratio 1 would be the original itself; give --ratios above 1",
    "--strategy quality_first": "invalid choice: 'quality_first' (choose from",
    "--split exam": EVALUATE["--split exam"],
    "--test /nowhere": "/nowhere (test) is no file or folder here",
    "--test questions.csv": "has no column 'source'; it has 'question', 'answer'",
    "--data data/train.jsonl": "is one file, from which the students learn; give another one, --test",
    "--report-inputs 5": "--report-inputs has no effect here: the students' texts are scored in the end; leave it out",
    "--assemblies-per-step 2": "--assemblies-per-step has no effect here: a student is one assembly; leave it out",
    "--assembly x": "--assembly has no effect here: --ratios and --strategy say what the students are; leave it out",
    "--original x": "--original has no effect here: the students are of the kit's original; leave it out",
}  # fmt: skip

TABLE: dict[str, dict[str, str]] = {
    "demo": {
        "--port -1": "-1 is not a valid port; give one from 1024 to 65535, or 0 for the default",
        "--port 99999999": "99999999 is not a valid port; give one from 1024 to 65535",
    },
    "generate": KIT | ASSEMBLY | {"--engine onnx": "engine 'onnx' is unknown; use one of loop, generate, ctranslate2"},
    "evaluate": KIT | DATA | EVALUATE,
    "profile": KIT | DATA | PROFILE,
    "export": {
        row: words
        for row, words in (KIT | ASSEMBLY | DATA | EXPORT).items()
        if not row.startswith("--config") and row != "--max-latency-ms 5"  # here that is measured
    },
    "plan": MODEL | DATA | TRAINING | TRAIN_KIT | KIT_ALONE,
    "train original": MODEL | DATA | TRAINING | NEW_FOLDER,
    "train kit": MODEL | DATA | TRAINING | NEW_FOLDER | TRAIN_KIT | KIT_ALONE,
    # Of one file the students could learn what they are tested on.
    "versus": {row: words for row, words in DATA.items() if not row.endswith((".jsonl", ".csv", ".txt"))}
    | TRAINING
    | TRAIN_KIT
    | VERSUS,
}

#: Options of transformers that take any text, or that name what only a distant machine can refuse.
ANY_TEXT = {
    "--run-name", "--project", "--trackio-space-id", "--trackio-bucket-id", "--trackio-static-space-id", "--hub-token",
    "--hub-model-id", "--hub-revision", "--label-names",
}  # fmt: skip

#: Whole command lines: arguments without a name, abbreviations, and commands that there are not.
LINES = {
    "": "the following arguments are required: command; see modtf --help",
    "fly": "invalid choice: 'fly' (choose from",
    "--colour red": "see modtf --help",
    "train": "the following arguments are required: what; see modtf train --help",
    "train cat": "invalid choice: 'cat' (choose from",
    "generate --model kit": "the following arguments are required: text; see modtf generate --help",
    "generate --model kit ''": "the text is empty; write something",
    "generate --model pocket colour[red]": "'colour' is unknown",
    "generate --model kit one two": "unrecognized arguments: two; see modtf generate --help",
    "export --model kit": "the following arguments are required: output; see modtf export --help",
    "export --model kit many": "/many exists and is not empty; choose a new folder",
    "export --model kit notes.txt": "/notes.txt exists and is not empty; choose a new folder",
    "export --model kit notes.txt/small": "could not save to ",
    "export --model kit /proc/small": "could not save to /proc/small",
    "export --model kit ''": "choose a new folder",
    "demo --por 8866": "unrecognized arguments: --por 8866, did you mean --port?; see modtf demo --help",
    "evaluate --conf list.yaml": "unrecognized arguments: --conf list.yaml, did you mean --config?; see modtf evaluate --help",
    "profile --conf list.yaml": "unrecognized arguments: --conf list.yaml, did you mean --config?; see modtf profile --help",
    "export out --conf list.yaml": "unrecognized arguments: --conf list.yaml; see modtf export --help",
    "plan --model original --conf list.yaml": "unrecognized arguments: --conf list.yaml, did you mean --config?; see modtf plan --help",
    "train original --tas e2e": "unrecognized arguments: --tas e2e, did you mean --task?; see modtf train original --help",
    "train kit --model original --conf list.yaml": "unrecognized arguments: --conf list.yaml, did you mean --config?; see modtf train kit",
    "versus --model kit --output out --conf list.yaml": "unrecognized arguments: --conf list.yaml, did you mean --config?; see modtf versus",
    "versus --model kit": "--output is missing; give a folder for the students and the result",
    "train original --data data --output out": "no recipe makes a new model for the task 'text'; give one to train further: --model",
    "train kit --output out": "the following arguments are required: --model/--original; see modtf train kit --help",
    "train kit --model original --data data": "--output is missing; give a folder",
    "train kit --model original --output out": "--data is missing; give a file, a folder or a data set of the hub",
}  # fmt: skip

# -- the options of each command -----------------------------------------------------------------------------------------


@cache
def options_of(command: str) -> tuple[argparse.Action, ...]:
    """From the parsers that the command uses; those of a training are made by the training."""
    parser: Any = cli._parser()
    for word in command.split():
        parser = next(action for action in parser._actions if isinstance(action.choices, dict)).choices[word]
    actions = [*parser._actions]
    if command in TRAININGS:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Found) as found:
            patch.setattr(training_options, "with_options_of_files", found_in)
            if command == "train original":
                training.original(argparse.Namespace(), [])
            training.parse_kit([], f"modtf {command}")
        names = {name for action in actions for name in action.option_strings}
        actions += [one for one in found.value.args[0]._actions if names.isdisjoint(one.option_strings)]
    return tuple(one for one in actions if one.option_strings and one.dest != "help")


class Found(Exception):
    """Carries the parser of a training out of it."""


def found_in(parser: argparse.ArgumentParser, arguments: Any) -> Any:
    raise Found(parser)


def of_a_wrong_type(action: argparse.Action) -> str | None:
    """The option with a value of another type; None where any text is of its type."""
    if action.nargs == 0:
        return f"{action.option_strings[-1]}=x"
    any_text = action.type in (None, str, Path) and not action.choices and action.dest not in NOT_OFFERED
    return None if any_text else f"{action.option_strings[-1]} x"


def rows_of(command: str) -> Iterator[tuple[str, str]]:
    """What is typed, and words of what is told."""
    known = options_of("train kit") if command in ("plan", "versus") else ()  # there they are read alike
    for action in options_of(command):
        if any(not set(action.option_strings).isdisjoint(one.option_strings) for one in known):
            continue
        if action.nargs in (None, "+") and action.dest not in OF_TRANSFORMERS:
            yield action.option_strings[-1], "expected "
        if row := of_a_wrong_type(action):
            yield row, action.option_strings[-1]
    for row, words in TABLE[command].items():
        yield row, words.replace("COMMAND", f"modtf {command}")


@pytest.mark.parametrize("command", TABLE)
def test_every_option_has_a_row(command: str) -> None:
    rows = {row.split()[0].split("=")[0] for row in TABLE[command]}
    for action in options_of(command):
        names = set(action.option_strings)
        covered = action.nargs == 0 or (action.dest in OF_TRANSFORMERS and of_a_wrong_type(action))
        assert covered or names & (rows | ANY_TEXT), f"{command} {names} needs a row in TABLE"
    known = {name for action in options_of(command) for name in action.option_strings}
    refused = {f"--{name}" for name in versus._FIXED} if command == "versus" else set()
    assert rows <= known | refused, f"{command} has no {rows - known}"


# -- what they tell ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an original, a kit, data, and much that is none of these."""
    folder = tmp_path_factory.mktemp("wrong")
    original = _t5("T5", 4, 4, vocab_size=len(tokenizer))
    for name in ("original", "bare"):
        original.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / "original")
    modtf.modularize(original, tokenizer=tokenizer).save_pretrained(folder / "kit", copy_original=True)
    shutil.copytree(folder / "kit", folder / "cut-off")
    banks = next((folder / "cut-off").glob("banks-*"))
    banks.write_bytes(banks.read_bytes()[:1000])
    (folder / "kit" / "options.yaml").write_text(
        "data: data\nmax_steps: 2\nbatch_size: 4\nreport_to: none\noriginal: original\n"
    )
    row = '{"source": "The Mill", "target": "a pub"}\n'
    for name in ("data", "empty", "many"):
        (folder / name).mkdir()
    files = {f"data/{split}.jsonl": row * 8 for split in ("train", "dev", "test")} | {
        "many/file": "", "notes.txt": "some notes", "questions.csv": "question,answer\na,b\n",
        "broken.jsonl": '{"source": "The', "numbers.jsonl": '{"source": 7, "target": "a pub"}',
        "blank.jsonl": '{"source": " ", "target": "a pub"}', "latin.jsonl": row.replace("pub", "caf\xe9"),
        "nothing.yaml": "", "broken.yaml": "a: [b", "unknown.yaml": "colour: red", "help.yaml": "help: true",
        "another.yaml": "config: list.yaml", "list.yaml": "max_source_length: [8, 9]",
        "words.yaml": "max_source_length: many", "mapping.yaml": "max_source_length: {tokens: 8}",
        "switch.yaml": "faultless: 3",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(content, encoding="latin-1")
    return folder


class Reached(Exception):
    """The work would begin: nothing was found wrong."""


@pytest.fixture
def type_in(world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a command line in the folder, up to where its work begins: the status, and the lines on stderr."""

    def begin(*given: Any, **named: Any) -> Any:
        raise Reached

    monkeypatch.chdir(world)
    for work in ("transformers.Trainer.train", "modtf.evaluation.write_texts", "modtf.profile.measure",
                 "modtf.views.serve.import_module"):  # fmt: skip
        monkeypatch.setattr(work, begin)
    # Once, not for each of many lines:
    monkeypatch.setattr(cli, "_parser", cache(cli._parser))
    kit = modtf.load("kit")
    monkeypatch.setattr(
        versus, "load_model", lambda given: kit if given.model == "kit" and given.task is None else load_model(given)
    )

    def run(line: str) -> tuple[Any, list[str]]:
        capfd.readouterr()
        try:
            status = cli.main(shlex.split(line))
        except (Exception, SystemExit) as error:
            status = repr(error)
        return status, capfd.readouterr().err.splitlines()

    return run


def files_in(folder: Path) -> dict[Path, Any]:
    return {path: path.is_file() and (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


#: Lines before the one that tells what is wrong: what was read until then, and the libraries' own warnings.
READ = re.compile(r"(train|dev|test): \d+ rows|as in |measured: |student 1 of 1: |\[transformers\] ")


def wrongly_told(type_in: Any, world: Path, line: str, words: str) -> str:
    """What is not as it should be; empty where all is well."""
    if "/proc" in line and sys.platform != "linux":  # nobody can write there, not even root
        return ""
    before = files_in(world)
    status, said = type_in(line)
    told = [one for one in said if not READ.match(one)]
    well = status == 2 and len(told) == 1 and told[0].startswith("modtf: ") and words in told[0] and told[0] == said[-1]
    left = files_in(world).items() ^ before.items()
    return "" if well and not left else f"\nmodtf {line}\n  {status} {said}, not {words!r}; left: {left}"


@pytest.mark.parametrize("command", TABLE)
def test_a_wrong_value_alone_is_told_in_one_line(command: str, type_in: Any, world: Path) -> None:
    lines = ((f"{command} {RIGHT[command]} {row}", words) for row, words in rows_of(command))
    if problems := "".join(wrongly_told(type_in, world, line, words) for line, words in lines):
        pytest.fail(problems, pytrace=False)


def test_wrong_lines_are_told_in_one_line(type_in: Any, world: Path) -> None:
    if problems := "".join(wrongly_told(type_in, world, line, words) for line, words in LINES.items()):
        pytest.fail(problems, pytrace=False)


@pytest.mark.parametrize("command", RIGHT)
def test_what_is_right_reaches_the_work(command: str, type_in: Any, world: Path) -> None:
    """So that it is the wrong value that is told, and nothing else."""
    before = files_in(world)
    status, said = type_in(f"{command} {RIGHT[command]}")
    assert status == (0 if command in ("generate", "export") else "Reached()"), said
    for path in files_in(world).keys() - before.keys():
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("line", "work", "final"),
    [
        ("evaluate --model kit --json scores.json", "modtf.evaluation.write_texts", "scores.json"),
        ("profile --model kit", "modtf.profile.measure", "kit/profile.json"),
        ("export --model kit out", "transformers.PreTrainedTokenizerBase.save_pretrained", "out"),
        (f"train kit {RIGHT['train kit']}", "modtf.evaluation.write_texts", "out/pairs.jsonl"),
        (f"train kit {RIGHT['train kit']} --pairs 0", "transformers.Trainer.train", "out/modtf.json"),
        (f"train original {RIGHT['train original']}", "transformers.Trainer.train", "out/config.json"),
        ("versus --model kit --output out --pairs 0", "transformers.Trainer.train", "out/versus.json"),
    ],
)
def test_ctrl_c_leaves_nothing_under_the_final_name(
    line: str, work: str, final: str, type_in: Any, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    before = files_in(world)
    monkeypatch.setattr(work, interrupted)
    status, said = type_in(line)
    assert status == 130 and said[-1] == "modtf: stopped"
    assert not (world / final).exists()
    for path in files_in(world).keys() - before.keys():
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
