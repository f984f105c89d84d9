"""One small model of every timm family, that is of every module of timm that has models.

Where timm's smallest is large, its own constructor makes it with fewer and narrower layers: each kind of layer is still
there, and a family costs seconds.
"""

from collections import deque
from typing import Any

import timm
from torch import nn

default_cfgs: dict[str, Any] = {}
"""Where timm looks for the configurations of the models that this module registers."""

VIT: dict[str, Any] = {"embed_dim": 64, "depth": 2, "num_heads": 2}
PYRAMID: dict[str, Any] = {"depths": (1, 1, 1, 1)}
SWIN: dict[str, Any] = {"embed_dim": 32, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8)}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "beit": ("beit_base_patch16_224", VIT),
    "byoanet": ("eca_botnext26ts_256", {}),
    "byobnet": ("test_byobnet", {}),
    "cait": ("cait_xxs24_224", {"depth": 2}),
    "coat": ("coat_lite_tiny", {}),
    "convit": ("convit_tiny", {"depth": 3, "local_up_to_layer": 2}),
    "convmixer": ("convmixer_768_32", {}),
    "convnext": ("test_convnext", {}),
    "cpubone": ("cpubone_nano", {}),
    "crossvit": ("crossvit_tiny_240", {"depth": ((1, 1, 0), (1, 1, 0), (1, 1, 0))}),
    "csatv2": ("csatv2", {}),
    "cspnet": ("cs3darknet_s", {}),
    "cspnext": ("cspnext_tiny", {}),
    "davit": ("davit_tiny", {**PYRAMID, "embed_dims": (32, 64, 96, 128), "num_heads": (1, 2, 3, 4)}),
    "deepseek_vit": ("deepseek_vit_412m", VIT),
    "deit": ("deit_tiny_patch16_224", {"depth": 2}),
    "densenet": ("densenet121", {"growth_rate": 8, "block_config": (2, 2, 2, 2)}),
    "dla": ("dla46_c", {}),
    "dpn": ("dpn48b", {"k_sec": (1, 1, 1, 1)}),
    "edgenext": ("edgenext_xx_small", {}),
    "efficientformer": ("efficientformer_l1", {"depths": (1, 1, 1, 2)}),
    "efficientformer_v2": ("efficientformerv2_s0", {}),
    "efficientnet": ("test_efficientnet", {}),
    "efficientvim": ("efficientvim_m1", {}),
    "efficientvit_mit": ("efficientvit_b0", {}),
    "efficientvit_msra": ("efficientvit_m0", {}),
    "eva": ("eva02_tiny_patch14_224", {"depth": 2}),
    "fasternet": ("fasternet_t0", {}),
    "fastvit": ("fastvit_t8", {}),
    "focalnet": ("focalnet_tiny_srf", {}),
    "gcvit": ("gcvit_xxtiny", {}),
    "gemma4_vit": (
        "gemma4_vit_167m",
        {**VIT, "head_dim": 32, "intermediate_size": 64, "position_embedding_size": 256},
    ),
    "ghostnet": ("ghostnet_050", {}),
    "hardcorenas": ("hardcorenas_a", {}),
    "hgnet": ("hgnetv2_b0", {}),
    "hiera": ("hiera_tiny_224", {"embed_dim": 32, "stages": (1, 1, 2, 1)}),
    "hieradet_sam2": ("sam2_hiera_tiny", {"embed_dim": 32, "stages": (1, 1, 2, 1), "global_att_blocks": (3,)}),
    "hrnet": ("hrnet_w18_small", {}),
    "iformer": ("iformer_t", {}),
    "inception_next": ("inception_next_atto", {}),
    "inception_resnet_v2": ("inception_resnet_v2", {}),
    "inception_v3": ("inception_v3", {}),
    "inception_v4": ("inception_v4", {}),
    "lcnetv2": ("lcnetv2_small", {}),
    "levit": ("levit_128s", {}),
    "lowformer": ("lowformer_e1", {}),
    "mambaout": ("test_mambaout", {}),
    "maxxvit": ("test_maxvit", {}),
    "metaformer": ("poolformer_s12", {}),
    "mlp_mixer": ("resmlp_12_224", {}),
    "mobilenetv3": ("lcnet_035", {}),
    "mobilenetv5": ("mobilenetv5_300m", {"channel_multiplier": 0.125}),
    "mobilevit": ("mobilevitv2_050", {}),
    "mvitv2": ("mvitv2_tiny", {}),
    "naflexvit": ("naflexvit_base_patch16_gap", VIT),
    "nasnet": ("nasnetalarge", {"stem_size": 32, "num_features": 1056}),
    "nest": ("nest_tiny", {}),
    "nextvit": ("nextvit_small", {}),
    "nfnet": ("test_nfnet", {}),
    "pit": ("pit_ti_224", {"depth": (1, 2, 1)}),
    "pnasnet": ("pnasnet5large", {}),
    "pvt_v2": ("pvt_v2_b0", {}),
    "qwen3_vit": ("qwen3_vit_88m", VIT),
    "rdnet": ("rdnet_tiny", {}),
    "regnet": ("regnetx_002", {}),
    "repghost": ("repghostnet_050", {}),
    "repvit": ("repvit_m0_9", {}),
    "res2net": ("res2net50_48w_2s", {"layers": [1, 1, 1, 1]}),
    "resnest": ("resnest14d", {}),
    "resnet": ("test_resnet", {}),
    "resnetv2": ("resnetv2_18", {"channels": (16, 32, 48, 64)}),
    "rexnet": ("rexnet_100", {}),
    "selecsls": ("selecsls42", {}),
    "senet": ("legacy_seresnet18", {}),
    "sequencer": ("sequencer2d_s", {"layers": (1, 1, 1, 1)}),
    "shvit": ("shvit_s1", {}),
    "sknet": ("skresnet18", {}),
    "starnet": ("starnet_s050", {}),
    "swiftformer": ("swiftformer_xs", {}),
    "swin_transformer": ("swin_tiny_patch4_window7_224", SWIN),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", SWIN),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", SWIN),
    "tiny_vit": ("tiny_vit_5m_224", {"depths": (1, 1, 2, 1)}),
    "tnt": ("tnt_s_patch16_224", {"depth": 2}),
    "tresnet": ("tresnet_m", {"layers": [1, 1, 2, 1]}),
    "twins": ("twins_svt_small", {"depths": [1, 1, 2, 2]}),
    "vgg": ("vgg11", {"mlp_ratio": 0.125}),
    "visformer": ("visformer_tiny", {"depth": (2, 1, 1)}),
    "vision_transformer": ("test_vit", {}),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", {"depth": 2}),
    "vision_transformer_relpos": ("test_vit_relpos", {}),
    "vision_transformer_sam": ("samvit_base_patch16_224", {**VIT, "global_attn_indexes": [1]}),
    "vitamin": ("vitamin_small_224", {"depth": 2}),
    "volo": ("volo_d1_224", {}),
    "vovnet": ("ese_vovnet19b_slim_dw", {}),
    "xception": ("legacy_xception", {}),
    "xception_aligned": ("xception41p", {}),
    "xcit": ("xcit_nano_12_p16_224", {"depth": 2}),
}
"""Module of timm -> a model of it, and what its constructor is given to make it smaller."""


def name_of_small_model(family: str) -> str:
    """The name under which `timm.create_model` makes the small model of a family; it is registered where need be."""
    name, arguments = FAMILIES[family]
    if not arguments:
        return name
    small = f"small_{family}"
    if not timm.is_model(small):
        _register(small, name, arguments)
    return small


def _register(small: str, name: str, arguments: dict[str, Any]) -> None:
    """Under a name of its own in timm, with the configuration of the model that it is a smaller one of."""
    large = timm.models.model_entrypoint(name)

    def create(pretrained: bool = False, **of_caller: Any) -> nn.Module:
        model: nn.Module = large(pretrained=pretrained, **{**arguments, **of_caller})
        return model

    create.__name__ = small
    default_cfgs[small] = timm.models.DefaultCfg(tags=deque([""]), cfgs={"": timm.get_pretrained_cfg(name)})
    timm.models.register_model(create)
