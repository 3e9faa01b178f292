"""The networks of timm in the zoo: of each family of its CNNs one of the smallest variants.

Families are what its modules and the names of its models tell apart. Left out are pure vision
transformers, and what has more than 31 million parameters. Knows nothing of timm but names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class TimmName:
    """One of them.

    Attributes:
        name: As `timm.create_model` takes it.
        size: Number of parameters, to a tenth of a million.
        pixels: Height and width of its input: 64 where it takes that.
    """

    name: str
    size: int
    pixels: int


def timm_names() -> Iterator[TimmName]:
    """All, small ones first."""
    for entry in _NAMES.split():
        name, _, rest = entry.partition(":")
        millions, _, pixels = rest.partition("@")
        yield TimmName(name, round(1e6 * float(millions)), int(pixels or 64))


#: name:millions of parameters, and @pixels where they are not 64.
_NAMES = """
    test_resnet:0.5 starnet_s050:0.5 dla46x_c:1.1 mobilevit_xxs:1.3 dla46_c:1.3
    edgenext_xx_small:1.3 mobilevitv2_050:1.4 mobilenetv3_small_050:1.6 lcnet_035:1.6
    mobilenetv2_035:1.7 ese_vovnet19b_slim_dw:1.9 mobilenetv4_conv_small_035:1.9
    tf_mobilenetv3_small_075:2.0 tinynet_e:2.0 tf_mobilenetv3_small_minimal_100:2.0
    convnext_zepto_rms:2.2 mnasnet_050:2.2 repghostnet_050:2.3 efficientvit_m0:2.3 ghostnet_050:2.6
    regnetx_002:2.7 cspnext_tiny:2.7 iformer_t:2.9 semnasnet_075:2.9 xcit_nano_12_p16_224:3.1
    regnety_002:3.2 ese_vovnet19b_slim:3.2 cs3darknet_focus_s:3.3 cs3darknet_s:3.3
    ghostnetv3_050:3.4 efficientvit_b0:3.4 swiftformer_xs:3.5 efficientformerv2_s0:3.6@224
    pvt_v2_b0:3.7 convnext_atto_rms:3.7 convnext_atto:3.7 convnext_atto_ols:3.7 convnextv2_atto:3.7
    fasternet_t0:3.9 mobilenetv3_large_075:4.0 fastvit_t8:4.0 mobilenet_edgetpu_100:4.1
    lcnetv2_small:4.1 mixnet_s:4.1 tf_mixnet_s:4.1 inception_next_atto:4.2 mobilenetv1_100:4.2
    spnasnet_100:4.4 mobilenet_edgetpu_v2_xs:4.5 efficientnet_lite0:4.7 rexnet_100:4.8
    rexnetr_100:4.9 hardcorenas_a:5.3 efficientnet_b0:5.3 efficientnet_b0_gn:5.3
    efficientnet_blur_b0:5.3 tf_efficientnet_b0:5.3 mobileone_s0:5.3 resnet10t:5.4
    efficientnet_es:5.4 mobilenetv3_rw:5.5 repvit_m1:5.5 repvit_m0_9:5.5 coat_tiny:5.5@224
    fbnetc_100:5.6 coat_lite_tiny:5.7@224 hgnetv2_b0:6.0 ghostnetv2_100:6.2 shvit_s1:6.3
    efficientnet_b1_pruned:6.3 cpubone_nano:6.5 efficientnet_b0_g8_gn:6.6 efficientvim_m1:6.7
    crossvit_tiny_240:7.0 regnetz_005:7.1 tf_efficientnetv2_b0:7.1 mambaout_femto:7.3
    mobilenetv4_hybrid_medium_075:7.3 maxvit_pico_rw_256:7.5@256 maxvit_rmlp_pico_rw_256:7.5@256
    levit_128s:7.8@224 levit_conv_128s:7.8@224 densenet121:8.0 densenetblur121d:8.0 gernet_s:8.2
    fbnetv3_b:8.6 nf_regnet_b0:8.8 repvgg_a0:9.1 dpn48b:9.1 regnetz_b16:9.7
    mobilenetv4_conv_aa_medium:9.7 mobilenetv4_conv_blur_medium:9.7 regnetz_b16_evos:9.7
    resnext26ts:10.3 eca_resnext26ts:10.3 visformer_tiny:10.3@224 cpubone_b0_bfrobust:10.4
    seresnext26ts:10.4 gcresnext26ts:10.5 eca_botnext26ts_256:10.6@256 resnest14d:10.6
    bat_resnext26ts:10.7@256 eca_halonext26ts:10.8@256 lambda_resnet26t:11.0 csatv2:11.1
    fastvit_mci0:11.4 fastvit_sa12:11.6 haloregnetz_b:11.7@224 resnetv2_18:11.7 resnet18:11.7
    resnetblur18:11.7 resnetv2_18d:11.7 resnet18d:11.7 legacy_seresnet18:11.8 seresnet18:11.8
    poolformerv2_s12:11.9 poolformer_s12:11.9 skresnet18:12.0 gcvit_xxtiny:12.0@224
    tiny_vit_5m_224:12.1 efficientformer_l1:12.3@224 cpubone_b1_dwnorm:12.4 halonet26t:12.5@256
    botnet26t_256:12.5@256 dpn68:12.6 hrnet_w18_small:13.2 efficientnet_x_b3:13.3
    efficientnet_cc_b0_4e:13.3 efficientnetv2_rw_t:13.6 gc_efficientnetv2_rw_t:13.7
    sebotnet33ts_256:13.7@256 lowformer_b0:14.1 darknet17:14.3 coatnext_nano_rw_224:14.7@224
    hgnet_tiny:14.7 coatnet_nano_rw_224:15.1@224 ecaresnext26t_32x4d:15.4 dla34:15.7
    nf_resnet26:16.0 nf_ecaresnet26:16.0 resnet26t:16.0 ecaresnet26t:16.0
    legacy_seresnext26_32x4d:16.8 seresnext26t_32x4d:16.8 seresnext26d_32x4d:16.8
    dla60_res2next:17.0 nf_seresnet26:17.4 resnet32ts:18.0 lowformer_e1:18.9 eca_resnet33ts:19.7
    seresnet33ts:19.8 gcresnet33ts:19.9 ecaresnet50d_pruned:19.9 cspresnext50:20.6 regnetv_040:20.6
    regnety_040_sgn:20.6 dla60_res2net:20.8 sedarknet21:21.0 convmixer_768_32:21.1
    efficientnetv2_s:21.5 cspresnet50:21.6 resnetaa34d:21.8 cs3sedarknet_l:21.9 pvt_v2_b2_li:22.6
    vovnet39a:22.6 eca_vovnet39b:22.6 legacy_xception:22.9 resnet50_clip_gap:23.5
    inception_v3:23.8@96 rdnet_tiny:23.9 twins_svt_small:24.1 eca_nfnet_l0:24.1
    ese_vovnet39b_evos:24.6 res2next50:24.7 resnext50_32x4d:25.0 coatnet_0_224:25.0@224
    res2net50_14w_8s:25.1 resnetv2_50x1_bit:25.5 resnet50_gn:25.6 resnetv2_50t:25.6
    resnetv2_50d_gn:25.6 resnet50c:25.6 resnetv2_50d_evos:25.6 resnetv2_50d_frn:25.6
    resnest50d_1s4x24d:25.7 res2net50d:25.7 skresnet50d:25.8 caformer_s18:26.3 resnet50_mlp:26.7
    convformer_s18:26.8 xception41p:26.9 xception41:27.0 coatnet_bn_0_rw_224:27.4@224
    skresnext50_32x4d:27.5 cspdarknet53:27.6 sequencer2d_s:27.7 seresnetaa50d:28.1
    cspresnet50w:28.1 davit_tiny:28.4 focalnet_tiny_srf:28.4 convnext_tiny_hnf:28.6
    regnetz_040_h:28.9 ecaresnetlight:30.2 selecsls42:30.4 resnest50d_4s2x40d:30.4
"""
