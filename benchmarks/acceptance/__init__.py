"""The checks of `accept_gpu.py`: each a function of the machine that gives its row of the table."""

import os

# pytorch-pfn-extras asks for a GPU when it is imported. By NVML that starts no CUDA, after which no process that is
# forked could use a GPU.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
