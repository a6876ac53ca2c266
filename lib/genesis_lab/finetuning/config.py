"""Settings of a fine-tuning run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from genesis_lab.providers.local_models import BUNDLED, Device, Dtype


def _no_leap(rate: float) -> float:  # not a bound of the field: a form would make a slider of it, too coarse for 0.0002
    if rate > 0.1:
        raise ValueError(f"must be at most 0.1, got {rate:g}")
    return rate


class FinetuneConfig(BaseModel):
    """How a student is taught by LoRA (Hu et al. 2021, arXiv:2106.09685)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(BUNDLED, description="model to teach: smollm2 (comes along), a folder, or a hub id")
    student: str = Field("student", description="name of the student: its folder under outputs/models")
    epochs: int = Field(3, ge=1, le=100, description="times the student sees every example")
    batch_size: int = Field(8, ge=1, le=4096, description="examples per step of the optimizer, however they are packed")
    learning_rate: Annotated[float, AfterValidator(_no_leap)] = Field(
        2e-4, gt=0, description="highest step size; warm-up before, cosine after"
    )
    rank: int = Field(8, ge=1, le=512, description="rank of the adapters: what they can hold")
    alpha: float = Field(32.0, gt=0, description="weight of the adapters: alpha ÷ rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of an adapter's inputs set to zero in training")
    targets: Literal["attention", "all-linear"] = Field(
        "attention", description="adapters on the layers of attention alone, or on every linear layer"
    )
    max_length: int = Field(2048, ge=16, description="longest example, tokens; longer ones are listed and left out")
    row_tokens: int = Field(2048, ge=16, description="tokens that go through the model at once; memory grows with it")
    dtype: Dtype = Field("auto", description="number format of the frozen base; the adapters are always float32")
    device: Device = Field("auto", description="where it runs; auto takes a GPU when there is one")
    quantization: Literal["none", "nf4"] = Field("none", description="nf4 holds the base in 4 bits; needs a CUDA GPU")
    gradient_checkpointing: bool = Field(False, description="less memory for about a third more time")
    compile: bool = Field(False, description="compile each block; pays in long runs on a GPU")
    examine: int = Field(16, ge=0, le=500, description="validation examples answered and scored after every epoch")
    answer_tokens: int = Field(512, ge=1, le=8192, description="longest answer in that examination, tokens")
    patience: int = Field(0, ge=0, description="stop after so many epochs without a better score (0: never)")
    train_limit: int | None = Field(None, ge=1, description="smoke run: learn from so many examples only")
    val_limit: int | None = Field(None, ge=1, description="smoke run: check on so many examples only")
    max_steps: int | None = Field(None, ge=1, description="smoke run: stop after so many steps")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="same seed, data and machine: same student")
    replace: bool = Field(False, description="train anew in place of a student of that name")

    @model_validator(mode="after")
    def _rows_hold_the_longest(self) -> FinetuneConfig:
        if self.row_tokens < self.max_length:
            raise ValueError(f"row_tokens ({self.row_tokens:,}) must be at least max_length ({self.max_length:,})")
        return self

    @property
    def limits(self) -> dict[str, int]:
        """What makes this a smoke run; empty for a real one."""
        return self.model_dump(include={"train_limit", "val_limit", "max_steps"}, exclude_none=True)

    @property
    def shaping(self) -> dict[str, object]:
        """The fields that a result depends on besides base and data, JSON-safe."""
        return self.model_dump(mode="json", exclude={"base", "student", "replace"})
