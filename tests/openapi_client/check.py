"""Uses a client that was generated from docs/openapi.json: imports an adapter, classifies with labels of any kind, asks for a job.

usage: check.py SERVER ADAPTER_FOLDER PICTURE_FOLDER
"""
import base64
import io
import json
import pathlib
import sys

from lora_recycle_client import Client
from lora_recycle_client.api.adapters import get_adapter, import_adapter
from lora_recycle_client.api.classification import classify_images
from lora_recycle_client.api.jobs import get_job, list_jobs, start_evaluation, start_inversion
from lora_recycle_client.models import (
    ClassifyForm, ClassifyRequest, ClassPictures, EvaluateForm, EvaluationRecipe, ImportForm, InversionRecipeRequest,
    InversionRecipeRequestPreset, InvertRequest,
)
from lora_recycle_client.types import File

# What a name of a part or an address could not carry.
LABELS = ["cat / big", "dog 🐶, \"small\""]


def file(path):
    return File(payload=io.BytesIO(path.read_bytes()), file_name=path.name)


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


def main():
    server, adapter, pictures = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    client = Client(base_url=server, raise_on_unexpected_status=True)
    first, second = pictures / "fish" / "goldfish.jpg", pictures / "mammal" / "dog.jpg"

    imported = import_adapter.sync_detailed(client=client, name="pets", body=ImportForm(file=[file(path) for path in sorted(adapter.iterdir())]))
    assert imported.status_code == 201, imported.content
    assert imported.parsed.adapter.label == "pets:1", imported.parsed
    assert get_adapter.sync(client=client, reference="pets").digest == imported.parsed.adapter.digest

    form = ClassifyForm(support=[file(first), file(second)], label=LABELS, query=[file(second)])
    answer = classify_images.sync(client=client, body=form, adapter="pets")
    assert [score.label for score in answer.results[0].scores][0] == LABELS[1], answer
    assert answer.adapter.label == "pets:1", answer

    classes = [ClassPictures(label=label, images=[encoded(path)]) for label, path in zip(LABELS, (first, second))]
    body = ClassifyRequest(classes=classes, queries=[encoded(first)])
    answer = classify_images.sync(client=client, body=body)
    assert answer.results[0].label == LABELS[0], answer

    body = InvertRequest(adapters=["pets"], recipe=InversionRecipeRequest(preset=InversionRecipeRequestPreset.FAST, images_per_class=2, steps=2))
    started = start_inversion.sync(client=client, body=body)
    assert started.jobs[0].kind == "invert", started
    assert get_job.sync(client=client, id=started.jobs[0].id).id == started.jobs[0].id

    recipe = EvaluationRecipe(methods=["adapter", "bare"], way=2, queries=1, tasks=2)
    form = EvaluateForm(adapters=["pets"], recipe=recipe, support=[file(first), file(second)] * 2, label=LABELS * 2)
    started = start_evaluation.sync(client=client, body=form)
    assert started.jobs[0].kind == "evaluate", started
    assert len(list_jobs.sync(client=client).jobs) == 2
    print(json.dumps({"adapter": imported.parsed.adapter.label, "labels": LABELS}, ensure_ascii=False))


main()
