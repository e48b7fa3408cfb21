"""The memory and the seconds that a large checkpoint takes: made of transformers' files, scored and generated from.

Its weights are random, and written tensor by tensor. Prints a Markdown table. A peak is the resident memory of the
whole process; what of it is not of files cannot be given back while the process runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from cgpt.experiment import load
from cgpt.host import granted_cores
from cgpt.model import config as hf_config
from cgpt.model.gpt import parameter_shapes
from cgpt.recipe import flops
from cgpt.spec import Model

FORMS = ("float32", "shards", "bfloat16", "bin")  # of transformers' files: float32 in one file where not said otherwise
TENSORS_A_SHARD = 100
N_DOCUMENTS, N_PROMPT, N_NEW, N_SAMPLES = 2, 1000, 8, 2
POLL_S = 0.01
CGPT = (sys.executable, "-m", "cgpt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cerebras-gpt-111m", help="a row of workflows/models.yaml")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="transformers' files to import")
    parser.add_argument("--threads", type=int, default=granted_cores())
    parser.add_argument("--folder", type=Path, help="where the files go, and are removed (default: a temporary one)")
    parser.add_argument("--evaluate", type=Path, help=argparse.SUPPRESS)  # what this program calls itself with
    arguments = parser.parse_args()
    if arguments.evaluate:
        evaluate(arguments.evaluate, arguments.threads)
        return
    config = load.read_workflow(Path.cwd()).models[arguments.model]
    n_bytes = 4 * flops.n_parameters(config)
    print(f"{arguments.model}: {n_bytes / 1e6:,.0f} MB in float32\n")
    print("| what | s | peak MB | of weights | not of files MB | of weights |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="cgpt-bench-", dir=arguments.folder) as folder:
        for name, command in commands(Path(folder), config, arguments):
            seconds, peak, anonymous = watched(command)
            print(f"| {name} | {seconds:.0f} | {peak / 1e6:,.0f} | {peak / n_bytes:.2f} | {anonymous / 1e6:,.0f} "
                  f"| {anonymous / n_bytes:.2f} |", flush=True)  # fmt: skip


def commands(folder: Path, config: Model, arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Each command with its name, when its files are there."""
    for form in arguments.forms:
        theirs, ours = folder / form, folder / f"{form}-checkpoint"
        write_theirs(theirs, config, form)
        yield f"import-hf, {form}", [*CGPT, "import-hf", str(theirs), "--out", str(ours)]
        for file in theirs.iterdir():
            file.unlink()
        if form != arguments.forms[-1]:
            (ours / "model.safetensors").unlink()
    threads = ["--threads", str(arguments.threads)]
    yield "evaluate", [sys.executable, __file__, "--evaluate", str(ours), *threads]
    prompt = " ".join(f"w{n}" for n in range(1, min(N_PROMPT, config.seq_len - N_NEW) + 1))
    settings = ["--max-new-tokens", str(N_NEW), "--num-return-sequences", str(N_SAMPLES)]
    yield "generate", [*CGPT, "generate", "--checkpoint", str(ours), "--prompt", prompt, *settings, *threads]


def watched(command: Sequence[str]) -> tuple[float, int, int]:
    """Seconds of a command, the most bytes that were resident, and the most of them that are of no file."""
    started, peaks = time.monotonic(), (0, 0)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        kilobytes = dict(line.split()[:2] for line in status.splitlines() if line.endswith(" kB"))
        if "VmHWM:" in kilobytes:  # not in the moment in which it ends
            now = int(kilobytes["VmHWM:"]), int(kilobytes["RssAnon:"]) + int(kilobytes["RssShmem:"])
            peaks = max(peaks[0], now[0]), max(peaks[1], now[1])
        time.sleep(POLL_S)
    assert process.stderr
    if process.returncode:
        raise SystemExit(process.stderr.read())
    return time.monotonic() - started, peaks[0] * 1024, peaks[1] * 1024


def evaluate(checkpoint: Path, threads: int) -> None:
    """Score texts that fill the model's context, as the stage does."""
    from cgpt.checkpoint import load as load_checkpoint
    from cgpt.inference.lm_eval_model import Adapter
    from cgpt.stages.evaluate import score_task
    from cgpt.tasks import lm_eval_tasks

    model, tokenizer = load_checkpoint(checkpoint, threads=threads)
    with tempfile.TemporaryDirectory(prefix="cgpt-bench-") as folder:
        (Path(folder) / "texts").mkdir()
        text = " ".join(f"w{n}" for n in range(1, model.config.seq_len + 1))
        lines = json.dumps({"text": text}) + "\n"
        (Path(folder) / "texts" / "test.jsonl").write_text(lines * N_DOCUMENTS)
        task = {"task": "texts", "data": "texts", "dataset_path": "json", "output_type": "loglikelihood_rolling",
                "dataset_kwargs": {"data_files": {"test": "test.jsonl"}}, "test_split": "test", "doc_to_text": "",
                "doc_to_target": "{{text}}", "metric_list": [{"metric": "bits_per_byte"}]}  # fmt: skip
        scores, _ = score_task(task, lm_eval_tasks.build(task, Path(folder)), Adapter(model, tokenizer))
    print(*scores, sep="\n")


def write_theirs(folder: Path, config: Model, form: str) -> None:
    """A folder as transformers has it, of random weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hf_config.to_json(config)))
    words = {f"w{i}": i for i in range(flops.vocabulary(config) - 1)} | {"<|endoftext|>": flops.vocabulary(config) - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    shapes = parameter_shapes(config)
    if form == "bin":
        write_torch_file(folder / "pytorch_model.bin", shapes)
    elif form != "shards":
        write_safetensors(folder / "model.safetensors", shapes, form)
    else:
        weight_map = {name: f"model-{i // TENSORS_A_SHARD}.safetensors" for i, name in enumerate(shapes)}
        for file in set(weight_map.values()):
            write_safetensors(folder / file, {name: shapes[name] for name in shapes if weight_map[name] == file})
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def drawn(shapes: dict[str, tuple[int, ...]]) -> Iterator[np.ndarray]:
    """Random weights, float32; those of LayerNorm are 1 and biases 0 on average too."""
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        yield 0.02 * rng.standard_normal(shape, np.float32) + np.float32("ln_" in name and name.endswith("weight"))


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "float32") -> None:
    """A file of safetensors, without its library, which takes all tensors at once."""
    name_there, size = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}[dtype]
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + size * int(np.prod(shape))
        header[name] = {"dtype": name_there, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in drawn(shapes):
            file.write(values if size == 4 else (values.view(np.uint32) >> 16).astype(np.uint16))


def write_torch_file(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """What torch.save writes of a state dict, without torch."""
    entries = b""
    for i, (name, shape) in enumerate(shapes.items()):
        n, strides = int(np.prod(shape)), [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        sizes, steps = ("(" + "".join(f"I{number}\n" for number in numbers) + "t" for numbers in (shape, strides))
        storage = f"(Vstorage\nctorch\nFloatStorage\nV{i}\nVcpu\nI{n}\ntQ"
        entries += f"V{name}\nctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n{sizes}{steps}tR".encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"(" + entries + b"d.")
        for i, values in enumerate(drawn(shapes)):
            with archive.open(f"archive/data/{i}", "w", force_zip64=True) as file:
                file.write(values)


if __name__ == "__main__":
    main()
