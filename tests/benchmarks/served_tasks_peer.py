"""Hugging Face's `pipeline` behind FastAPI. Run by another interpreter: `served_tasks.py` says how.

PEER_PYTHON tests/benchmarks/served_tasks_peer.py text-classification MODEL PORT

It answers POST /ask {"text": ..., "second": ...}.
"""

import sys

import fastapi
import pydantic
import torch
import transformers
import uvicorn


class Request(pydantic.BaseModel):
    text: str
    second: str


def main(task: str, model: str, port: str) -> None:
    torch.set_num_threads(2)
    more = {"aggregation_strategy": "first"} if task == "token-classification" else {"truncation": True}
    answer = transformers.pipeline(task, model=model, device="cpu", **more)
    app = fastapi.FastAPI()

    @app.post("/ask")
    def ask(request: Request):
        given = {"text": request.text, "text_pair": request.second} if request.second else request.text
        said = answer(given, **({"top_k": None} if task == "text-classification" else {}))
        return [one | {"score": float(one["score"])} for one in said]

    uvicorn.run(app, port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
