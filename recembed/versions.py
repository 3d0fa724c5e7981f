"""Which fbgemm and torchrec fit the installed torch, and the pip lines that bring them together.

fbgemm and torchrec 1.N are built against torch 2.(N+5). ``fbgemm-gpu`` is the build for CUDA, ``fbgemm-gpu-cpu`` the
one for CPU; both fill the same folder, so only one of them may be installed. The CUDA build does not load without
NVIDIA's driver, the CPU build goes with every build of torch, so a CUDA torch on a machine without the driver takes it.
"""

import ctypes
import re
import shlex
from dataclasses import dataclass
from importlib import metadata

__all__ = ["NEWEST_TORCH", "Versions", "faults", "installed_versions", "pairing_lines"]

NEWEST_TORCH = "2.13.0"
"""The torch this release is tested with."""

_LAG = 5
_CUDA_BUILD, _CPU_BUILD = "fbgemm-gpu", "fbgemm-gpu-cpu"
_NEEDS_OF_TORCHREC = "tensordict torchmetrics==1.0.3 pyre-extensions tqdm setuptools"


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What is installed; None where a package is not.

    Attributes:
        torch: Version of torch.
        cuda: CUDA version that torch was built with, None for a CPU build.
        driver: Whether NVIDIA's driver is there.
        fbgemm_gpu: Version of the CUDA build of fbgemm.
        fbgemm_gpu_cpu: Version of its CPU build.
        torchrec: Version of torchrec.
    """

    torch: str | None
    cuda: str | None = None
    driver: bool = True
    fbgemm_gpu: str | None = None
    fbgemm_gpu_cpu: str | None = None
    torchrec: str | None = None

    def __str__(self) -> str:
        """Name every package that is there."""
        build = f"CUDA {self.cuda}{'' if self.driver else ', no NVIDIA driver'}" if self.cuda else "CPU"
        found = {
            "torch": self.torch and f"{self.torch} ({build})",
            _CUDA_BUILD: self.fbgemm_gpu,
            _CPU_BUILD: self.fbgemm_gpu_cpu,
            "torchrec": self.torchrec,
        }
        return ", ".join(f"{name} {version}" for name, version in found.items() if version) or "torch not installed"


def installed_versions() -> Versions:
    """Read the versions of the installed packages; imports torch, but neither fbgemm nor torchrec."""
    torch_version, cuda = None, None
    try:
        import torch

        torch_version, cuda = str(torch.__version__), torch.version.cuda
    except ImportError:
        pass
    return Versions(
        torch=torch_version,
        cuda=cuda,
        driver=_has_driver(),
        fbgemm_gpu=_installed(_CUDA_BUILD),
        fbgemm_gpu_cpu=_installed(_CPU_BUILD),
        torchrec=_installed("torchrec"),
    )


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")  # what the CUDA build of fbgemm links against
    except OSError:
        return False
    return True


def _release(version: str) -> tuple[int, int]:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _wanted(torch_version: str | None) -> str | None:
    """Return the release of fbgemm and torchrec for a torch: 2.13 needs 1.8."""
    major, minor = _release(torch_version or "")
    return f"1.{minor - _LAG}" if major == 2 and minor >= _LAG else None


def _fits(version: str | None, wanted: str) -> bool:
    return version is not None and _release(version) == _release(wanted)


def faults(versions: Versions) -> list[str]:
    """Say in words what does not fit; an empty list where all does, or where neither package is installed.

    >>> faults(Versions(torch="2.13.0+cpu", fbgemm_gpu_cpu="1.6.0", torchrec="1.8.0"))
    ['fbgemm-gpu-cpu 1.6.0 is built for torch 2.11, not 2.13.0+cpu']
    """
    present = {
        _CUDA_BUILD: versions.fbgemm_gpu,
        _CPU_BUILD: versions.fbgemm_gpu_cpu,
        "torchrec": versions.torchrec,
    }
    if not any(present.values()):
        return []
    wanted = _wanted(versions.torch)
    if wanted is None:
        return [f"no fbgemm and torchrec are known for torch {versions.torch}"]
    found = []
    for package, version in present.items():
        if version and not _fits(version, wanted):
            major, minor = _release(version)
            built_for = f"torch {major + 1}.{minor + _LAG}"
            found.append(f"{package} {version} is built for {built_for}, not {versions.torch}")
    right, wrong = _builds(versions)
    if present[right] and present[wrong]:
        found.append(f"{right} and {wrong} overwrite each other's files")
    elif present[wrong]:
        found.append(f"{wrong} does not go with {_describe(versions)}")
    elif not present[right]:
        found.append(f"torchrec {versions.torchrec} is there without {right}")
    if not versions.torchrec:
        found.append("fbgemm is there without torchrec")
    return found


def _builds(versions: Versions) -> tuple[str, str]:
    """Return the build of fbgemm that goes with this torch here, and the other one."""
    return (_CUDA_BUILD, _CPU_BUILD) if versions.cuda and versions.driver else (_CPU_BUILD, _CUDA_BUILD)


def _describe(versions: Versions) -> str:
    if not versions.cuda:
        return "a CPU build of torch"
    return "a CUDA build of torch" if versions.driver else "a machine without NVIDIA's driver"


def pairing_lines(versions: Versions) -> list[str]:
    """Return the pip lines after which fbgemm and torchrec fit this torch, none where they do.

    torchrec is installed without its dependencies: it names the CUDA build of fbgemm, whichever is wanted.

    >>> pairing_lines(Versions(torch="2.13.0+cpu", fbgemm_gpu_cpu="1.6.0", torchrec="1.8.0"))
    ["pip install 'fbgemm-gpu-cpu==1.8.*'"]
    """
    wanted = _wanted(versions.torch)
    if wanted is None:
        return [f"pip install {shlex.quote(f'torch=={NEWEST_TORCH}')}"]
    right, wrong = _builds(versions)
    present = {_CUDA_BUILD: versions.fbgemm_gpu, _CPU_BUILD: versions.fbgemm_gpu_cpu}
    lines = []
    if present[wrong]:
        both = [package for package in (wrong, right) if present[package]]
        lines.append(f"pip uninstall --yes {' '.join(both)}")
    if present[wrong] or not _fits(present[right], wanted):
        lines.append(f"pip install '{right}=={wanted}.*'")
    if not _fits(versions.torchrec, wanted):
        lines.append(f"pip install {_NEEDS_OF_TORCHREC}")
        lines.append(f"pip install --no-deps 'torchrec=={wanted}.*'")
    return lines
