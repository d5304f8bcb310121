"""NextRec as a side of benchmarks/throughput.py.

On Python 3.11 it asks for numpy 1 and pyarrow 12, and runs with newer ones: `pip install --no-deps nextrec` beside
torchvision, transformers and rich.
"""

from pathlib import Path

from nextrec.basic.features import SequenceFeature, SparseFeature
from nextrec.basic.layers import AttentionPoolingLayer
from nextrec.models import MMOE
from throughput_cost import SideJob
from throughput_data import DIM, EXPERT, EXPERTS, HISTORY, IDS, LABELS, LENGTH, ROWS, TABLE_RATE, TOWER
from throughput_peers import Attended, Features
from torch import Tensor


class NextRec:
    """Streams Parquet in chunks of a batch. It has metrics of the training set for data in memory only."""

    suffix = ".parquet"

    def __init__(self, job: SideJob) -> None:
        self.batch = job.batch
        past = SequenceFeature(HISTORY, ROWS, LENGTH, embedding_name="item_id", embedding_dim=DIM)
        self.model = MMOE(
            sparse_features=[SparseFeature(n, ROWS, embedding_dim=DIM) for n in IDS],
            sequence_features=[past] if job.work == "B" else [],
            num_experts=EXPERTS,
            expert_mlp_params={"hidden_dims": list(EXPERT)},
            tower_mlp_params_list=[{"hidden_dims": list(TOWER)} for _ in LABELS],
            target=list(LABELS),
            task=["binary"] * len(LABELS),
        )
        if job.work == "B":
            attention = AttentionPoolingLayer(DIM, [36], "relu")
            embedding = self.model.embedding
            self.model.embedding = Attended(
                embedding, embedding.embed_dict["item_id"], lambda q, k, seen: attention(q, k, mask=seen)
            )
            self.model.attention = attention
        self.model.compile(optimizer="adagrad", optimizer_params={"lr": TABLE_RATE}, loss=["bce"] * len(LABELS))
        self.model.max_gradient_norm = None

    def train(self, batches: list[tuple[Features, Tensor]]) -> None:
        """What its `train_epoch` does with a batch."""
        self.model.train()
        for x, y in batches:
            loss = self.model.compute_loss(self.model.training_adapter.forward(self.model, x), y)
            self.model.optimizer_fn.zero_grad()
            loss.backward()
            self.model.optimizer_fn.step()

    def fit(self, training: Path, validation: Path) -> None:
        """`fit` with streaming."""
        options = {"metrics": ["auc"], "streaming": True, "chunk_size": self.batch, "use_tensorboard": False}
        self.model.fit(str(training), valid_data=str(validation), batch_size=self.batch, **options)
