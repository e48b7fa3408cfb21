"""The most memory that a run takes on the processor, from what is allocated: the process with its libraries, weights
and moments, what a step keeps, what scoring takes, and the copies that saving a state makes.

Shapes: B sequences a forward pass, T tokens, d = d_model, F = width of the feed-forward layer, H heads, V = vocabulary,
N parameters. Numbers are 32-bit. Bytes of libraries, and what an allocator keeps of what is freed, were measured.
"""

from cgpt.recipe import flops
from cgpt.spec import Model, Train

FLOAT_BYTES = 4
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}  # of a weight of products
# Python, tinygrad and OpenBLAS, and building the graph of a step; from finetune on also lm-evaluation-harness. How much
# of the libraries' files is resident is up to the system: 119 to 129 MB were seen for pretrain.
PROCESS_BYTES = {"pretrain": 128 * 10**6, "finetune": 180 * 10**6, "evaluate": 180 * 10**6, "generate": 140 * 10**6,
                 "import": 100 * 10**6}  # fmt: skip
COMPILING_BYTES = 45 * 10**6  # what tinygrad's own kernels take more to build
HEAD_ROWS, QUERY_BLOCK = 256, 64  # of native/c/common.h: rows whose logits, and queries whose scores, exist at once
SCORED_TOKENS = 4096  # of one forward pass of cgpt.model.loglikelihood
STATE = 3  # floats of a parameter while it is trained: weight and two Adam moments
INITIAL = 0.5  # floats of a parameter that the allocator keeps of its initial values
SAVING = 8  # floats of a parameter in the copies that a state to resume from makes; a checkpoint's are written alone
COMPARING = 2  # of the best epoch's weights, and this one's


def pretraining_bytes(
    model: Model, train: Train, threads: int = 1, kernels: str = "native", dtype: str = "float32"
) -> int:
    """Peak of a pretraining run whose `steps` are known. A run that is not shorter than its first checkpoint saves."""
    micro = train.micro_batch_size or train.batch_size
    state = STATE + INITIAL + (micro < train.batch_size)  # sums of gradients, over micro-batches
    state += SAVING * ((train.steps or 0) >= train.checkpoint_every_steps)
    windows = min(train.eval_batches * train.batch_size, _scored_at_once(model))
    floats = state * flops.n_parameters(model) + _step(model, micro, threads, kernels, model.seq_len)
    floats += _packed(model, micro * model.seq_len, kernels, dtype)
    return _bytes("pretrain", floats + _scoring(model, windows, kernels), kernels)


def finetuning_bytes(model: Model, batch_size: int, threads: int = 1, kernels: str = "native",
                     longest: int | None = None, dtype: str = "float32") -> int:  # fmt: skip
    """Peak of fine-tuning on examples of at most `longest` tokens; None: as long as the model's context."""
    state, length = STATE + INITIAL + COMPARING, min(longest or model.seq_len, model.seq_len)
    floats = state * flops.n_parameters(model) + _step(model, batch_size, threads, kernels, length)
    floats += _packed(model, batch_size * length, kernels, dtype)
    return _bytes("finetune", floats + _scoring(model, _scored_at_once(model), kernels), kernels)


def evaluation_bytes(
    model: Model, threads: int = 1, kernels: str = "native", dtype: str = "float32", weights_dtype: str = "float32"
) -> int:
    """Peak of an evaluation, without the task's documents: weights are the pages of their file, which those that are
    rounded give back."""
    scoring = _scoring(model, _scored_at_once(model), kernels) + _packed(model, SCORED_TOKENS, kernels, dtype)
    return _bytes("evaluate", _weights(model, weights_dtype) + scoring, kernels)


def loading_bytes(model: Model, weights_dtype: str = "float32") -> int:
    """Peak of a process that has opened a checkpoint and read all of its weights once."""
    return _bytes("generate", _weights(model, weights_dtype), "native")


def generation_bytes(model: Model, n_sequences: int, n_tokens: int, kernels: str = "native") -> int:
    """Peak of generating sequences of so many tokens, prompts included: the weights, and the keys and values of all
    tokens."""
    cached = n_sequences * n_tokens * 2 * model.n_layer * model.d_model
    return _bytes("generate", flops.n_parameters(model) + cached, kernels)


def import_bytes(model: Model) -> int:
    """Peak of an import, which reads, casts and writes one tensor after the other: at most three of the largest."""
    largest = max(flops.vocabulary(model) * model.d_model, model.d_model * flops.ffn_width(model))
    return _bytes("import", 3 * largest, "native")


def _weights(model: Model, weights_dtype: str) -> float:
    """Floats of the weights of a model that is not trained."""
    rounded_away = flops.n_multiplied(model) * (1 - WEIGHT_BYTES[weights_dtype] / FLOAT_BYTES)
    return flops.n_parameters(model) - rounded_away


def _bytes(stage: str, floats: float, kernels: str) -> int:
    return round(PROCESS_BYTES[stage] + (COMPILING_BYTES if kernels != "native" else 0) + FLOAT_BYTES * floats)


def _scored_at_once(model: Model) -> int:
    return max(1, SCORED_TOKENS // model.seq_len)


def _step(model: Model, n_sequences: int, threads: int, kernels: str, length: int) -> float:
    """Floats of one forward and backward pass: activations kept, gradients, and what the kernels work in.

    Kept per token and layer: 8 d (both norms' input and output, q k v, attention out) and 2 F (before and after the
    activation); tinygrad's own kernels also keep 2 H T attention weights, and the logits and their gradient. Backward,
    each layer's activations make room for its gradients, so that the peak is at one end of it.
    """
    d, f, n_layer, vocab = model.d_model, flops.ffn_width(model), model.n_layer, flops.vocabulary(model)
    tokens, n_parameters = n_sequences * length, flops.n_parameters(model)
    layer = tokens * (8 * d + 2 * f)
    if kernels != "native":
        layer += tokens * 2 * model.n_head * length
        return n_parameters + n_layer * layer + 2 * tokens * vocab
    passing = max(n_layer * layer + vocab * d, n_parameters + layer) + tokens * (3 * d + f)
    scratch = (
        threads * QUERY_BLOCK * max(2 * model.seq_len, d + vocab)
    )  # of threads: scores of queries, or their logits
    return passing + max(tokens * f, scratch) + HEAD_ROWS * (d + vocab)


def _scoring(model: Model, n_sequences: int, kernels: str) -> float:
    """Floats of a forward pass without gradients, of which no layer is kept."""
    d, f, tokens = model.d_model, flops.ffn_width(model), n_sequences * model.seq_len
    if kernels != "native":
        return tokens * max(6 * d + 2 * model.n_head * model.seq_len, d + flops.vocabulary(model))
    return tokens * max(3 * f, 6 * d)


def _packed(model: Model, tokens: int, kernels: str, dtype: str) -> float:
    """Floats in which the native kernels keep operands in bfloat16, of two bytes: those of the largest product, and the
    head's weights in two orders, for logits and for gradients."""
    if kernels != "native" or dtype != "bfloat16":
        return 0
    d, f, vocab = model.d_model, flops.ffn_width(model), flops.vocabulary(model)
    largest = max(tokens * (d + f), (tokens + d) * f, HEAD_ROWS * (vocab + d))
    return largest / 2 + vocab * d
