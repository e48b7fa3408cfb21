"""Pretraining in PyTorch: GPT as in nanoGPT, with the weights, batches and hyperparameters of `cgpt bench pretrain`.

With --dtype bfloat16 under torch.autocast: weights stay float32, and attention on a GPU is flash attention.
"""

import tempfile
from pathlib import Path

import torch
from peer import measure, read_arguments
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from cgpt.bench.inputs import LR, N_LOSSES, read_batch, write_tokens
from cgpt.bench.measure import Steps
from cgpt.checkpoint.folder import read_config
from cgpt.spec import Model
from cgpt.training.trainer import AdamW


class Block(nn.Module):
    """Pre-LN attention and feed-forward; parameters carry GPT-2's names."""

    def __init__(self, config: Model):
        super().__init__()
        width, inner, epsilon = config.d_model, config.d_ffn or 4 * config.d_model, config.layer_norm_epsilon
        self.n_head = config.n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.c_attn, self.attn.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.attn.c_attn(self.ln_1(x)).split(C, dim=2)
        q, k, v = (part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for part in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn.c_proj(y.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp.c_proj(functional.gelu(self.mlp.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    """`model(tokens, targets)` is the mean cross-entropy; the head is the token embedding."""

    def __init__(self, config: Model):
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.d_model)
        self.wpe = nn.Embedding(config.seq_len, config.d_model)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        logits = functional.linear(self.ln_f(x), self.wte.weight)
        return functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def load(folder: Path) -> GPT:
    """The model of a checkpoint folder. GPT-2 stores matrices (in, out), nn.Linear (out, in)."""
    model = GPT(read_config(folder))
    stored = load_file(folder / "model.safetensors")
    weights = {name.removeprefix("transformer."): value for name, value in stored.items()}
    matrices = [name for name in weights if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))]
    model.load_state_dict(weights | {name: weights[name].t().contiguous() for name in matrices})
    return model


def optimizer(model: GPT, settings: AdamW) -> torch.optim.Optimizer:
    """Fused AdamW; biases and LayerNorm are not decayed."""
    decayed = [p for name, p in model.named_parameters() if not name.endswith(".bias") and "ln_" not in name]
    others = [p for name, p in model.named_parameters() if name.endswith(".bias") or "ln_" in name]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    betas = settings.beta1, settings.beta2
    return torch.optim.AdamW(groups, lr=LR, betas=betas, eps=settings.epsilon, fused=True)


def main() -> None:
    arguments = read_arguments(__doc__)
    torch.set_num_threads(arguments.threads)
    model, settings = load(arguments.checkpoint).to(arguments.device), AdamW()
    config, parameters = read_config(arguments.checkpoint), list(model.parameters())
    update, forward = optimizer(model, settings), torch.compile(model) if arguments.compile else model
    autocast = torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.dtype == "bfloat16")
    losses: list[float] = []
    with tempfile.TemporaryDirectory(prefix="cgpt-bench-") as folder:
        tokens = write_tokens(Path(folder), config.vocab_size)

        def step() -> None:
            arrays = read_batch(tokens, config.seq_len, arguments.batch_size, len(losses))
            batch, targets = (torch.from_numpy(array).to(arguments.device) for array in arrays)
            with autocast:
                loss = forward(batch, targets.long())  # cross_entropy takes int64 targets
            update.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.grad_clip)
            update.step()
            losses.append(loss.item())

        steps = Steps(step, arguments.batch_size * config.seq_len)

        def result() -> dict[str, list[float]]:
            steps.run(max(0, N_LOSSES - len(losses)))
            return {"losses": losses[:N_LOSSES]}

        measure(steps, arguments, result)


if __name__ == "__main__":
    main()
