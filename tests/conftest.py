"""Shared by every test: annotations are checked at run time, hypothesis is reproducible, torch uses one thread."""

import os

# Each xdist worker is one process per core: BLAS and torch must not add threads of their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import torch
from jaxtyping import install_import_hook

# Before any of the packages is imported, or their modules would stay unchecked.
install_import_hook(["verifier", "attacks", "synth", "nets", "aureole"], "runtime_types.check")

torch.set_num_threads(1)

hypothesis.settings.register_profile(
    "aureole",
    deadline=None,  # time says nothing on a shared machine
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("aureole")
