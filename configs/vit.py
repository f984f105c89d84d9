"""RANZCR CLiP with a vision transformer: ViT-B/14 of DINOv2, 518 px, attention heads, bfloat16, accumulation.

    python preproc_npy.py --config configs/vit.py
    python multi_train.py --config configs/vit.py

518 px is the size that DINOv2's position embeddings were learnt at; any multiple of 14 px will do. The learning rate
goes up to 1e-4 and falls by 0.75 from each block to the one below it, as is usual where such models are fine-tuned (Bao
et al. 2022, "BEiT", appendix; He et al. 2022, "Masked autoencoders are scalable vision learners", table 9).
`pretrained=rad_dino/model.safetensors` starts from weights of the same model that were learnt on X-rays.

For one GPU of 16 GB, Ampere or newer: the activations of a batch, counted without one and in 16 bits, are about 4 GB
with torch's fused attention, 8 GB without. A step has been tried at 70 px and a forward pass at 518 px, with random
weights on a CPU. Not run on RANZCR's images yet, so it states no time and no score; no search has chosen its numbers.
"""

from catheters.config.presets import VIT

settings = VIT
