"""The plain vision transformer that ViT, DeiT, DINOv2, CLIP and SigLIP share.

Source: Dosovitskiy et al. 2020, arXiv:2010.11929, figure 1 and table 1; what DeiT, CLIP and SigLIP
change is in the config. Names and constants as in timm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import ops

from zoo.blocks import (
    Tensor,
    activation,
    classifier,
    conv,
    dense,
    drop_path,
    drop_path_rates,
    global_pool,
    layer_norm,
)
from zoo.layers import LatentQuery, LayerScale, TokenEmbedding, TokenMap
from zoo.spec import Renames

STAGES = 4  # maps, evenly spaced in depth


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """One size."""

    patch: int  # pixels
    width: int
    depth: int
    heads: int
    size: int = 224  # pixels of the images that the position embeddings belong to
    mlp_ratio: float = 4.0
    class_token: bool = True
    distilled: bool = False  # a second token and a second classifier; the outputs are averaged
    registers: int = 0  # further tokens without use
    positions_for_tokens: bool = True
    norm_first: bool = False  # before the first block; the patches then have no bias
    norm_last: Literal["before", "after"] = "before"  # the pooling
    pool: Literal["token", "avg", "latent"] = "token"
    scale: float | None = None  # start of the layer scale; None: none
    act: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    epsilon: float = 1e-6

    @property
    def tokens(self) -> dict[str, int]:
        """Name and number of the tokens before the patches."""
        counts = {
            "cls_token": int(self.class_token),
            "dist_token": int(self.distilled),
            "reg_token": self.registers,
        }
        return {name: count for name, count in counts.items() if count}


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, name: str) -> Tensor:
    """Scaled dot-product attention of every head: (B, N, C), (B, M, C), (B, M, C) -> (B, N, C)."""
    width = q.shape[-1]
    # These layers, unlike `ops.reshape`, take lengths that are not known.
    split = keras.layers.Reshape((-1, heads, width // heads), name=f"{name}_split")
    y = ops.dot_product_attention(*(split(t) for t in (q, k, v)))
    return keras.layers.Reshape((-1, width), name=f"{name}_join")(y)


def mlp(x: Tensor, config: TransformerConfig, name: str) -> Tensor:
    """Two dense layers: (B, N, C) -> (B, N, C)."""
    width = x.shape[-1]
    x = dense(x, int(width * config.mlp_ratio), name=f"{name}_fc1")
    x = activation(x, config.act, name=f"{name}_act")
    return dense(x, width, name=f"{name}_fc2")


def block(x: Tensor, config: TransformerConfig, drop: float, name: str) -> Tensor:
    """Attention and MLP, each on a normalised input beside the identity."""
    y = layer_norm(x, config.epsilon, name=f"{name}_norm1")
    qkv = dense(y, 3 * config.width, name=f"{name}_qkv")
    q, k, v = ops.split(qkv, 3, axis=-1)
    y = attention(q, k, v, config.heads, name)
    y = dense(y, config.width, name=f"{name}_proj")
    x = residual(x, y, config, drop, name, "1")
    y = layer_norm(x, config.epsilon, name=f"{name}_norm2")
    return residual(x, mlp(y, config, f"{name}_mlp"), config, drop, name, "2")


def residual(
    x: Tensor, y: Tensor, config: TransformerConfig, drop: float, name: str, suffix: str
) -> Tensor:
    """Adds a branch."""
    if config.scale is not None:
        y = LayerScale(config.scale, name=f"{name}_scale{suffix}")(y)
    y = drop_path(y, drop, name=f"{name}_drop_path{suffix}")
    return keras.layers.Add(name=f"{name}_add{suffix}")([x, y])


def features(
    x: Tensor,
    config: TransformerConfig,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, the patches, and `stage1` to `stage4`, the quarters of depth.

    All have the stride of the patch, a quarter of it with the small stem. `tokens` are what the
    head takes: (B, P + N, C).
    """
    del output_stride
    patch = config.patch // 4 if small_stem else config.patch
    maps = {
        "stem": conv(
            x, config.width, patch, patch, name="stem_conv", padding="valid",
            bias=not config.norm_first,
        )
    }  # fmt: skip
    side = config.size // config.patch
    x = TokenEmbedding(
        (side, side),
        config.tokens,
        positions_for_tokens=config.positions_for_tokens,
        name="embedding",
    )(maps["stem"])
    if config.norm_first:
        x = layer_norm(x, config.epsilon, name="embedding_norm")
    before = sum(config.tokens.values())
    drops = drop_path_rates(drop_path, config.depth, last=True)
    for j, drop in enumerate(drops, start=1):
        stage = -(-j * STAGES // config.depth)
        x = block(x, config, drop, f"block{j}")
        maps[f"stage{stage}"] = x  # the last one of the stage stays
    for stage in range(1, STAGES + 1):
        name = f"stage{stage}"
        maps[name] = TokenMap(before, name=f"{name}_map")([maps[name], maps["stem"]])
    maps["tokens"] = x
    return maps


def latent_pool(x: Tensor, config: TransformerConfig) -> Tensor:
    """One learned query looks at all tokens: (B, N, C) -> (B, C). Source: arXiv:2205.01917."""
    name = "head_pool"
    query = LatentQuery(name=name)(x)
    query = dense(query, config.width, name=f"{name}_q")
    keys, values = ops.split(dense(x, 2 * config.width, name=f"{name}_kv"), 2, axis=-1)
    x = attention(query, keys, values, config.heads, name)
    x = dense(x, config.width, name=f"{name}_proj")
    y = layer_norm(x, config.epsilon, name=f"{name}_norm")
    x = keras.layers.Add(name=f"{name}_add")([x, mlp(y, config, f"{name}_mlp")])
    return x[:, 0]


def pooled(x: Tensor, config: TransformerConfig, pool: str | None) -> Tensor:
    """(B, P + N, C) -> (B, C), or all tokens where `pool` is None."""
    kind = config.pool if pool == "default" else pool
    if kind is None:
        return x
    if kind == "token":
        return x[:, 0]
    x = x[:, sum(config.tokens.values()) :]
    if kind == "latent":
        return latent_pool(x, config)
    return global_pool(ops.expand_dims(x, 1), kind)


def head(
    x: Tensor,
    config: TransformerConfig,
    *,
    num_classes: int,
    pool: str | None,
    dropout: float,
    activation: str | None,
) -> Tensor:
    """Norm, pooling, a dense layer: (B, P + N, C) -> (B, num_classes)."""
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "dropout": dropout,
        "activation": activation,
    }
    if config.norm_last == "before":
        x = layer_norm(x, config.epsilon, name="norm")
    if config.distilled and pool == "default":
        both = [
            classifier(x[:, place], **options, name=name)
            for place, name in enumerate(("head", "head_dist"))
        ]
        return keras.layers.Average(name="head_mean")(both)
    x = pooled(x, config, pool)
    if config.norm_last == "after":
        x = layer_norm(x, config.epsilon, name="head_norm")
    return classifier(x, **options)


RENAMES: Renames = (  # our layer name -> timm module
    (r"^block(\d+)_", lambda m: f"blocks.{int(m[1]) - 1}."),
    (r"\.(qkv|proj)$", r".attn.\1"),
    (r"\.scale([12])$", r".ls\1"),
    (r"\.mlp_(fc[12])$", r".mlp.\1"),
    (r"^stem_conv$", "patch_embed.proj"),
    (r"^embedding$", ""),
    (r"^embedding_norm$", "norm_pre"),
    (r"^head_pool_mlp_", "attn_pool.mlp."),
    (r"^head_pool_", "attn_pool."),
    (r"^head_pool$", "attn_pool"),
    (r"^head_norm$", "fc_norm"),
)
