"""What people serve BERT with, run by the peers' interpreter: mean-pooled embeddings by PyTorch or ONNX Runtime.

    PEER_PYTHON tests/benchmarks/serving_peer.py serve MODEL PORT [--batched]     FastAPI and uvicorn
    PEER_PYTHON tests/benchmarks/serving_peer.py encode MODEL TEXTS              in process; prints JSON

Stands alone: nothing of this project is imported.
"""

import argparse
import asyncio
import json
import time


def load(folder):
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embed(texts):
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None].float()
        return ((hidden * mask).sum(1) / mask.sum(1)).tolist()

    return embed


def application(embed, batched):
    import fastapi
    import pydantic

    app = fastapi.FastAPI()

    class Request(pydantic.BaseModel):
        text: str

    if not batched:

        @app.post("/embed")
        def answer(request: Request):
            return {"embedding": embed([request.text])[0]}

        return app

    waiting: asyncio.Queue = asyncio.Queue()

    async def batches():
        loop = asyncio.get_running_loop()
        while True:
            batch = [await waiting.get()]
            while len(batch) < 32 and not waiting.empty():
                batch.append(waiting.get_nowait())
            vectors = await loop.run_in_executor(None, embed, [text for text, _ in batch])
            for (_, future), vector in zip(batch, vectors, strict=True):
                future.set_result(vector)

    tasks = []

    @app.post("/embed")
    async def answer(request: Request):
        if not tasks:
            tasks.append(asyncio.create_task(batches()))
        future = asyncio.get_running_loop().create_future()
        await waiting.put((request.text, future))
        return {"embedding": await future}

    return app


def rates(folder, texts, repeats=3) -> dict:
    """Texts a second of each way in process, batches of 32."""
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(folder, device="cpu")
    ways = {"sentence-transformers encode": lambda: model.encode(texts, batch_size=32)}
    try:
        import io

        import onnxruntime
        import tokenizers
        import torch
        import transformers

        class Plain(torch.nn.Module):
            """Positional arguments in, one tensor out, as the exporter wants it."""

            def __init__(self):
                super().__init__()
                self.model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

            def forward(self, ids, mask, types):
                return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

        exported = io.BytesIO()
        names = ["ids", "mask", "types"]
        axes = {name: {0: "batch", 1: "length"} for name in names}
        example = tuple(torch.ones(2, 8, dtype=torch.long) for _ in names)
        torch.onnx.export(
            Plain(), example, exported, input_names=names, dynamic_axes=axes, dynamo=False, opset_version=17
        )
        session = onnxruntime.InferenceSession(exported.getvalue())
        tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
        tokenizer.enable_padding()

        def onnx():
            import numpy as np

            for start in range(0, len(texts), 32):
                encoded = tokenizer.encode_batch(texts[start : start + 32])
                columns = ("ids", "attention_mask", "type_ids")
                session.run(
                    None, {n: np.array([getattr(e, c) for e in encoded]) for n, c in zip(names, columns, strict=True)}
                )

        ways["ONNX Runtime, HF tokenizer"] = onnx
    except Exception as error:
        print(json.dumps({"ONNX Runtime": f"not measured: {type(error).__name__}: {error}"[:200]}))
    found: dict = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if repeat:  # the first warms up
                found[name].append(len(texts) / (time.perf_counter() - start))
    return {name: sorted(values)[len(values) // 2] for name, values in found.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("serve", "encode"))
    parser.add_argument("model")
    parser.add_argument("argument")
    parser.add_argument("--batched", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "serve":
        import uvicorn

        uvicorn.run(
            application(load(arguments.model), arguments.batched), port=int(arguments.argument), log_level="warning"
        )
    else:
        with open(arguments.argument, encoding="utf-8") as file:
            print(json.dumps(rates(arguments.model, file.read().splitlines()[:512])))


if __name__ == "__main__":
    main()
