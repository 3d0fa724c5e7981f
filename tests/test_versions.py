from typing import Any

import pytest

from recembed.versions import Versions, faults, installed_versions, pairing_lines

CPU = {"torch": "2.13.0+cpu", "fbgemm_gpu_cpu": "1.8.0", "torchrec": "1.8.0"}
CUDA = {"torch": "2.13.0+cu130", "cuda": "13.0", "fbgemm_gpu": "1.8.0", "torchrec": "1.8.0"}


NO_DRIVER = {**CUDA, "driver": False, "fbgemm_gpu": None, "fbgemm_gpu_cpu": "1.8.0"}
OLDER = {"torch": "2.10.1", "fbgemm_gpu_cpu": "1.5.0", "torchrec": "1.5.1"}


@pytest.mark.parametrize("installed", [CPU, CUDA, NO_DRIVER, OLDER])
def test_a_matching_pair_needs_nothing(installed: dict[str, Any]) -> None:
    assert faults(Versions(**installed)) == []
    assert pairing_lines(Versions(**installed)) == []


@pytest.mark.parametrize(
    ("installed", "fault", "lines"),
    [
        (
            {**CPU, "fbgemm_gpu_cpu": "1.6.0"},
            "fbgemm-gpu-cpu 1.6.0 is built for torch 2.11, not 2.13.0+cpu",
            ["pip install 'fbgemm-gpu-cpu==1.8.*'"],
        ),
        (
            {**CUDA, "torchrec": "1.9.2"},
            "torchrec 1.9.2 is built for torch 2.14, not 2.13.0+cu130",
            [
                "pip install tensordict torchmetrics==1.0.3 pyre-extensions tqdm setuptools",
                "pip install --no-deps 'torchrec==1.8.*'",
            ],
        ),
        (
            {**CPU, "fbgemm_gpu_cpu": None, "fbgemm_gpu": "1.8.0"},
            "fbgemm-gpu does not go with a CPU build of torch",
            ["pip uninstall --yes fbgemm-gpu", "pip install 'fbgemm-gpu-cpu==1.8.*'"],
        ),
        (
            {**CUDA, "fbgemm_gpu": None, "fbgemm_gpu_cpu": "1.8.0"},
            "fbgemm-gpu-cpu does not go with a CUDA build of torch",
            ["pip uninstall --yes fbgemm-gpu-cpu", "pip install 'fbgemm-gpu==1.8.*'"],
        ),
        (
            {**CUDA, "driver": False},
            "fbgemm-gpu does not go with a machine without NVIDIA's driver",
            ["pip uninstall --yes fbgemm-gpu", "pip install 'fbgemm-gpu-cpu==1.8.*'"],
        ),
        (
            {**CPU, "fbgemm_gpu": "1.8.0"},
            "fbgemm-gpu-cpu and fbgemm-gpu overwrite each other's files",
            ["pip uninstall --yes fbgemm-gpu fbgemm-gpu-cpu", "pip install 'fbgemm-gpu-cpu==1.8.*'"],
        ),
        (
            {**CPU, "fbgemm_gpu_cpu": None},
            "torchrec 1.8.0 is there without fbgemm-gpu-cpu",
            ["pip install 'fbgemm-gpu-cpu==1.8.*'"],
        ),
        (
            {**CPU, "torch": "1.13.1"},
            "no fbgemm and torchrec are known for torch 1.13.1",
            ["pip install torch==2.13.0"],
        ),
    ],
)
def test_a_wrong_pair_is_named_with_the_lines_that_mend_it(
    installed: dict[str, Any], fault: str, lines: list[str]
) -> None:
    versions = Versions(**installed)
    assert faults(versions) == [fault]
    assert pairing_lines(versions) == lines


@pytest.mark.parametrize(("torch", "release"), [("2.10.0", "1.5"), ("2.14.1", "1.9"), ("2.15.0.dev20261101", "1.10")])
def test_the_release_follows_torch(torch: str, release: str) -> None:
    lines = pairing_lines(Versions(torch=torch))
    assert lines[0] == f"pip install 'fbgemm-gpu-cpu=={release}.*'"
    assert lines[-1] == f"pip install --no-deps 'torchrec=={release}.*'"


def test_without_fbgemm_and_torchrec_nothing_is_at_fault() -> None:
    assert faults(Versions(torch="2.13.0")) == []


def test_the_installed_torch_is_read_with_its_build() -> None:
    import torch

    versions = installed_versions()
    assert (versions.torch, versions.cuda) == (torch.__version__, torch.version.cuda)
