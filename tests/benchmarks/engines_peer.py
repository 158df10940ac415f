"""The fastest ways to answer by the same checkpoint on a CPU, run by an interpreter that has them:

    PEER_PYTHON tests/benchmarks/engines_peer.py NAME MODEL FOLDER TEXTS THREADS

NAME is `ctranslate2`, `ctranslate2-int8`, `openvino`, `onnxruntime`, `onnxruntime-int8` or `huggingface`. Each embeds
by the mean over the tokens, its tokenizer included, and keeps what it makes of the checkpoint in FOLDER. A line
`SIZE SECONDS` on standard input is answered by JSON: texts a second, and seconds of processor time a text; SIZE 0 by
the vectors of the first texts, so that what answers is known to be the same model.

Stands alone: nothing of this project is imported.
"""

import json
import pathlib
import subprocess
import sys
import time

import numpy as np

CHECKED = 16  # texts whose vectors are compared
COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def _tokenizer(model):
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_padding()
    return tokenizer


def _pooled(hidden, mask):
    mask = np.asarray(mask, np.float32)[:, :, None]
    return (hidden * mask).sum(1) / mask.sum(1)


def ctranslate2(model, folder, threads, kind="float32"):
    import ctranslate2

    converted = folder / f"ctranslate2-{kind}"
    if not converted.exists():
        ctranslate2.converters.TransformersConverter(str(model)).convert(str(converted), quantization=kind)
    tokenizer = _tokenizer(model)
    encoder = ctranslate2.Encoder(
        str(converted), device="cpu", compute_type=kind, inter_threads=1, intra_threads=threads
    )

    def embed(texts):
        rows = tokenizer.encode_batch(texts)
        ids = [[one for one, real in zip(row.ids, row.attention_mask, strict=True) if real] for row in rows]
        hidden = np.asarray(encoder.forward_batch(ids).last_hidden_state)
        return _pooled(hidden, [row.attention_mask for row in rows])

    return embed


def _onnx(model, folder):
    """The checkpoint as PyTorch exports it. In a process of its own: two engines' threads would share this one."""
    path = folder / "model.onnx"
    if not path.exists():
        subprocess.run([sys.executable, "-c", _EXPORT, str(model), str(path)], check=True, stdout=sys.stderr)
    return path


_EXPORT = """
import sys, torch, transformers
model = transformers.AutoModel.from_pretrained(sys.argv[1], attn_implementation="eager").eval()
names = ["input_ids", "attention_mask", "token_type_ids"]
axes = {name: {0: "batch", 1: "length"} for name in (*names, "last_hidden_state")}

class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, ids, mask, types):
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

example = tuple(torch.ones(2, 8, dtype=torch.long) for _ in names)
torch.onnx.export(Plain(), example, sys.argv[2], input_names=names, output_names=["last_hidden_state"],
                  dynamic_axes=axes, dynamo=False, opset_version=17)
"""


def _of_columns(model, hidden_of):
    tokenizer = _tokenizer(model)

    def embed(texts):
        rows = tokenizer.encode_batch(texts)
        columns = {name: np.array([getattr(row, of) for row in rows]) for name, of in COLUMNS.items()}
        return _pooled(hidden_of(columns), columns["attention_mask"])

    return embed


def openvino(model, folder, threads):
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(_onnx(model, folder)), "CPU", options)
    request = compiled.create_infer_request()
    return _of_columns(model, lambda columns: request.infer(columns)[0])


def onnxruntime(model, folder, threads, kind="float32"):
    import onnxruntime

    path = _onnx(model, folder)
    if kind == "int8":
        from onnxruntime.quantization import quantize_dynamic

        path = folder / "int8.onnx"
        if not path.exists():
            quantize_dynamic(folder / "model.onnx", path, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return _of_columns(model, lambda columns: session.run(None, columns)[0])


def huggingface(model, folder, threads):
    import torch
    import transformers

    torch.set_num_threads(threads)
    encoder = transformers.AutoModel.from_pretrained(str(model)).eval()

    @torch.inference_mode()
    def hidden_of(columns):
        return encoder(**{name: torch.from_numpy(array) for name, array in columns.items()}).last_hidden_state.numpy()

    return _of_columns(model, hidden_of)


def main():
    name, model, folder, texts, threads = sys.argv[1:]
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made, *kind = name.split("-")
    embed = globals()[made](pathlib.Path(model), folder, int(threads), *kind)
    texts = pathlib.Path(texts).read_text("utf-8").splitlines()
    for line in sys.stdin:
        size, seconds = line.split()
        size, done, start, cpu = int(size), 0, time.perf_counter(), time.process_time()
        if not size:
            print(json.dumps(embed(texts[:CHECKED]).tolist()), flush=True)
            continue
        while time.perf_counter() < start + float(seconds):
            first = (done + 1) % (len(texts) - size)
            embed(texts[first : first + size])
            done += size
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(json.dumps({"per_second": done / wall, "cpu_seconds": cpu / done}), flush=True)


if __name__ == "__main__":
    main()
