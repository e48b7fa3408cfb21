"""A transformer as the cost model sees it: its widths, and the weights and FLOPs that follow from them."""

from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from cgpt.errors import UserError, did_you_mean
from cgpt.files.layers import file_of
from cgpt.recipe import flops
from cgpt.spec import Model

FLAGS = ("gated", "tied")  # fields of Shape that are true or false
LARGEST = 10**9  # of a number of a shape


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer. `gated`: the feed-forward layer has three matrices, not two. `tied`: the head is the
    embedding, so that both are one matrix, held, updated and sent once.

    `vocab_size` 0 stands for an encoder without a language-model head. `other_weights` are norms, biases and positions:
    held and updated, and too few to be counted in products and traffic.
    """

    n_layer: int
    d_model: int
    d_ffn: int
    n_head: int
    n_kv_head: int
    vocab_size: int
    seq_len: int
    gated: bool = False
    tied: bool = False
    other_weights: int = 0

    @property
    def kv_width(self) -> int:
        """Width of the keys, and of the values, of one token."""
        return self.d_model * self.n_kv_head // self.n_head

    @property
    def layer_weights(self) -> int:
        """Weights in the matrices of one layer."""
        attention = 2 * self.d_model * (self.d_model + self.kv_width)
        return attention + (3 if self.gated else 2) * self.d_model * self.d_ffn

    @property
    def head_weights(self) -> int:
        """Weights of the language-model head."""
        return self.vocab_size * self.d_model

    @property
    def matmul_weights(self) -> int:
        """Weights that a token is multiplied with: the layers and the head, not the embedding."""
        return self.n_layer * self.layer_weights + self.head_weights

    @property
    def n_parameters(self) -> int:
        """Every weight once: those of products, the embedding where it is not the head too, and `other_weights`."""
        return self.matmul_weights + (0 if self.tied else self.head_weights) + self.other_weights

    def attention_flops(self, tokens: float) -> float:
        """Forward FLOPs of scores and values in one layer, where each token sees all `seq_len`: 4 S d a token."""
        return 4.0 * self.seq_len * self.d_model * tokens

    @property
    def training_flops_per_token(self) -> float:
        """6 N + 12 L S d: N the matmul weights, forward and twice that backward, no recomputation, nothing halved."""
        return 6.0 * self.matmul_weights + 3 * self.n_layer * self.attention_flops(1)

    def forward_flops(self, tokens: int, context: int) -> float:
        """Forward FLOPs of `tokens` each of which sees `context` tokens: 2 a weight and token, and attention's."""
        return 2.0 * self.matmul_weights * tokens + 4.0 * self.n_layer * context * self.d_model * tokens

    def kept_bytes_per_token(self, bytes_per_value: int) -> int:
        """Bytes kept of one layer from forward to backward: 8 d (norms, q k v, attention out, residuals), 2 d_ffn.

        A gated layer keeps 3 d_ffn. Attention weights are not kept: they are computed block by block.
        """
        return bytes_per_value * (8 * self.d_model + (3 if self.gated else 2) * self.d_ffn)

    def cached_values(self, context: int) -> int:
        """Keys and values of one layer for `context` tokens."""
        return 2 * context * self.kv_width


def of_model(row: Model) -> Shape:
    """The shape of a row of models.yaml, with its exact number of parameters; raises UserError where its vocabulary is
    left to the tokenizer."""
    if row.vocab_size is None:
        raise UserError(f"{file_of('models', row.name)}: models.{row.name}: has no vocab_size, and a forecast "
                        "needs it; write one there, or --vocab-size")  # fmt: skip
    matrices = Shape(row.n_layer, row.d_model, flops.ffn_width(row), row.n_head, row.n_head, row.vocab_size,
                     row.seq_len, tied=row.tie_embeddings)  # fmt: skip
    return replace(matrices, other_weights=flops.n_parameters(row) - matrices.n_parameters)


def parse(text: str) -> Shape:
    """The shape of `n_layer=32,d_model=4096,...`; d_ffn is 4 d_model, n_kv_head n_head where left out, `vocab` will do.

    Raises UserError, one line a problem.
    """
    known = {f.name for f in fields(Shape)} - {"other_weights"}
    problems: list[str] = []
    values: dict[str, Any] = {}
    named: set[str] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        key, equals, value = part.partition("=")
        key = "vocab_size" if key == "vocab" else key
        wanted, example = ("true or false", "true") if key in FLAGS else (f"a whole number from 1 to {LARGEST:,}", 32)
        if not equals or key not in known:
            problems.append(f"--shape: '{part}' is not `key=value` with a known key; {did_you_mean(key, known)}")
        elif key in named:
            problems.append(f"--shape: {key}: stands there twice; write it once")
        elif not (value in ("true", "false") if key in FLAGS else _is_count(value)):
            problems.append(f"--shape: {key}: must be {wanted}, not '{value[:30]}'; write e.g. {key}={example}")
        else:
            values[key] = value == "true" if key in FLAGS else int(value)
        named.add(key)
    values.setdefault("d_ffn", 4 * values.get("d_model", 0))
    values.setdefault("n_kv_head", values.get("n_head", 0))
    problems += [f"--shape: {f.name}: is missing; write `{f.name}=<a whole number>`" for f in fields(Shape)
                 if f.default is MISSING and f.name not in {*values, *named}]  # fmt: skip
    if not problems and (values["d_model"] % values["n_head"] or values["n_head"] % values["n_kv_head"]):
        problems.append("--shape: n_head must divide d_model, and n_kv_head must divide n_head; write e.g. "
                        "d_model=4096,n_head=32,n_kv_head=8")  # fmt: skip
    if problems:
        raise UserError(*problems)
    return Shape(**values)


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) <= len(str(LARGEST)) and 1 <= int(text) <= LARGEST
