"""`phi3flow doctor`: checks of this machine, each with the command that repairs what it finds.

Every check takes facts and returns a verdict; `examine` gathers the facts of this machine. The ranges of
packages are those of phi3flow's own metadata, so they are written down once, in pyproject.toml.
"""

import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phi3flow.core.console import Outcome
from phi3flow.core.retirements import (
    PROMPT_FLOW_DEVELOPMENT_ENDED,
    PROMPT_FLOW_READ_ONLY,
    SERVERLESS_PHI3_ENDED,
)
from phi3flow.core.service_stack import holder_of, is_free
from phi3flow.core.settings import CONFIG_FILE, Settings, config_file

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OK, WARN, FAIL = "ok", "warn", "fail"
CHECKOUT = Path(__file__).parents[3]
IS_CHECKOUT = (CHECKOUT / "Makefile").exists()
DISK_GB, MEMORY_GB = 5.0, 4.0
SOON_DAYS = 90
LEAVE = "phi3flow migrate check RUN; docs/leaving-prompt-flow.md"
WHY = {
    "azure-ai-ml": "1.33 dropped a module that promptflow-azure imports",
    "promptflow": "below 1.18.2 a flow can run code it should not",
    "torch": "the pinned transformers and trl are tested with this one",
    "transformers": "5.6 breaks the exporters to other formats",
}


class Check(NamedTuple):
    """One finding: `status` is ok, warn (something may not work) or fail (it will not); `fix` a command."""

    name: str
    status: str
    sentence: str
    fix: str = ""

    def __str__(self) -> str:
        fix = f"\n{'':18}fix: {self.fix}" if self.fix else ""
        return f"{self.status:4}  {self.name:10}  {self.sentence}{fix}"


class Device(NamedTuple):
    """What torch computes on; `driver` says whether an NVIDIA driver is installed."""

    torch: str
    name: str
    gpu: bool
    bf16: bool
    driver: bool


def doctor() -> Outcome:
    """Check this machine: versions, ports, keyring, disk, memory, GPU.

    example: phi3flow doctor

    Exit code 1 if something must be repaired.
    """
    checks = examine(Settings.load())
    failed = any(check.status == FAIL for check in checks)
    data = {"checks": [check._asdict() for check in checks]}
    return Outcome(data, "\n".join(map(str, checks)), exit_code=1 if failed else 0)


def examine(settings: Settings) -> list[Check]:
    """Check this machine. Takes a second or two, most of it to import torch."""
    import psutil

    from custom_connections.promptflow_home import has_keyring

    requirements, installed = _packages()
    device = _device() if "torch" in installed else None
    path = config_file()
    return [
        check_python(sys.version_info[:2]),
        Check("settings", OK, f"from {path}" if path else f"defaults: no {CONFIG_FILE} here or above"),
        check_packages(requirements, installed),
        check_siblings(installed),
        check_prompt_flows_end(datetime.now(UTC).date()),
        check_foundry(),
        *(check_device(device) if device else []),
        *check_ports(settings),
        check_keyring(bool(settings.encryption_key), has_keyring()),
        check_room("disk", shutil.disk_usage(_existing(settings.runs)).free / 1e9, DISK_GB),
        check_room("memory", psutil.virtual_memory().available / 1e9, MEMORY_GB),
        check_chromium(shutil.which("chromium")),
    ]


def check_python(version: tuple[int, ...], *, checkout: bool = IS_CHECKOUT) -> Check:
    shown = ".".join(map(str, version))
    if (3, 11) <= version < (3, 13):
        return Check("python", OK, f"Python {shown}")
    fix = "make install PYTHON=python3.11" if checkout else "python3.11 -m pip install phi3flow"
    return Check("python", FAIL, f"Python {shown} is not 3.11 or 3.12", fix)


def install_command(extras: Iterable[str], *, checkout: bool = IS_CHECKOUT) -> str:
    """The command that installs phi3flow's own packages and those of `extras`."""
    if checkout:
        return f"make -C {CHECKOUT} install" if Path.cwd() != CHECKOUT else "make install"
    names = ",".join(sorted(extras))
    return f"pip install 'phi3flow[{names}]'" if names else "pip install phi3flow"


def check_packages(
    requirements: Iterable[str], installed: Mapping[str, str], *, checkout: bool = IS_CHECKOUT
) -> Check:
    """Compare the installed versions with `requirements`, lines of package metadata.

    Packages of an extra may be missing; those of `dev` are not even mentioned, no verb needs them.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wrong: set[str] = set()
    repair: set[str] = set()
    absent: dict[str, set[str]] = defaultdict(set)
    for requirement in map(Requirement, requirements):
        name, extra = canonicalize_name(requirement.name), _extra(requirement)
        version = installed.get(name)
        if version is None and not extra:
            wrong.add(f"{name} is missing")
        elif version is None:
            absent[extra].add(name)
        elif not requirement.specifier.contains(version, prereleases=True):
            why = f" ({WHY[name]})" if name in WHY else ""
            wrong.add(f"{name} {version} is not {requirement.specifier}{why}")
            repair |= {extra} - {""}
    absent.pop("dev", None)
    if wrong:
        return Check("packages", FAIL, "; ".join(sorted(wrong)), install_command(repair, checkout=checkout))
    if absent:
        listed = "; ".join(f"{extra} ({', '.join(sorted(absent[extra]))})" for extra in sorted(absent))
        fix = install_command(absent, checkout=checkout)
        return Check("packages", WARN, f"not installed, for some verbs: {listed}", fix)
    return Check("packages", OK, "every package is in the tested range")


def _extra(requirement: "Requirement") -> str:
    """The extra that a requirement belongs to, or an empty string."""
    found = re.search(r"""extra == ["']([\w-]+)["']""", str(requirement.marker or ""))
    return found[1] if found else ""


def check_siblings(installed: Mapping[str, str], *, checkout: bool = IS_CHECKOUT) -> Check:
    """Prompt flow comes in packages that are released together and fail in odd ways when mixed."""
    names = [f"promptflow{part}" for part in ("", "-core", "-devkit", "-tracing", "-azure")]
    versions = {name: installed[name] for name in names if name in installed}
    if len(set(versions.values())) == 1:
        return Check("promptflow", OK, f"promptflow {versions[names[0]]} and its siblings match")
    shown = ", ".join(f"{name} {version}" for name, version in versions.items()) or "promptflow is missing"
    fix = install_command({"azure"} if "promptflow-azure" in versions else (), checkout=checkout)
    return Check("promptflow", FAIL, shown, fix)


def check_prompt_flows_end(today: date) -> Check:
    """Microsoft's dates. Flows on this machine need no service and go on after them."""
    days = (PROMPT_FLOW_READ_ONLY - today).days
    ended = f"Prompt flow's development ended on {PROMPT_FLOW_DEVELOPMENT_ENDED}"
    if days > 0:
        sentence = f"{ended}; in Azure it is read-only from {PROMPT_FLOW_READ_ONLY}, in {days} days"
        return Check("cloud", OK if days > SOON_DAYS else WARN, sentence, "" if days > SOON_DAYS else LEAVE)
    sentence = f"{ended}; in Azure it is read-only since {PROMPT_FLOW_READ_ONLY}: flows run here alone"
    return Check("cloud", WARN, sentence, LEAVE)


def check_foundry() -> Check:
    """What else Microsoft has replaced; nothing of it has to be repaired here."""
    classic = "hubs and Prompt flow belong to Foundry (classic)"
    return Check("foundry", OK, f"{classic}; Phi-3's serverless endpoints ended on {SERVERLESS_PHI3_ENDED}")


def check_device(device: Device) -> list[Check]:
    torch = Check("torch", OK, f"torch {device.torch} on {device.name}")
    if device.driver and not device.gpu:
        sentence = f"an NVIDIA driver is installed, but torch {device.torch} does not use it"
        torch = Check("torch", WARN, sentence, "pip install --force-reinstall 'torch==2.13.*'")
    bf16 = Check("bf16", OK, "trains in bf16" if device.bf16 else "trains in fp32: no bf16 here")
    if device.gpu and not device.bf16:
        bf16 = Check("bf16", WARN, f"{device.name} has no bf16", 'set precision = "fp32" in the recipe')
    return [torch, bf16]


def check_ports(settings: Settings) -> list[Check]:
    checks = []
    for name in (name for name in Settings.public() if name.endswith("_port")):
        port, use = getattr(settings, name), Settings.model_fields[name].description
        if is_free(port):
            checks.append(Check(f"port {port}", OK, f"free ({use})"))
        else:
            way_out = f"stop it, or export PHI3FLOW_{name.upper()}=PORT"
            checks.append(Check(f"port {port}", WARN, f"taken by {holder_of(port)} ({use})", way_out))
    return checks


def check_keyring(has_key: bool, has_keyring: bool) -> Check:
    if has_key:
        return Check("keyring", OK, "PF_ENCRYPTION_KEY encrypts stored connections")
    if has_keyring:
        return Check("keyring", OK, "this machine's keyring encrypts stored connections")
    return Check("keyring", WARN, "no keyring: connections cannot be stored", 'eval "$(phi3flow env)"')


def check_room(what: str, free_gb: float, wanted_gb: float) -> Check:
    enough = free_gb >= wanted_gb
    sentence = f"{free_gb:.1f} GB free" + ("" if enough else f", less than {wanted_gb:.0f}")
    return Check(what, OK if enough else WARN, sentence, "" if enough else f"free some {what}")


def check_chromium(path: str | None) -> Check:
    if path:
        return Check("chromium", OK, f"browser tests use {path}")
    return Check("chromium", WARN, "Chromium is missing, for browser tests only", "apt-get install chromium")


def _packages() -> tuple[list[str], dict[str, str]]:
    """What phi3flow's metadata asks for, itself excluded, and every installed version by normalised name."""
    from importlib.metadata import distributions, requires

    from packaging.utils import canonicalize_name

    asked = [text for text in requires("phi3flow") or [] if not text.startswith("phi3flow[")]
    return asked, {canonicalize_name(found.metadata["Name"]): found.version for found in distributions()}


def _device() -> Device:
    import torch

    from training.recipes.training_arguments import has_bf16, has_gpu

    gpu = has_gpu()
    name = torch.cuda.get_device_name() if gpu else "the CPU"
    return Device(torch.__version__, name, gpu, has_bf16(), shutil.which("nvidia-smi") is not None)


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    return next(parent for parent in [folder, *folder.parents] if parent.exists())
