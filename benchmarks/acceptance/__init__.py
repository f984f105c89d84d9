"""The checks of `accept_gpu.py`: each a function of the machine that gives its row of the table."""
