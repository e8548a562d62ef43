"""A BERT sentence-transformers folder: what its configuration says, and its weights.

Anything this cannot reproduce exactly is refused, never guessed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.encoder.errors import UnsupportedModel

Weights = dict[str, NDArray[np.float32]]

_OTHER_ROUTE = "export it through sentence-transformers: tracerctl encoder export --model"


@dataclass(frozen=True, slots=True)
class BertSource:
    """The shape of the encoder. `max_tokens` counts the special tokens."""

    folder: Path
    hidden: int
    layers: int
    heads: int
    epsilon: float
    pad_id: int
    max_tokens: int

    @property
    def weights_path(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def tokenizer_path(self) -> Path:
        return self.folder / "tokenizer.json"


def read_bert_source(folder: Path) -> BertSource:
    """The configuration in `folder`. Raises UnsupportedModel saying what does not fit."""
    config = _json(folder, "config.json")
    _expect(folder, config, "model_type", "bert")
    _expect(folder, config, "hidden_act", "gelu")
    if config.get("position_embedding_type") is not None:  # newer configurations leave it out
        _expect(folder, config, "position_embedding_type", "absolute")
    for flag in ("is_decoder", "add_cross_attention"):
        if config.get(flag):
            raise _unsupported(folder, f"{flag} is set")
    _check_modules(folder)
    settings = _json(folder, "sentence_bert_config.json")
    if settings.get("do_lower_case"):
        raise _unsupported(folder, "do_lower_case is outside the tokenizer")
    try:
        source = BertSource(
            folder=folder,
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            epsilon=float(config["layer_norm_eps"]),
            pad_id=int(config.get("pad_token_id") or 0),
            max_tokens=min(int(settings["max_seq_length"]), int(config["max_position_embeddings"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unsupported(folder, f"its configuration lacks a number ({error})") from error
    if source.hidden % source.heads:
        raise _unsupported(folder, f"{source.hidden} dimensions in {source.heads} heads")
    for path in (source.weights_path, source.tokenizer_path):
        if not path.is_file():
            raise _unsupported(folder, f"it has no {path.name}")
    return source


def read_bert_weights(source: BertSource) -> Weights:
    """All tensors as float32, under BERT's own names. Raises UnsupportedModel."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(source.weights_path)
    except (SafetensorError, TypeError, ValueError) as error:
        raise _unsupported(source.folder, f"its weights cannot be read ({error})") from error
    return {
        name.removeprefix("bert."): np.asarray(tensor, np.float32)
        for name, tensor in tensors.items()
        if np.issubdtype(tensor.dtype, np.floating)
    }


def weight(weights: Weights, name: str, *shape: int | None) -> NDArray[np.float32]:
    """One tensor, of that shape (None: any length). Raises UnsupportedModel."""
    tensor = weights.get(name)
    if tensor is None:
        raise UnsupportedModel(f"the weights lack {name}; {_OTHER_ROUTE}")
    fits = tensor.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise UnsupportedModel(f"{name} has shape {tensor.shape}, not {shape}; {_OTHER_ROUTE}")
    return tensor


def _check_modules(folder: Path) -> None:
    modules = _json(folder, "modules.json")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise _unsupported(folder, f"its modules are {', '.join(kinds)}")
    if modules[0].get("path"):
        raise _unsupported(folder, "its transformer is in a folder of its own")
    pooling = _json(folder, f"{modules[1]['path']}/config.json")
    modes = {name.removeprefix("pooling_mode_") for name, on in pooling.items() if on is True}
    modes -= {"include_prompt"}
    if pooling.get("pooling_mode"):  # sentence-transformers 6 writes one name
        modes = {str(pooling["pooling_mode"])}
    if modes not in ({"mean_tokens"}, {"mean"}):
        raise _unsupported(folder, f"its pooling is {' and '.join(sorted(modes))}")


def _expect(folder: Path, config: dict[str, Any], name: str, value: str) -> None:
    if config.get(name) != value:
        raise _unsupported(folder, f"{name} is {config.get(name)!r}, not {value!r}")


def _json(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_bytes())
    except (OSError, ValueError) as error:
        raise _unsupported(folder, f"{name} cannot be read ({error})") from error


def _unsupported(folder: Path, why: str) -> UnsupportedModel:
    return UnsupportedModel(f"{folder} cannot be built without torch: {why}; {_OTHER_ROUTE}")
