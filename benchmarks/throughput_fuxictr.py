"""FuxiCTR as a side of benchmarks/throughput.py: MMoE of its layers on its multi-task model.

Its Parquet loader is one of Ray, in processes of its own: here it reads its other format, .npz, in memory, which is
less work.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import DIN_Attention, FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import MultiTaskModel
from throughput_cost import SideJob
from throughput_data import DIM, EXPERT, EXPERTS, HISTORY, IDS, LABELS, LENGTH, ROWS, TABLE_RATE, TOWER
from torch import Tensor, nn


class FuxiModel(MultiTaskModel):
    """MMoE, with DIN's attention where there is a history."""

    def __init__(self, features: FeatureMap, folder: Path) -> None:
        options = {"verbose": 0, "model_root": str(folder), "metrics": ["AUC"], "monitor": "AUC"}
        tasks = len(LABELS)
        super().__init__(features, task=["binary_classification"] * tasks, num_tasks=tasks, **options)
        self.embeddings = FeatureEmbeddingDict(features, DIM)
        self.attention = DIN_Attention(DIM, [36]) if HISTORY in features.features else None
        width = DIM * len(features.features)
        self.experts = nn.ModuleList(MLP_Block(width, list(EXPERT)) for _ in range(EXPERTS))
        self.gates = nn.ModuleList(MLP_Block(width, output_dim=EXPERTS, output_activation="softmax") for _ in LABELS)
        self.towers = nn.ModuleList(MLP_Block(EXPERT[-1], list(TOWER), output_dim=1) for _ in LABELS)
        self.compile("Adagrad", "binary_crossentropy", TABLE_RATE)
        self.reset_parameters()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each label's prediction, `LABEL_pred`, float32 [B, 1], from the columns."""
        x = self.get_inputs(inputs)
        embedded = self.embeddings(x)
        if self.attention:
            embedded[HISTORY] = self.attention(embedded["item_id"], embedded[HISTORY], x[HISTORY] != 0)
        flat = torch.cat(list(embedded.values()), 1)
        experts = torch.stack([expert(flat) for expert in self.experts], 1)
        mixed = [(gate(flat).unsqueeze(1) @ experts).squeeze(1) for gate in self.gates]
        parts = zip(LABELS, self.towers, mixed, self.output_activation, strict=True)
        return {f"{label}_pred": activation(tower(m)) for label, tower, m, activation in parts}


class FuxiCTR:
    """Shuffles; clips the gradients of all parameters, tables too, always."""

    suffix = ".npz"

    def __init__(self, job: SideJob) -> None:
        self.batch = job.batch
        self.features = FeatureMap("throughput", str(job.folder))
        self.features.labels = list(LABELS)
        id_spec: dict[str, Any] = {"type": "categorical", "source": "", "vocab_size": ROWS, "padding_idx": 0}
        specs = {n: dict(id_spec) for n in IDS}
        if job.work == "B":
            specs[HISTORY] = id_spec | {"type": "sequence", "max_len": LENGTH, "share_embedding": "item_id"}
        self.features.features = OrderedDict(specs)
        self.features.default_emb_dim = DIM
        self.features.set_column_index()
        (job.folder / "throughput").mkdir()
        self.model = FuxiModel(self.features, job.folder)
        self.model._max_gradient_norm = 10.0

    def train(self, batches: list[tuple[dict[str, Tensor], Tensor]]) -> None:
        """Its `train_step`."""
        self.model.train()
        for x, y in batches:
            self.model.train_step(x | {n: y[:, i] for i, n in enumerate(LABELS)})

    def fit(self, training: Path, validation: Path) -> None:
        """`fit`, over its loader."""
        files = {"train_data": str(training), "valid_data": str(validation)}
        train, valid = RankDataLoader(self.features, stage="train", batch_size=self.batch, num_workers=0, **files)
        self.model._eval_steps = None
        self.model.fit(train, epochs=1, validation_data=valid)
