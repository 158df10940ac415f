"""HF's BertForPreTraining in PyTorch, one training step at a time. Run by another interpreter: `training.py` says how.

Reads a number of steps from each line of standard input and answers with their seconds, as JSON.
"""

import json
import resource
import sys
import time

import torch
from transformers import BertConfig, BertForPreTraining

LENGTH, PREDICTIONS = 128, 20


def main(variant, precision, batch_size, layers, hidden, heads, vocab_size):
    torch.set_num_threads(2)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )
    model = BertForPreTraining(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    ids = torch.randint(5, vocab_size, (batch_size, LENGTH))
    labels = torch.full_like(ids, -100)
    for row in range(batch_size):
        chosen = torch.randperm(LENGTH)[:PREDICTIONS]
        labels[row, chosen] = ids[row, chosen]
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
        "labels": labels,
        "next_sentence_label": torch.randint(0, 2, (batch_size,)),
    }
    forward = torch.compile(model) if variant == "compile" else model

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = forward(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for line in sys.stdin:
        seconds, began = [], time.process_time()
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        processor = (time.process_time() - began) / len(seconds)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "processor": processor, "memory": memory}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
