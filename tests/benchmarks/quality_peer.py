"""Hugging Face's Trainer with BertForPreTraining, mini, on a budget of processor time. Run by another interpreter:
`quality.py` says how, and what both sides have in common.

Prints a line of JSON at each point of the curve, then waits for a line before it goes on.
"""

import json
import os
import sys
import time

import numpy as np
import torch
from transformers import BertConfig, BertForPreTraining, Trainer, TrainerCallback, TrainingArguments

ANSWERS, sys.stdout = sys.stdout, sys.stderr  # whatever the Trainer prints is none


class Examples(torch.utils.data.Dataset):
    def __init__(self, folder):
        names = ("input_ids", "input_mask", "segment_ids", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
        self.arrays = {name: np.load(os.path.join(folder, f"{name}.npy")) for name in names}
        self.following = np.load(os.path.join(folder, "next_sentence_labels.npy"))[:, 0]

    def __len__(self):
        return len(self.following)

    def __getitem__(self, index):
        return index

    def collate(self, indices):
        """A batch as BertForPreTraining takes it: labels at every position, -100 where nothing is predicted."""
        rows = {name: array[indices] for name, array in self.arrays.items()}
        labels = np.full(rows["input_ids"].shape, -100, np.int64)
        row, column = np.nonzero(rows["masked_lm_weights"])
        labels[row, rows["masked_lm_positions"][row, column]] = rows["masked_lm_ids"][row, column]
        return {
            "input_ids": torch.from_numpy(rows["input_ids"].astype(np.int64)),
            "attention_mask": torch.from_numpy(rows["input_mask"].astype(np.int64)),
            "token_type_ids": torch.from_numpy(rows["segment_ids"].astype(np.int64)),
            "labels": torch.from_numpy(labels),
            "next_sentence_label": torch.from_numpy(self.following[indices].astype(np.int64)),
        }


@torch.no_grad()
def evaluate(model, examples, limit, batch_size):
    """Held-out figures, with logits at the predicted positions only."""
    model.eval()
    nll = right = predictions = next_right = 0.0
    count = min(limit or len(examples), len(examples))
    for first in range(0, count, batch_size):
        batch = examples.collate(np.arange(first, min(first + batch_size, count)))
        labels, following = batch.pop("labels"), batch.pop("next_sentence_label")
        outputs = model.bert(**batch)
        predicted = labels != -100
        logits = model.cls.predictions(outputs.last_hidden_state[predicted])
        nll += torch.nn.functional.cross_entropy(logits, labels[predicted], reduction="sum").item()
        right += (logits.argmax(-1) == labels[predicted]).sum().item()
        predictions += int(predicted.sum())
        next_right += (model.cls.seq_relationship(outputs.pooler_output).argmax(-1) == following).sum().item()
    model.train()
    return {
        "masked_lm_loss": nll / predictions,
        "masked_lm_accuracy": right / predictions,
        "next_sentence_accuracy": next_right / count,
    }


class StepTimes(TrainerCallback):
    """Processor time at the end of each step."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, *_, **__):
        self.ends.append(time.process_time())


class Curve(TrainerCallback):
    """Answers at each point, where the state is saved too; what that takes is not charged."""

    def __init__(self, steps, points, used, answer):
        self._marks = {steps * point // points for point in range(1, points + 1)}
        self._used, self._answer = used, answer

    def on_train_begin(self, *_, **__):
        self._began = time.process_time()

    def on_step_end(self, args, state, control, **_):
        control.should_save = state.global_step in self._marks
        if control.should_save:
            self._used += time.process_time() - self._began

    def on_save(self, args, state, control, **_):
        self._answer(state.global_step, self._used)
        self._began = time.process_time()


def main(given, reached):
    torch.set_num_threads(2)
    train, held_out = (Examples(os.path.join(given["examples"], part)) for part in ("train", "held_out"))

    def trainer(steps, callback):
        torch.manual_seed(1)
        config = BertConfig(
            vocab_size=30_522,
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=1024,
            hidden_act="gelu_pytorch_tanh",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        arguments = TrainingArguments(
            output_dir=given["states"],
            max_steps=steps,
            per_device_train_batch_size=given["batch_size"],
            learning_rate=given["learning_rate"],
            lr_scheduler_type="linear",
            warmup_steps=steps // 10,
            weight_decay=0.01,
            adam_epsilon=1e-6,
            max_grad_norm=1.0,
            bf16=given["precision"] == "bfloat16",
            use_cpu=True,
            save_strategy="no",  # but where the curve has a point
            save_total_limit=2,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        return Trainer(
            BertForPreTraining(config),
            arguments,
            data_collator=train.collate,
            train_dataset=train,
            callbacks=[callback],
        )

    if reached:
        step, used, cost = reached["step"], reached["core_seconds"], reached["step_cost"]
    else:
        times = StepTimes()
        trainer(given["warm_up"] + given["calibration"], times).train()
        step, used, cost = 0, 0.0, (times.ends[-1] - times.ends[given["warm_up"] - 1]) / given["calibration"]
    steps = max(given["points"], int(given["budget"] / cost))

    def answer(step, used):
        limit = None if step == steps else given["evaluated"]
        figures = evaluate(training.model, held_out, limit, given["batch_size"])
        print(json.dumps({"step": step, "core_seconds": used, "step_cost": cost, **figures}), file=ANSWERS, flush=True)
        if not sys.stdin.readline():
            raise SystemExit

    training = trainer(steps, Curve(steps, given["points"], used, answer))
    if not reached:
        answer(0, 0.0)
    training.train(resume_from_checkpoint=os.path.join(given["states"], f"checkpoint-{step}") if step else None)


if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
