"""`cgpt generate`: what it prints, streams and refuses, and stop strings as in transformers."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bigram
import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer

from cgpt import checkpoint as checkpoints
from cgpt.__main__ import main
from cgpt.commands.generate import Stream, encode
from cgpt.inference.generate import Generator
from cgpt.inference.stop_strings import StopStrings
from cgpt.kernels.native import bfloat16
from cgpt.spec import Model

TOKENIZER = bigram.make_tokenizer()
CONFIG = Model("spoken", n_layer=2, d_model=32, n_head=2, seq_len=64, vocab_size=TOKENIZER.get_vocab_size())
PROMPT = "the film is"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint of a random model with a byte-level tokenizer."""
    root = tmp_path_factory.mktemp("spoken")
    TOKENIZER.save(str(root / "made.json"))
    params = tiny.rough_parameters(CONFIG, seed=4)
    checkpoints.save(root / "checkpoint", CONFIG, params, root / "made.json")
    return root / "checkpoint"


def run(folder: Path, capsys, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Standard output and standard error of `cgpt generate`."""
    result = main(["generate", "--checkpoint", str(folder), "--threads", str(tiny.THREADS), *arguments])
    out, err = capsys.readouterr()
    assert result == code, err
    return out, err


def test_text_json_and_stream_say_the_same(folder, capsys):
    options = ["--prompt", PROMPT, "--greedy", "--max-length", "40"]
    text, err = run(folder, capsys, *options)
    assert "new tokens in" in err
    assert run(folder, capsys, *options, "--stream")[0] == text
    result = json.loads(run(folder, capsys, *options, "--json")[0])
    (entry,) = result["continuations"]
    assert entry["prompt"] + entry["text"] + "\n" == text
    assert len(entry["tokens"]) == result["n_new_tokens"] == 40 - len(TOKENIZER.encode(PROMPT).ids)
    assert entry["finish_reason"] == "length" and result["settings"]["do_sample"] is False
    model, _ = checkpoints.load(folder, threads=tiny.THREADS)
    assert Generator(model).generate([TOKENIZER.encode(PROMPT).ids], result["n_new_tokens"]) == [entry["tokens"]]


def test_several_prompts_and_samples_are_numbered_and_the_seed_repeats_them(folder, capsys, tmp_path):
    (tmp_path / "prompt.txt").write_text("a calm river\n")
    options = ["--prompt", PROMPT, "--prompt-file", str(tmp_path / "prompt.txt"), "--num-return-sequences", "2"]
    texts = run(folder, capsys, *options, "--seed", "3")[0]
    assert [texts.count(f"{i}: {PROMPT}") for i in range(3)] == [1, 1, 0]
    assert [texts.count(f"{i}: a calm river") for i in range(1, 4)] == [0, 1, 1]
    assert run(folder, capsys, *options, "--seed", "3")[0] == texts != run(folder, capsys, *options)[0]
    result = json.loads(run(folder, capsys, *options, "--json", "--num-beams", "3")[0])
    assert [len(entry["tokens"]) for entry in result["continuations"]] == [20] * 4


def test_a_streamed_text_is_the_decoded_text_whatever_the_bytes(capsys):
    rng = np.random.default_rng(0)
    text = "a café 😀, naïve 中文 "
    words = TOKENIZER.encode(text).ids
    for n in (0, 1, 2, 3, 5, 40, 40, 40):
        tokens = [*words, *rng.integers(0, CONFIG.vocab_size, n).tolist(), *words]
        stream = Stream("> ", [], TOKENIZER)
        shown = [capsys.readouterr().out]
        for token in tokens:
            stream.add(token)
            shown.append(capsys.readouterr().out)
        stream.end()
        assert "".join(shown) + capsys.readouterr().out == f"> {TOKENIZER.decode(tokens)}\n"
        assert "".join(shown[1 : len(words) + 1]) == text
        assert "" in shown[1 : len(words) + 1]  # part of a character is not shown


def test_a_stop_string_ends_the_text_and_is_kept(folder, capsys):
    options = ["--prompt", PROMPT, "--greedy", "--max-new-tokens", "30", "--json"]
    (free,) = json.loads(run(folder, capsys, *options)[0])["continuations"]
    stop = free["text"][len(free["text"]) // 2 :][:3]
    (cut,) = json.loads(run(folder, capsys, *options, "--stop", "never there", "--stop", stop)[0])["continuations"]
    assert free["text"].startswith(cut["text"]) and stop in cut["text"]
    assert stop not in TOKENIZER.decode(cut["tokens"][:-1])
    assert len(cut["tokens"]) < 30 and cut["finish_reason"] == "stop"


@pytest.mark.slow
def test_stop_strings_end_where_those_of_transformers_end(folder):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    model, _ = checkpoints.load(folder, threads=tiny.THREADS)
    ended = set()
    for prompt in (PROMPT, "who was here ?"):
        ids = TOKENIZER.encode(prompt).ids
        free = Generator(model).generate([ids], 30)[0]
        for at in (1, 4, 9, 15):
            stop = TOKENIZER.decode(free[at : at + 2])[-3:]
            if "\ufffd" in stop:
                continue
            wanted = peer.generate(
                torch.tensor([ids]), do_sample=False, max_new_tokens=30, eos_token_id=None, pad_token_id=0,
                stop_strings=[stop], tokenizer=tokenizer,
            )[0, len(ids) :].tolist()  # fmt: skip
            assert Generator(model).generate([ids], 30, stop=StopStrings(TOKENIZER, [stop])) == [wanted]
            ended.add(len(wanted))
    assert len(ended) > 2


def test_the_context_ends_a_text_and_is_named(folder, capsys):
    out, err = run(folder, capsys, "--prompt", PROMPT, "--max-new-tokens", "1000", "--json")
    (entry,) = json.loads(out)["continuations"]
    assert len(entry["tokens"]) == CONFIG.seq_len - len(TOKENIZER.encode(PROMPT).ids)
    assert "continuation 0 ends where the context of 64 tokens is full" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], 'prompt: is missing; write --prompt "..." or --prompt-file FILE'),
        (["--prompt", ""], "prompt: is empty; give at least one token (<|endoftext|> starts a document)"),
        (["--prompt", "a " * 99], "prompt: has 100 tokens, the model's context of 64 has room for 63 and a new one; "
         "shorten it"),
        (["--prompt-file", "none.txt"], "none.txt: No such file or directory; name a file that holds a prompt"),
        (["--prompt", PROMPT, "--max-length", "3"], "max_length: is 3, and the prompt alone has 3 tokens; write more"),
        (["--prompt", PROMPT, "--stop", ""], "stop: is empty; write a text that ends a continuation, or leave it out"),
        (["--prompt", PROMPT, "--max-new-tokens", "0"], "max_new_tokens: is 0; write a whole number above 0"),
        (["--prompt", PROMPT, "--greedy", "--top-p", "0.5"],
         "top_p: is for a sample, which --greedy and --num-beams exclude; leave one of them out"),
        (["--prompt", PROMPT, "--early-stopping", "true"],
         "early_stopping: is for beam search, which needs --num-beams above 1; leave one of them out"),
        (["--prompt", PROMPT, "--stream", "--json"],
         "stream: prints text as it comes, and --json one object at the end; leave one of them out"),
        (["--prompt", PROMPT, "--stream", "--num-return-sequences", "2"],
         "stream: shows one continuation; give one prompt, without num_return_sequences and num_beams"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(folder, capsys, arguments, message):
    assert run(folder, capsys, *arguments, code=1) == ("", message + "\n")


def test_bytes_that_are_no_text_are_refused_by_name(folder, capsys):
    """An argument `$(printf 'caf\\xe9')` comes with the byte as a lone surrogate; so does JSON's half a character."""
    for argument in ("--prompt", "--stop"):
        others = ["--prompt", PROMPT] if argument == "--stop" else []
        assert run(folder, capsys, *others, argument, "caf\udce9", code=1) == ("", (
            f"{argument[2:]}: holds byte 0xe9, which is not UTF-8 text; write it in UTF-8, or put it into a file\n"
        ))  # fmt: skip
        assert "half of a character (U+D83D)" in run(folder, capsys, *others, argument, "a\ud83d", code=1)[1]
    escaped = "naïve".encode().decode("ascii", "surrogateescape")  # as Python reads it in a locale of ASCII
    (entry,) = json.loads(run(folder, capsys, "--prompt", escaped, "--json")[0])["continuations"]
    assert entry["prompt"] == "naïve"


def test_a_prompt_file_has_its_text_without_byte_order_mark_and_with_plain_line_ends(folder, capsys, tmp_path):
    path = tmp_path / "prompt.txt"
    for content in (b"\xef\xbb\xbfthe film\r\nis\r\n", b"the film\nis", b"the film\ris\n"):
        path.write_bytes(content)
        (entry,) = json.loads(run(folder, capsys, "--prompt-file", str(path), "--json")[0])["continuations"]
        assert entry["prompt"] == "the film\nis"
    for content, wanted_text in (
        ("the film".encode("utf-16"), "is UTF-16 text; convert the file to UTF-8"),
        (b"caf\xe9", "byte 3: is not UTF-8 text (0xe9); convert the file to UTF-8"),
    ):
        path.write_bytes(content)
        assert run(folder, capsys, "--prompt-file", str(path), code=1) == ("", f"{path}: {wanted_text}\n")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
@pytest.mark.parametrize("option", ["--greedy", "--stream", "--json"])
def test_an_answer_is_written_in_whatever_the_terminal_can_show(folder, encoding, option, monkeypatch):
    terminal, prompt = io.BytesIO(), "the “film” is 東"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding))
    assert main(["generate", "--checkpoint", str(folder), "--threads", "2", "--prompt", prompt, option]) == 0
    sys.stdout.flush()
    out = terminal.getvalue().decode(encoding)
    if option == "--json":
        assert json.loads(out)["continuations"][0]["prompt"] == prompt
    else:
        assert out.startswith(prompt.encode(encoding, "replace").decode(encoding))


def test_a_locale_that_knows_only_ascii_loses_nothing(folder):
    """Neither of the arguments nor of the answer, and files are read as UTF-8."""
    environment = os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "cgpt", "generate", "--checkpoint", str(folder), "--threads", "1"]
    done = subprocess.run(
        [*command, "--prompt", "the “film”"], env=environment, capture_output=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"the ?film?")


def test_the_end_tokens_that_a_checkpoint_names_end_a_text(folder, capsys, tmp_path):
    root = Path(shutil.copytree(folder, tmp_path / "checkpoint"))
    options = ["--prompt", PROMPT, "--greedy", "--max-new-tokens", "30", "--json"]
    (free,) = json.loads(run(root, capsys, *options)[0])["continuations"]
    at = next(n for n in range(4, 30) if free["tokens"][n] not in free["tokens"][:n])
    end, never = free["tokens"][at], next(i for i in range(CONFIG.vocab_size) if i not in free["tokens"])
    config = json.loads((root / "config.json").read_text())
    for by_config, by_generation in ((end, None), (never, end), (never, [never, end, 50256]), ([end], {})):
        (root / "config.json").write_text(json.dumps(config | {"eos_token_id": by_config}))
        generation = by_generation if isinstance(by_generation, dict) else {"eos_token_id": by_generation}
        (root / "generation_config.json").write_text(json.dumps(generation))
        (cut,) = json.loads(run(root, capsys, *options)[0])["continuations"]
        assert (cut["tokens"], cut["finish_reason"]) == (free["tokens"][:at], "stop")
    (root / "generation_config.json").write_text(json.dumps({"eos_token_id": "</s>"}))
    assert "eos_token_id: is '</s>', a token id or a list of them is expected" in run(root, capsys, *options, code=1)[1]


def test_a_character_without_a_token_is_refused():
    from tokenizers import models, pre_tokenizers

    from cgpt.errors import UserError

    words = Tokenizer(models.WordLevel({"<unk>": 0, "the": 1, "film": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters = Tokenizer(models.BPE({"t": 0, "h": 1, "e": 2, " ": 3}, []))
    assert encode("the film", words) == [1, 2] and encode("the", letters) == [0, 1, 2]
    for tokenizer in (words, letters):
        with pytest.raises(UserError) as caught:
            encode("the 中文", tokenizer)
        assert str(caught.value) == "prompt: '中文' is unknown to the tokenizer; leave it out"


def test_a_profile_that_cannot_compute_here_is_refused_before_the_checkpoint_is_read(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bfloat16, "instructions", lambda: None)
    _, err = run(tmp_path / "nowhere", capsys, "--prompt", PROMPT, "--hardware", "cpu-bf16", code=1)
    assert err.startswith("hardware_profiles/cpu-bf16.yaml: dtype: bfloat16 is slower here than float32, as ")
    assert len(err.splitlines()) == 1
