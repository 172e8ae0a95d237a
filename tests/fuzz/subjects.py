"""Small files in every format that poly_jax reads, made by the project's writers or by hand."""

import dataclasses
import io
import json
import pathlib
import random
import shutil

import numpy as np
import orbax.checkpoint as ocp
import sentencepiece
from safetensors.numpy import save_file

from poly_jax.interop.hugging_face.writer import write_hugging_face
from poly_jax.model.config import T5Config
from poly_jax.weights import backbone_folder, single_file
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.t5x_writer import write_t5x
from poly_jax.weights.tensors import of_tree
from poly_jax.weights.tree import unflatten

CONFIG = T5Config(
    vocab_size=128, emb_dim=4, num_heads=2, head_dim=3, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1
)
_QUERIES = ("encoder.block.0.layer.0.SelfAttention", "decoder.block.0.layer.0.SelfAttention")
_QUERIES += ("decoder.block.0.layer.1.EncDecAttention",)
_TEMPLATES = """\
dataset: made
templates:
  0a: !Template
    answer_choices: no ||| yes
    id: 0a
    jinja: "{{text}}? ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      metrics: [Accuracy]
      original_task: true
    name: asks
    reference: ''
"""


@dataclasses.dataclass(frozen=True)
class Subject:
    """Files that are read together.

    Attributes:
      folder: the folder of the files; a copy of it is damaged.
      readers: names in `readers.READERS` of the functions that read the files.
      files: the files to damage, relative to the folder; empty for all.
      most_kinds: the largest number of kinds of damage to one file; None for all.
    """

    folder: pathlib.Path
    readers: tuple[str, ...]
    files: tuple[str, ...] = ()
    most_kinds: int | None = None

    def damaged(self) -> list[str]:
        """Files to damage, in order."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        names = list(self.files) or [path.relative_to(self.folder).as_posix() for path in found]
        # One array represents all arrays that are stored in the same way.
        return [name for name in names if "target." not in name or "target.encoder.encoder_norm" in name]


def make_subjects(root: pathlib.Path, run: pathlib.Path) -> list[Subject]:
    """Every subject, in folders below `root`; `run` is the folder of a trained run."""
    rng = np.random.default_rng(0)
    shapes = t5_parameter_shapes(CONFIG)
    tensors = of_tree({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
    subjects = [Subject(run, ("resume", "export", "load"), _run_files(run), 8)]
    for name, make in _BACKBONES.items():
        folder = root / name
        folder.mkdir()
        make(folder, tensors)
        reader = "import_backbone" if name.startswith("hugging_face") else "export_backbone"
        subjects.append(Subject(folder, (reader,)))
    _tokenizer_files(root / "hugging_face" / "model")
    tokenizer = tuple(
        f"model/{name}" for name in ("spiece.model", "added_tokens.json", "special_tokens_map.json")
    )
    subjects.append(Subject(root / "hugging_face", ("tokenizer",), tokenizer))
    for name, adapter in (("lora", _peft_lora), ("poly", _peft_poly), ("mttl", _mttl)):
        folder = root / name
        folder.mkdir()
        write_hugging_face(str(folder / "model"), tensors, CONFIG)
        adapter(folder, rng)
        files = tuple(
            path.relative_to(folder).as_posix()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.parent.name != "model"
        )
        subjects.append(Subject(folder, ("import_adapter",), files))
    for reader, name, content in _texts():
        folder = root / f"{reader}_{name}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        subjects.append(Subject(folder, (reader,)))
    subjects.append(_natural_instructions(root / "natural_instructions"))
    subjects.append(_t0(root / "t0"))
    subjects.append(_crossfit(root / "crossfit"))
    subjects.append(_from_files(root / "from_files"))
    subjects.append(_gin(root / "gin"))
    return subjects


def _run_files(run: pathlib.Path) -> tuple[str, ...]:
    ignored = ("events.out", "operative_config.gin", "commit_success")
    return tuple(
        path.relative_to(run).as_posix()
        for path in sorted(run.rglob("*"))
        if path.is_file() and not path.name.startswith(ignored)
    )


def _hugging_face(folder, tensors):
    write_hugging_face(str(folder / "model"), tensors, CONFIG)


def _hugging_face_shards(folder, tensors):
    from safetensors.numpy import load_file

    write_hugging_face(str(folder / "model"), tensors, CONFIG)
    whole = folder / "model" / "model.safetensors"
    stored = dict(sorted(load_file(whole).items()))
    whole.unlink()
    weight_map = {}
    for part in range(2):
        name = f"model-{part + 1:05d}-of-00002.safetensors"
        chosen = dict(list(stored.items())[part::2])
        save_file(chosen, whole.with_name(name), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(chosen, name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    whole.with_name("model.safetensors.index.json").write_text(json.dumps(index))


def _orbax(folder, tensors, **options):
    tree = unflatten({name: tensor.load() for name, tensor in tensors.items()})
    state = {"target": tree, "state": {"step": np.array(10)}}
    handler = ocp.PyTreeCheckpointHandler(**options)
    with ocp.Checkpointer(handler) as writer:
        writer.save(folder / "model" / "state", state)


_FIELDS = dataclasses.asdict(CONFIG)
_BACKBONES = {
    "hugging_face": _hugging_face,
    "hugging_face_shards": _hugging_face_shards,
    "t5x_legacy": lambda folder, tensors: write_t5x(str(folder / "model"), 1, tensors),
    "t5x_orbax": lambda folder, tensors: _orbax(folder, tensors, use_ocdbt=True),
    "t5x_orbax_zarr": lambda folder, tensors: _orbax(folder, tensors, use_ocdbt=False),
    "poly_jax": lambda folder, tensors: single_file.write(folder / "model.safetensors", tensors, _FIELDS),
    "poly_jax_folder": lambda folder, tensors: backbone_folder.write(
        folder / "model", tensors, _FIELDS, shard_bytes=2048
    ),
}


def _tokenizer_files(folder: pathlib.Path) -> None:
    model = io.BytesIO()
    words = random.Random(0)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["".join(words.choices("abcd ", k=20)) for _ in range(200)]),
        model_writer=model,
        vocab_size=16,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    (folder / "added_tokens.json").write_text("{}")
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


def _peft_lora(folder: pathlib.Path, rng: np.random.Generator) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"], "bias": "none"}
    tensors = {}
    for module in _QUERIES:
        tensors[f"base_model.model.{module}.q.lora_A.weight"] = rng.normal(size=(2, 4)).astype(np.float32)
        tensors[f"base_model.model.{module}.q.lora_B.weight"] = rng.normal(size=(6, 2)).astype(np.float32)
    _peft(folder, config, tensors)


def _peft_poly(folder: pathlib.Path, rng: np.random.Generator) -> None:
    config = {"peft_type": "POLY", "poly_type": "poly", "r": 2, "target_modules": ["q"], "n_tasks": 3}
    config |= {"n_skills": 2, "n_splits": 1}
    shapes = {"poly_lora_A": (1, 2, 4, 2), "poly_lora_B": (1, 2, 2, 6), "poly_router.module_logits": (3, 2)}
    tensors = {
        f"base_model.model.{module}.q.{name}": rng.normal(size=shape).astype(np.float32)
        for module in _QUERIES
        for name, shape in shapes.items()
    }
    _peft(folder, config, tensors)
    (folder / "names.json").write_text(json.dumps(["bee", "ant", "cat"]))


def _peft(folder: pathlib.Path, config: dict, tensors: dict[str, np.ndarray]) -> None:
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")


def _mttl(folder: pathlib.Path, rng: np.random.Generator) -> None:
    shapes = {"lora_a": (1, 2, 4, 2), "lora_b": (1, 2, 2, 6), "selector.module_logits": (3, 2)}
    tensors = {
        f"model.{_QUERIES[0]}.q.{name}": rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    save_file(tensors, folder / "adapter.safetensors")
    (folder / "names.json").write_text(json.dumps({"tasks": ["bee", "ant", "cat"]}))


def _texts() -> list[tuple[str, str, bytes]]:
    table = io.BytesIO()
    np.savez(table, tasks=np.array(["ant", "bee", "cat"]), weights=np.eye(3))
    return [
        ("table", "table.json", b'{"ant": [1, 0], "bee": [0.5, 0.5], "cat": [0, 1]}'),
        ("table", "table.csv", b"task,a,b\nant,1,0\nbee,0.5,0.5\ncat,0,1\n"),
        ("table", "table.npz", table.getvalue()),
        ("grouping", "groups.json", b'{"ant": "insects", "bee": ["insects", "flying"], "cat": "mammals"}'),
        ("grouping", "groups.csv", b"task,group\nant,insects\nbee,insects\ncat,mammals\n"),
        ("texts", "input.jsonl", b'{"inputs": "a text", "id": 1}\n{"input": "another"}\n'),
        ("texts", "input.txt", b"a text\nanother\n"),
    ]


def _natural_instructions(folder: pathlib.Path) -> Subject:
    content = {
        "Definition": ["Answer the question"],
        "Categories": ["Question Answering"],
        "Positive Examples": [{"input": "one?", "output": "1", "explanation": ""}],
        "Instances": [{"id": f"{n}", "input": f"q {n}", "output": [f"a {n}", "x"]} for n in range(3)],
    }
    (folder / "tasks").mkdir(parents=True)
    (folder / "splits").mkdir()
    (folder / "tasks" / "task1_made.json").write_text(json.dumps(content))
    (folder / "splits" / "train_tasks.txt").write_text("task1_made\n")
    return Subject(folder, ("natural_instructions",))


def _t0(folder: pathlib.Path) -> Subject:
    folder.mkdir()
    (folder / "templates.yaml").write_text(_TEMPLATES)
    (folder / "train.jsonl").write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    return Subject(folder, ("t0",))


def _crossfit(folder: pathlib.Path) -> Subject:
    (folder / "splits").mkdir(parents=True)
    (folder / "codah").mkdir()
    (folder / "splits" / "made.json").write_text('{"train": ["codah"], "dev": ["boolq"], "test": []}')
    (folder / "codah" / "codah_2_13_train.tsv").write_text("a (A) b (B) c\tb\nd (A) e (B) f\tf\tF\n")
    return Subject(folder, ("crossfit",))


def _from_files(folder: pathlib.Path) -> Subject:
    shutil.copytree(pathlib.Path(__file__).parents[1] / "tasks" / "saved_data_sets", folder)
    (folder / "lines.jsonl").write_text('{"review": "a", "label": ["b", "c"]}\n{"review": "d", "label": 1}\n')
    (folder / "commas.csv").write_text('review,label\n"a, ""b""",c\nd,1\n')
    (folder / "tabs.tsv").write_text("review\tlabel\na\tb\n")
    return Subject(folder, ("from_files",))


def _gin(folder: pathlib.Path) -> Subject:
    folder.mkdir()
    lines = ["include 'routers/mhr.gin'", "RANK = 3", "LoRA.rank = %RANK", "LoRA.alpha = 1.0"]
    (folder / "run.gin").write_text("\n".join(lines) + "\n")
    return Subject(folder, ("gin",))
