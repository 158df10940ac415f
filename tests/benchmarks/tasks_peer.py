"""Hugging Face's Trainer fine-tunes and judges once. Run by another interpreter: `tasks.py` says how.

The argument is a file of JSON: task, model, seed, the other side's training settings, and rows of train and of test.
Prints one line of JSON.
"""

import json
import os
import sys
import time

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

LENGTH = 128
ANSWERS, sys.stdout = sys.stdout, sys.stderr  # whatever the Trainer prints is none


def labelled(task, rows, labels):
    """What the loss takes, a row."""
    if task == "regression":
        return [float(row[2]) for row in rows]
    if task == "multi-label":
        return [[float(label in row[2]) for label in labels] for row in rows]
    return [labels.index(row[2]) for row in rows]


def encoded(task, rows, tokenizer, labels):
    """Rows as features; of words the first piece has the label, as in run_ner."""
    if task == "tagging":
        found = tokenizer([row[0] for row in rows], is_split_into_words=True, truncation=True, max_length=LENGTH)
        targets = []
        for index, (_, tags) in enumerate(rows):
            places, previous, target = found.word_ids(index), None, []
            for place in places:
                new = place is not None and place != previous
                target.append(labels.index(tags[place]) if new and tags[place] in labels else -100)
                previous = place
            targets.append(target)
    else:
        texts = [row[0] for row in rows], *([[row[1] for row in rows]] if rows[0][1] is not None else [])
        found, targets = tokenizer(*texts, truncation=True, max_length=LENGTH), labelled(task, rows, labels)
    names = ("input_ids", "attention_mask", "token_type_ids")
    return [{**{name: found[name][index] for name in names}, "labels": target} for index, target in enumerate(targets)]


def figures(task, answers, targets, rows):
    """By scikit-learn and SciPy."""
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import f1_score, matthews_corrcoef

    if task == "regression":
        return {"spearman": spearmanr(answers[:, 0], targets)[0], "pearson": pearsonr(answers[:, 0], targets)[0]}
    if task == "multi-label":  # a threshold of 0.5
        return {"macro_f1": f1_score(targets, answers > 0, average="macro", zero_division=0)}
    if task == "tagging":  # of all words: those that were cut off are wrong
        said = targets != -100
        right = (answers.argmax(-1) == targets)[said].sum()
        return {"accuracy": right / sum(len(row[0]) for row in rows)}
    said = answers.argmax(-1)
    return {"accuracy": (said == targets).mean(), "matthews": matthews_corrcoef(targets, said)}


def main(path):
    with open(path) as stream:
        arguments = json.load(stream)
    task, training, train, test = (arguments[name] for name in ("task", "training", "train", "test"))
    torch.set_num_threads(2)
    set_seed(arguments["seed"])
    tokenizer = AutoTokenizer.from_pretrained(arguments["model"])
    if task == "tagging":
        labels = sorted({tag for row in train for tag in row[1]})
        kind, collate = AutoModelForTokenClassification, DataCollatorForTokenClassification(tokenizer)
    else:
        labels = sorted({label for row in train for label in ([row[2]] if isinstance(row[2], str) else row[2])})
        kind, collate = AutoModelForSequenceClassification, DataCollatorWithPadding(tokenizer)
    problem = {"regression": "regression", "multi-label": "multi_label_classification"}.get(task)
    count = 1 if task == "regression" else len(labels)
    model = kind.from_pretrained(arguments["model"], num_labels=count, **({"problem_type": problem} if problem else {}))
    settings = TrainingArguments(
        output_dir=os.path.join(arguments["output"], "trainer"),
        max_steps=training["steps"],
        per_device_train_batch_size=training["batch_size"],
        per_device_eval_batch_size=training["batch_size"],
        learning_rate=training["learning_rate"],
        warmup_steps=training["steps"] // 10,
        lr_scheduler_type="linear",
        weight_decay=0.01,
        seed=arguments["seed"],
        save_strategy="no",
        logging_steps=1_000_000,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, settings, data_collator=collate, train_dataset=encoded(task, train, tokenizer, labels))
    trained = trainer.train().metrics
    start = time.perf_counter()
    found = trainer.predict(encoded(task, test, tokenizer, labels))
    seconds = time.perf_counter() - start
    scores = figures(task, found.predictions, found.label_ids, test)
    answer = {
        "figures": {name: float(value) for name, value in scores.items()},
        "trained_a_second": training["steps"] * training["batch_size"] / trained["train_runtime"],
        "evaluated_a_second": len(test) / seconds,
    }
    print(json.dumps(answer), file=ANSWERS, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
