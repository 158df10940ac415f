"""HF's BertForPreTraining in PyTorch on one GPU. Run by another interpreter: `gpu.py` says how.

    python gpu_peer.py base-128-64-bfloat16-xla [--eager]

bfloat16 by autocast, fused attention (sdpa), PyTorch's fused AdamW; compiled by `torch.compile` unless --eager. Batches
lie on the card already. Hugging Face's model works out the logits of every position, ours those of the predictions.
"""

import statistics
import sys
import time

import torch
from transformers import BertConfig, BertForPreTraining

VOCAB = 30_522
PREDICTIONS = {128: 20, 512: 77}
SIZES = {"tiny": (2, 128, 2), "base": (12, 768, 12), "large": (24, 1024, 16)}


def main(name: str, eager: bool) -> None:
    size, length, batch_size, precision, _ = name.split("-")
    length, batch_size = int(length), int(batch_size)
    layers, hidden, heads = SIZES[size]
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )
    config._attn_implementation = "sdpa"
    model = BertForPreTraining(config).cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
    ids = torch.randint(5, VOCAB, (batch_size, length), device="cuda")
    chosen = torch.rand(batch_size, length, device="cuda").argsort(1)[:, : PREDICTIONS[length]]
    labels = torch.full_like(ids, -100).scatter(1, chosen, ids.gather(1, chosen))
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
        "labels": labels,
        "next_sentence_label": torch.randint(0, 2, (batch_size,), device="cuda"),
    }
    forward = model if eager else torch.compile(model)

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = forward(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    for _ in range(5):
        step()
    seconds = []
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(20):
            step()
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / 20)
    median = statistics.median(seconds)
    way = "eager" if eager else "compile"
    print(
        f"HF {way:8} {name:28} {median * 1e3:7.2f} ms {batch_size / median:8.1f} examples/s "
        f"{batch_size * length / median:9.0f} tokens/s, first {first:5.1f} s, "
        f"{torch.cuda.max_memory_allocated() / 2**30:5.1f} GiB",
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], "--eager" in sys.argv)
