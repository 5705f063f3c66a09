"""What pytest's search for doctests leaves out: the modules of extras that are not installed."""

import importlib.util

collect_ignore = (
    []
    if importlib.util.find_spec("torch")
    else [
        "fastconv/torch_arrays.py",
        "fastconv/torch_calls.py",
        "fastconv/torch_gradients.py",
        "fastconv/torch_ops.py",
        "tests/simulated_torch.py",
    ]
)
