"""`minidiff doctor`: looks at the machine and says what to type about what is wrong."""

import importlib.util
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Finding = tuple[bool, str, str]  # all is well, what was found, what to type if not


def python() -> Iterator[Finding]:
    version = platform.python_version()
    yield sys.version_info >= (3, 11), f"Python {version}", "install Python 3.11 or newer, then: make demo"


def libraries() -> Iterator[Finding]:
    for name in ("torch", "torchvision"):
        try:
            yield True, f"{name} {__import__(name).__version__}", ""
        except Exception as error:  # a torchvision built for another torch raises RuntimeError
            why = f"{name} does not import ({str(error).splitlines()[0]})"
            yield False, why, "pip install --force-reinstall torch torchvision"


def device() -> Iterator[Finding]:
    import torch

    from minidiff.device import pick_device

    found, what = pick_device(), f"{torch.get_num_threads()} threads"
    if found.type == "cuda":
        gpu = torch.cuda.get_device_properties(found)
        what = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    yield True, f"device {found.type}: {what}", ""


def memory() -> Iterator[Finding]:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    yield free > 2, f"memory: {free:.1f} GiB free", "close other programs: training wants about 2 GiB"


def notebooks() -> Iterator[Finding]:
    for module, what in (("jupyterlab", "JupyterLab"), ("ipykernel", "notebook kernel"), ("ipywidgets", "widgets")):
        there = importlib.util.find_spec(module) is not None
        yield there, f"{what}: {module} {'is installed' if there else 'is missing'}", 'pip install -e ".[notebooks]"'
    if importlib.util.find_spec("jupyter_client"):
        yield kernel()


def kernel() -> Finding:
    """An older installation may have registered a kernel of that name."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    advice = "python -m ipykernel install --sys-prefix"
    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return False, "kernel python3 is not registered", advice
    if program.startswith("python"):  # a bare name means the Python that starts the notebook server
        program = sys.executable
    here = Path(program).parent == Path(sys.executable).parent
    return here, f"kernel python3 runs {program}{'' if here else ', which is not this environment'}", advice


def assets() -> Iterator[Finding]:
    from minidiff.files import damaged_assets

    damage = damaged_assets()
    yield from [(False, each, "git checkout assets") for each in damage] or [(True, "assets: all whole", "")]


CHECKS: list[Callable[[], Iterator[Finding]]] = [python, libraries, device, memory, notebooks, assets]


def examine() -> int:
    """Print every finding; returns 1 if something is wrong, else 0."""
    ill = 0
    for check in CHECKS:
        try:
            findings = list(check())
        except Exception as error:  # a broken installation breaks in many ways; the others are still looked at
            findings = [(False, f"{check.__name__}: {str(error).splitlines()[0]}", "make demo")]
        for well, found, advice in findings:
            print(f"ok   {found}" if well else f"BAD  {found}\n     type: {advice}")
            ill += not well
    print("all is well" if not ill else f"{ill} thing{'s' if ill > 1 else ''} to mend")
    return int(ill > 0)


@dataclass
class Doctor:
    """What this machine has, and what to type about what is wrong."""

    def run(self) -> None:
        sys.exit(examine())
