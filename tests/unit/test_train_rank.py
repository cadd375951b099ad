"""A rank sums tensors of its device and of the CPU, and needs a backend for both."""

import pytest
from torch.distributed import Backend
from torch.distributed.distributed_c10d import BackendConfig

from jobs.steps.train_rank import BACKENDS


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda", "nccl")])
def test_every_tensor_that_is_summed_has_a_backend(device, backend):
    found = BackendConfig(Backend(BACKENDS[device])).get_device_backend_map()
    assert found["cpu"] == "gloo"
    assert found[device] == backend
