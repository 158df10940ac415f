"""Hugging Face's Trainer fine-tunes and judges once. Run by another interpreter: `tasks.py` says how.

The argument is a file of JSON: task, model, seed, the other side's training settings, and rows of train and of test.
Prints one line of JSON. Questions are cut into windows and their answers chosen as in its run_qa. On a GPU, if there is
one, else on two threads.
"""

import json
import os
import sys
import time

import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

LENGTH = 128
WINDOW, STRIDE, ANSWER, BEST = 384, 128, 30, 20  # tokens of questions, of which no more than so many pairs are tried
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


def windows(rows, tokenizer: PreTrainedTokenizerFast, answered):
    """(features, [(row, where each token of the context stands in it)])"""
    texts = [row["question"].lstrip() for row in rows], [row["context"] for row in rows]
    cut = {"truncation": "only_second", "max_length": WINDOW, "stride": STRIDE, "return_overflowing_tokens": True}
    found = tokenizer(*texts, **cut, return_offsets_mapping=True)
    names, made, places = ("input_ids", "attention_mask", "token_type_ids"), [], []
    for index, row in enumerate(found["overflow_to_sample_mapping"]):
        spans = zip(found["offset_mapping"][index], found.sequence_ids(index), strict=True)
        places.append((row, [span if part == 1 else None for span, part in spans]))
        feature = {name: found[name][index] for name in names}
        if answered:
            begin = end = 0
            for text, start in [answer.values() for answer in rows[row]["answers"][:1]]:
                inside = [at for at, span in enumerate(places[-1][1]) if span]
                of_start = [at for at in inside if places[-1][1][at][0] <= start < places[-1][1][at][1]]
                last = start + len(text) - 1
                of_end = [at for at in inside if places[-1][1][at][0] <= last < places[-1][1][at][1]]
                if of_start and of_end:
                    begin, end = of_start[0], of_end[0]
            feature |= {"start_positions": begin, "end_positions": end}
        made.append(feature)
    return made, places


def answers_of(rows, places, starts, ends, impossible):
    """The best span of each row's windows; "" where that of no answer is more likely, if there may be such rows."""
    best = [(-1e9, "")] * len(rows)
    none = [1e9] * len(rows)
    for (row, spans), start, end in zip(places, starts, ends, strict=True):
        none[row] = min(none[row], float(start[0] + end[0]))
        for first in start.argsort()[::-1][:BEST]:
            for last in end.argsort()[::-1][:BEST]:
                if last >= len(spans) or first > last or last - first >= ANSWER or not spans[first] or not spans[last]:
                    continue
                score = float(start[first] + end[last])
                if score > best[row][0]:
                    best[row] = score, rows[row]["context"][spans[first][0] : spans[last][1]]
    pairs = zip(best, none, strict=True)
    return ["" if impossible and nothing > score else text for (score, text), nothing in pairs]


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
    questions = task == "question-answering"
    torch.set_num_threads(2)
    set_seed(arguments["seed"])
    tokenizer = AutoTokenizer.from_pretrained(arguments["model"])
    if questions:
        labels, kind, collate = [], AutoModelForQuestionAnswering, DataCollatorWithPadding(tokenizer)
    elif task == "tagging":
        labels = sorted({tag for row in train for tag in row[1]})
        kind, collate = AutoModelForTokenClassification, DataCollatorForTokenClassification(tokenizer)
    else:
        labels = sorted({label for row in train for label in ([row[2]] if isinstance(row[2], str) else row[2])})
        kind, collate = AutoModelForSequenceClassification, DataCollatorWithPadding(tokenizer)
    problem = {"regression": "regression", "multi-label": "multi_label_classification"}.get(task)
    count = 1 if task == "regression" else len(labels)
    options = {} if questions else {"num_labels": count, **({"problem_type": problem} if problem else {})}
    model = kind.from_pretrained(arguments["model"], **options)
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
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
    )
    made = windows(train, tokenizer, True)[0] if questions else encoded(task, train, tokenizer, labels)
    trained = Trainer(model, settings, data_collator=collate, train_dataset=made)
    seconds_of_training = trained.train().metrics["train_runtime"]
    start = time.perf_counter()
    if questions:
        asked, places = windows(test, tokenizer, False)
        impossible = not all(row["answers"] for row in train)
        found = {"answers": answers_of(test, places, *trained.predict(asked).predictions[:2], impossible)}
    else:
        said = trained.predict(encoded(task, test, tokenizer, labels))
        scores = figures(task, said.predictions, said.label_ids, test)
        found = {"figures": {name: float(value) for name, value in scores.items()}}
    seconds = time.perf_counter() - start
    answer = {
        **found,
        "trained_a_second": training["steps"] * training["batch_size"] / seconds_of_training,
        "evaluated_a_second": len(test) / seconds,
    }
    print(json.dumps(answer), file=ANSWERS, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
