"""The model card on use: code that can be pasted to load, train, and carry over to the base model."""

from __future__ import annotations

from publisher.manifest.manifest import Manifest
from worker.card.markdown import code
from worker.card.pruning import is_compressed, is_of_single_weights, loads_anywhere

HUGGING_FACE = "https://huggingface.co"
#: in the place of a base model that has no public name
_YOURS = "DIR_OR_REPO"
#: the conventions of publisher/checkpoint/recovery/serving.py and docs/serving.md, in two sentences
_SERVED = (
    "Recovered adapters of many users are served in one batch on one base model by PEFT (`adapter_names`), vLLM and "
    "SGLang, if they are plain LoRAs: `target_modules` a list of names, rank at most 512, no DoRA, biases, "
    "`modules_to_save`, `use_rslora` or patterns of ranks and alphas. Recovery says of each adapter which of them take "
    "it, and vLLM's `max_lora_rank`."
)


def usage(manifest: Manifest, repo_id: str, endpoint: str | None) -> str:
    """`repo_id` and `endpoint`: where the checkpoint will be found."""
    single = is_of_single_weights(manifest)
    own = None if endpoint == HUGGING_FACE else endpoint
    parts = [
        "## Use",
        _needs(manifest),
        code("bash", f"export HF_ENDPOINT={own}") if own else "",
        *(_of_weights if single else _of_units)(manifest, repo_id, own),
    ]
    return "\n\n".join(part for part in parts if part)


def _needs(manifest: Manifest) -> str:
    package = "the Python package `loram-publisher`, from the repository of the service that made this checkpoint."
    if is_compressed(manifest):
        return (
            f"Needs {package} transformers alone refuses to load these files. To train in 4 bits, load the model as "
            "below, save it with `save_pretrained`, which writes it dense, and quantize that."
        )
    if is_of_single_weights(manifest):
        return f"transformers loads it as it is. Masked training and recovery need {package}"
    if loads_anywhere(manifest):
        return (
            "transformers loads it as it is; `import publisher.checkpoint` before that lets an adapter say what it was "
            f"trained on, which recovery then checks. Recovery needs {package}"
        )
    return f"Needs {package}"


def _of_units(manifest: Manifest, repo_id: str, own: str | None) -> list[str]:
    taught = "import publisher.checkpoint  # lets transformers load layers of different widths"
    return [
        f"Train any LoRA on it with the tools that you already use{_begun(manifest)}:",
        code(
            "python",
            *([] if loads_anywhere(manifest) else [taught]),
            *(["import torch"] if _has_experts(manifest) else []),
            "from peft import LoraConfig, get_peft_model",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            *_loading(repo_id),
            *_training(manifest),
        ),
        f"Recover the adapter, and use it on the base model{_elsewhere(manifest, own)}:",
        code(
            "python",
            "from pathlib import Path",
            "from peft import PeftModel",
            "from publisher.checkpoint.folder import open_checkpoint",
            "from publisher.checkpoint.recovery import recover_adapter",
            "from transformers import AutoModelForCausalLM",
            "",
            f"checkpoint = {_opened(repo_id, own)}",
            *_naming_the_base(manifest),
            f'recover_adapter(Path("adapter"), checkpoint, Path("recovered"){_named_base(manifest)})',
            _base_model(manifest),
            'model = PeftModel.from_pretrained(base, "recovered")',
        ),
        "The same recovery from a shell:",
        code(
            "bash",
            f"publisher recover adapter --checkpoint {repo_id} --output recovered"
            + (f" --endpoint {own}" if own else "")
            + ("" if manifest.base.is_public else f" --base {_YOURS}"),
        ),
        _SERVED,
    ]


def _of_weights(manifest: Manifest, repo_id: str, own: str | None) -> list[str]:
    return [
        "Train a LoRA on it whose update is masked as the weights are. Masking costs one more product forward and two "
        f"more backward for each adapted matrix{_begun(manifest)}:",
        code(
            "python",
            *(["import torch"] if _has_experts(manifest) else []),
            "from peft import LoraConfig, get_peft_model",
            "from publisher.checkpoint.folder import open_checkpoint",
            "from publisher.checkpoint.masked import mask_adapter",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"checkpoint = {_opened(repo_id, own)}",
            *_loading(repo_id),
            *_training(manifest, "mask_adapter(model, checkpoint)  # the update is zero where weights were pruned"),
        ),
        "A masked update has no low rank, so a stock adapter alone does not hold it. Use the adapter on the base "
        f"model, masked again{_elsewhere(manifest, own)}:",
        code(
            "python",
            "from peft import PeftModel",
            "from publisher.checkpoint.folder import open_checkpoint",
            "from publisher.checkpoint.masked import mask_adapter",
            *(["from publisher.checkpoint.strength import set_strength"] if manifest.strength != 1 else []),
            "from transformers import AutoModelForCausalLM",
            "",
            *_naming_the_base(manifest),
            _base_model(manifest),
            'model = PeftModel.from_pretrained(base, "adapter")',
            f"mask_adapter(model, {_opened(repo_id, own)})",
            *([f"set_strength(model, {manifest.strength:g})"] if manifest.strength != 1 else []),
        ),
        "Or write the base model with the update merged in, for programs that know nothing of masks:",
        code(
            "python",
            "from pathlib import Path",
            "from huggingface_hub import snapshot_download",
            "from publisher.checkpoint.folder import open_checkpoint",
            "from publisher.checkpoint.recovery import recover_adapter",
            "",
            *_naming_the_base(manifest),
            f"base_folder = {_base_folder(manifest)}",
            f"checkpoint = {_opened(repo_id, own)}",
            'recover_adapter(Path("adapter"), checkpoint, Path("merged"), base_model=base_folder)',
        ),
    ]


def _opened(repo_id: str, own: str | None) -> str:
    """Whatever Hub HF_ENDPOINT names by then: the base model may be on another than the checkpoint."""
    return f"open_checkpoint({repo_id!r}, {f'endpoint={own!r}, ' if own else ''}weights=False)"


def _elsewhere(manifest: Manifest, own: str | None) -> str:
    """The libraries know one Hub per process, so that of the base model has to be set before it is loaded."""
    base = manifest.base
    if not base.is_public or base.endpoint == (own or HUGGING_FACE) or (base.endpoint is None and own is None):
        return ""
    if base.endpoint is None:
        return f". If `{base.repo_id}` is on huggingface.co, `unset HF_ENDPOINT` first, and start a new Python"
    way = "unset HF_ENDPOINT" if base.endpoint == HUGGING_FACE else f"export HF_ENDPOINT={base.endpoint}"
    return f". The base model is on another Hub: `{way}` first, and start a new Python"


def _begun(manifest: Manifest) -> str:
    """A base model whose family begins text with a token reads text without it far worse, and adapters learn that."""
    if manifest.text is None or not manifest.text.before:
        return ""
    tokens = "".join(manifest.text.before)
    return f". Each sequence has to begin with `{tokens}`, as its tokenizer makes it, also where you pack text"


def _loading(repo_id: str) -> list[str]:
    return [
        f"tokenizer = AutoTokenizer.from_pretrained({repo_id!r})",
        f'model = AutoModelForCausalLM.from_pretrained({repo_id!r}, dtype="auto")',
    ]


def _has_experts(manifest: Manifest) -> bool:
    return any(width.experts for width in manifest.base_widths)


def _training(manifest: Manifest, *prepared: str) -> list[str]:
    targets, wanted = [], '"all-linear"'
    if _has_experts(manifest):
        wanted = "linear"
        targets = [
            '# not PEFT\'s "all-linear": that takes fused experts along, whose updates cannot be recovered',
            "modules = model.base_model.named_modules(prefix=model.base_model_prefix)",
            "linear = [name for name, module in modules if isinstance(module, torch.nn.Linear)]",
        ]
    return [
        *targets,
        f'model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules={wanted}))',
        *prepared,
        "# … train with transformers, TRL, or a loop of your own …",
        'model.save_pretrained("adapter")',
    ]


def _base_model(manifest: Manifest) -> str:
    base = manifest.base
    pinned = f", revision={base.commit!r}" if base.commit else ""
    name = repr(base.repo_id) if base.is_public else "base_model"
    return f'base = AutoModelForCausalLM.from_pretrained({name}{pinned}, dtype="auto")'


def _naming_the_base(manifest: Manifest) -> list[str]:
    """A line for the user to fill in, where the publisher gave no name that others could use."""
    if manifest.base.is_public:
        return []
    return [f'base_model = "{_YOURS}"  # put in where you have the base model, a folder or a repository']


def _named_base(manifest: Manifest) -> str:
    return "" if manifest.base.is_public else ", base_model=base_model"


def _base_folder(manifest: Manifest) -> str:
    base = manifest.base
    pinned = f", revision={base.commit!r}" if base.commit else ""
    return f"snapshot_download({base.repo_id!r}{pinned})" if base.is_public else "base_model"
