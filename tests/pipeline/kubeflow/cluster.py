"""What Kubeflow Pipelines does around a container, without a cluster: the driver, which resolves inputs and asks the
cache, and the launcher, which copies artifacts between the bucket and the container's own folders.

After driver.go, resolve.go, cache.go and launcher_v2.go of Kubeflow Pipelines 2.17.
"""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import uuid

from pipeline.kubeflow.invocation import local_path

ROOT = "s3://bucket/root"


class Cluster:
    """`run(spec)` runs every step of a compiled pipeline whose result is not in the cache; with BERT_RUN_IN, the
    beginning of a command, in a container that sees the folder."""

    def __init__(self, folder: pathlib.Path):
        self.volumes, self.bucket = folder / "pod", folder / "bucket"
        self._run_in = shlex.split(os.environ.get("BERT_RUN_IN", ""))
        self._artifacts: list[dict] = []  # its place + 1 is its id
        self._cache: dict[str, dict] = {}

    def run(self, spec: dict) -> dict[str, str]:
        """Step -> "ran" or "cached", in the order in which they ran."""
        tasks, name = spec["root"]["dag"]["tasks"], f"run-{uuid.uuid4().hex[:8]}"
        done: dict[str, dict] = {}
        states: dict[str, str] = {}
        while len(done) < len(tasks):
            task = next(t for t in tasks if t not in done and set(tasks[t].get("dependentTasks", ())) <= set(done))
            states[task], done[task] = self._task(spec, task, done, f"{ROOT}/{spec['pipelineInfo']['name']}/{name}")
        return states

    def _task(self, spec, name, done, root):
        task, component = spec["root"]["dag"]["tasks"][name], spec["components"][name]
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        given = task.get("inputs", {})
        producers = set()
        parameters, artifacts, ids = {}, {}, {}
        for key, value in given.get("parameters", {}).items():
            if "taskOutputParameter" in value:
                source = value["taskOutputParameter"]
                producers.add(source["producerTask"])
                parameters[key] = done[source["producerTask"]]["parameters"][source["outputParameterKey"]]
            else:
                parameters[key] = value["runtimeValue"]["constant"]
        for key, value in given.get("artifacts", {}).items():
            source = value["taskOutputArtifact"]
            producers.add(source["producerTask"])
            ids[key] = done[source["producerTask"]]["artifacts"][source["outputArtifactKey"]]
            known = self._artifacts[ids[key]]
            as_told = {"name": str(ids[key] + 1), "type": {"instanceSchema": ""}, **known}
            artifacts[key] = {"artifacts": [as_told]}
        assert producers <= set(task.get("dependentTasks", ())), f"{name} would start before its inputs are there"
        cache_key = json.dumps([ids, parameters, container["command"], container["args"]], sort_keys=True)
        if task["cachingOptions"].get("enableCache") and cache_key in self._cache:
            return "cached", self._cache[cache_key]

        task_root = f"{root}/{name}/{uuid.uuid4()}"
        stated = component.get("outputDefinitions", {})
        outputs = {
            key: {"name": key, "uri": f"{task_root}/{key}", "type": value["artifactType"], "metadata": {}}
            for key, value in stated.get("artifacts", {}).items()
        }
        logs = {"uri": f"{task_root}/executor-logs", "type": {"schemaTitle": "system.Artifact"}}
        files = {key: f"{self.volumes}/tmp/kfp/outputs/{key}" for key in stated.get("parameters", {})}
        local_root = local_path(task_root, str(self.volumes))
        told = {
            "inputs": {"parameterValues": parameters, "artifacts": artifacts},
            "outputs": {
                "artifacts": {k: {"artifacts": [v]} for k, v in {**outputs, "executor-logs": logs}.items()},
                "parameters": {key: {"outputFile": file} for key, file in files.items()},
                "outputFile": f"{local_root}/output_metadata.json",
            },
        }
        self._launch(container, told, files)
        found = self._collect(outputs, told["outputs"]["outputFile"])
        found["parameters"] = {key: pathlib.Path(file).read_text() for key, file in files.items()}
        self._cache[cache_key] = found
        return "ran", found

    def _launch(self, container, told, files):
        shutil.rmtree(self.volumes, ignore_errors=True)  # each container has its own
        for found in told["inputs"]["artifacts"].values():
            (artifact,) = found["artifacts"]
            shutil.copytree(self._in_bucket(artifact["uri"]), local_path(artifact["uri"], str(self.volumes)))
        for found in told["outputs"]["artifacts"].values():
            (artifact,) = found["artifacts"]
            os.makedirs(os.path.dirname(local_path(artifact["uri"], str(self.volumes))), exist_ok=True)
        for file in files.values():
            os.makedirs(os.path.dirname(file), exist_ok=True)
        placeholders = {"{{$}}": json.dumps(told)}
        placeholders |= {f"{{{{$.outputs.parameters['{key}'].output_file}}}}": file for key, file in files.items()}
        command = [placeholders.get(part, part) for part in (*container["command"], *container["args"])]
        if not files:
            command += ["--volumes", str(self.volumes)]
        if not self._run_in:
            assert command[0] == "python"
            command[0] = sys.executable
        for path in (self.volumes, *self.volumes.rglob("*")):  # for whoever the container runs as
            path.chmod(0o777)
        variables = [f"{variable['name']}={variable['value']}" for variable in container["env"]]
        command = [*self._run_in, "env", *variables, *command]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"

    def _collect(self, outputs, output_file):
        """Uploads what the step wrote and takes down what it said of it."""
        said = json.loads(pathlib.Path(output_file).read_text())["artifacts"] if outputs else {}
        found = {}
        for key, artifact in outputs.items():
            (given,) = said.get(key, {"artifacts": [{}]})["artifacts"]
            artifact = {**artifact, **({"uri": given["uri"]} if given.get("uri") else {})}
            local = local_path(artifact["uri"], str(self.volumes))
            if os.path.exists(local):
                shutil.copytree(local, self._in_bucket(artifact["uri"]))
            metadata = {"display_name": key, "store_session_info": "{}", **given.get("metadata", {})}
            self._artifacts.append({"uri": artifact["uri"], "metadata": metadata})
            found[key] = len(self._artifacts) - 1
        return {"artifacts": found}

    def _in_bucket(self, uri):
        return self.bucket / uri.removeprefix("s3://")

    def find(self, key: str) -> list[dict]:
        """All artifacts that some step gave under this name, the oldest first: uri, metadata."""
        return [artifact for artifact in self._artifacts if artifact["uri"].rpartition("/")[2] == key]
