"""`python -m deploy.azure.job_gpu`: in the first minute of a job on GPU machines, which cost by the hour.

A torch whose CUDA is newer than the machine's driver sees no GPU, and would train for days on the CPU.
"""

import shutil
import subprocess


def main() -> None:
    import torch

    if torch.cuda.is_available():
        print(f"GPU: {torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
        return
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
    raise SystemExit(
        f"torch {torch.__version__}, built for {built}, sees no GPU here ({driver()}). It would train for "
        "days: choose a torch for the driver in deploy/azure/container/environment-train.yaml, or use "
        "--profile cpu"
    )


def driver() -> str:
    """Driver and card as nvidia-smi tells them."""
    command = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return "no NVIDIA driver"
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return "driver " + (ran.stdout or ran.stderr).strip().replace("\n", "; ")


if __name__ == "__main__":
    main()
