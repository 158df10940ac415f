import json

import pytest

from pipeline.kubeflow import settings
from preprocessing.errors import InputError


def load(tmp_path, text):
    path = tmp_path / "cluster.json"
    path.write_text(text)
    return settings.load(str(path))


def test_a_claim_will_do(tmp_path):
    assert load(tmp_path, '{"claim": "bert"}') == settings.ClusterSettings(claim="bert")


def test_everything_can_be_said_in_json(tmp_path):
    trainer = {
        "cpu": "16",
        "memory": "120Gi",
        "gpus": 8,
        "shared_memory": "16Gi",
        "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
        "node_labels": {"pool": "gpu"},
    }
    told = {"claim": "c", "secrets": {"aws": {"AWS_REGION": "region"}}, "pull_secrets": ["x"], "steps": {"T": trainer}}
    found = load(tmp_path, json.dumps(told))
    assert found.secrets == {"aws": {"AWS_REGION": "region"}}
    assert found.steps["T"].tolerations == (settings.Toleration("nvidia.com/gpu", effect="NoSchedule"),)
    assert (found.steps["T"].gpus, found.steps["T"].node_labels, found.step) == (8, {"pool": "gpu"}, settings.Step())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "claim must name a PersistentVolumeClaim for models and checkpoints. Received: ''"),
        ('{"claim": "c", "mount": "bert"}', "mount must be an absolute path below /"),
        ('{"claim": "c", "step": {"memory": "4 GB"}}', "memory must be an amount as Kubernetes writes it"),
        ('{"claim": "c", "step": {"gpus": -1}}', "gpus must be 0 or more. Received: -1"),
        ('{"claim": "c", "steps": {"Trainer": {"gpu": 1}}}', "cluster.json.steps.Trainer has no setting 'gpu'"),
        ('{"claim": "c", "steps": {"T": {"tolerations": [{"key": 1}]}}}', r"T.tolerations[0].key must be of type str"),
        ('{"claim": "c", "secrets": {"aws": "region"}}', "secrets.aws must be of type dict[str, str]"),
        ('{"claim": "c", "retry_seconds": 0}', "retry_seconds must be positive"),
        ('{"claim"', "cluster.json:1: not JSON"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, text, message):
    with pytest.raises(InputError) as error:
        load(tmp_path, text)
    assert message in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r'No such file .* are JSON such as \{"claim": "bert"\}'):
        settings.load(str(tmp_path / "cluster.json"))
