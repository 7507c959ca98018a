"""Language models by their shapes: decoder-only transformers with grouped attention and a gated feed-forward layer.

`isl_emu/data/models.toml` has the shapes; whatever else is needed follows from them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from isl_emu.scenario.boards import read_data


@dataclass(frozen=True)
class Model:
    """A language model.

    Args:
        hidden: length of the vector that stands for a token between layers.
        intermediate: length inside the feed-forward layer.
        head: length of one attention head.
        tied: the embedding is the output layer too.
        context_tokens: the longest prompt and answer together.
    """

    name: str
    description: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    context_tokens: int

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers, without embedding and output; norms, a thousandth or less, are left out."""
        attention = 2 * self.hidden * self.head * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layer_parameters + (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def kv_byte_per_token(self) -> int:
        """Keys and values that a token leaves in the cache, with 16 bits a number."""
        return 2 * 2 * self.layers * self.kv_heads * self.head


def model_named(name: str) -> Model:
    """The model of that name.

    Raises:
        ValueError: there is none; the message names one that is spelled nearly so.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name.lower().replace(".", "-"), MODELS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "choose one of them"
        raise ValueError(f"is {name!r}, but the models that can be modelled are {', '.join(MODELS)}; {hint}")
    return MODELS[name]


MODELS: Mapping[str, Model] = MappingProxyType(
    {name: Model(name, **table) for name, table in read_data("models.toml").items()}
)
