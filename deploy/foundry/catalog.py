"""Fine-tuning from the model catalog, as the portal's button does, and then the same way to an endpoint.

The service trains with its own code and leaves an MLflow model. A second job, of ours, has that model and its
base answer the fixed prompts and writes both as phi3flow serves them; from there `azure deploy` goes on as
after `azure train`.
"""

from collections.abc import Callable
from pathlib import Path

from deploy.azure.steps.assets import ModelAsset
from deploy.azure.steps.job import Job, follow
from deploy.azure.steps.plan import Action, carry_out
from deploy.azure.steps.record import record
from deploy.azure.steps.session import Cloud
from deploy.azure.train import BASE, CARD, SPLITS, fetch_card
from deploy.azure.wheel import build_wheel
from deploy.foundry.catalog_jobs import (
    OUTPUT,
    CatalogTraining,
    card_job,
    output_path,
    staged_for,
    training_job,
)
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import Artifact


def finetune(
    cloud: Cloud,
    asked: CatalogTraining,
    out: Path,
    *,
    plan: bool,
    wheel: Callable[[Path], Path] = build_wheel,
) -> tuple[list[Action], str]:
    """Both jobs, watched to their ends, and `out` as `azure train` leaves it; returns the first job's name.

    Raises BadInput before anything is written, Phi3flowError when Azure or a job fails.
    """
    for name in SPLITS:
        if not (asked.data / name).is_file():
            raise BadInput(f"{asked.data / name}: no such file", f"phi3flow prepare FILE --out {asked.data}")
    with staged_for(asked, wheel) as staged:
        training = training_job(cloud, asked, staged)
        actions = carry_out([training], plan=plan)
        if plan:
            return actions, training.name
        follow(cloud, training.name, lambda: False)
        made = output_path(training, "registered_model")
        tuned = ModelAsset(cloud, OUTPUT, training.identity, made, "mlflow_model", asked.tags)
        card, environment = card_job(cloud, asked, staged, tuned)
        actions += carry_out([tuned, environment, card], plan=False)
        follow(cloud, card.name, lambda: False)
    base = ModelAsset(cloud, BASE, card.identity, output_path(card, "base"), "custom_model", asked.tags)
    actions += carry_out([base], plan=False)
    fetch_card(cloud, card.name, out)
    _record(asked, training, card, base, out)
    return actions, training.name


def _record(asked: CatalogTraining, training: Job, card: Job, base: ModelAsset, out: Path) -> None:
    """As `azure train` does, so that `azure deploy` finds the model, the card and the base."""
    details = {
        "job": card.name,
        "catalog job": training.name,
        "identity": card.identity,
        "tags": asked.tags,
        "compute": asked.profile.compute,
        "base": base.name,
    }
    inputs = [Artifact.of("data", asked.data / split) for split in SPLITS]
    record(out, "train", details, inputs, [Artifact.of("model", out / CARD)])
