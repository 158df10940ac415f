"""The pipeline for Kubeflow Pipelines 2: the file that is uploaded there.

    python -m pipeline.kubeflow_runner --image REGISTRY/bert:TAG --cluster cluster.json --output pipeline.yaml

BERT_SETTINGS and BERT_CORPUS are those of `local_runner`, with paths as the containers see them: in gs://, or on the
claim. Files that the settings of a pretraining name (`init`, `vocabulary.file`, `examples.phrases`) must be here, too,
under the same path. Those of a fine-tuning lie on the claim, and need not be here; without `init` each of its runs
begins with the model that the pipeline `pretrained` has pushed last to the same claim. Of a corpus in spans each run
takes the newest, and from the claim what earlier runs made of the others. `cluster.json` is the
ClusterSettings of `pipeline/kubeflow/settings.py`; `{"claim": "NAME"}` will do.
"""

import os
from typing import Any

import click

from pipeline import terminal

terminal.quiet()  # before TensorFlow is imported

from pipeline.finetuning.settings import FinetuningSettings  # noqa: E402
from pipeline.kubeflow import settings as clusters  # noqa: E402
from pipeline.runs import run  # noqa: E402


@click.command()
@click.option("--image", required=True, help="Container image of this project, best by its digest.")
@click.option("--cluster", "cluster_file", required=True, metavar="FILE", help="What the steps are given, as JSON.")
@click.option("--root", metavar="URI", help="gs://, s3:// or minio:// folder of artifacts; by default the cluster's.")
@click.option("--output", required=True, metavar="FILE", help="The pipeline, to upload; .yaml.")
def command(image: str, cluster_file: str, root: str | None, output: str) -> None:
    """Write the pipeline as Kubeflow Pipelines 2 takes it."""
    terminal.run_command(lambda: compile_pipeline(image, cluster_file, root, output))


def compile_pipeline(image: str, cluster_file: str, root: str | None, output: str) -> None:
    """Raises InputError for settings that do not go together."""
    settings, _ = run.from_environment(os.environ)
    cluster = clusters.load(cluster_file)

    import yaml

    from pipeline.graphs import finetuning, pretraining
    from pipeline.kubeflow import claim, spec
    from preprocessing import storage

    graph: Any = finetuning if isinstance(settings, FinetuningSettings) else pretraining
    pipeline = graph.create_pipeline(
        settings,
        root=root or "",
        metadata=None,  # Kubeflow has its own
        serving=claim.serving(cluster.mount, settings.name),
        work=claim.training(cluster.mount),
        input_fingerprint="",  # found out in each run
    )
    documents = spec.documents(pipeline, settings, cluster, image, root)
    storage.write_whole(yaml.safe_dump_all(documents, sort_keys=True), output)
    click.echo(f"{output}: {len(pipeline.components) + 1} steps; upload it to Kubeflow Pipelines, or `kfp run create`")


if __name__ == "__main__":
    command()
