"""A home as runs leave it, without running anything: MLMD, artifacts' folders, records and pushed versions."""

import datetime
import json
import pathlib

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.components.pushed import push
from pipeline.history import pushed

State = mlmd.Execution.State
SETTINGS = {
    "CorpusGen": {"corpus": {"input": ["/data/*.txt"]}, "eval_share": 0.1},
    "VocabularyGen": {"vocabulary": {"file": None, "size": 8}},
    "MaskedExamplesGen": {"examples": {"max_seq_length": 64}},
}
# node: {output key: input keys and the node that gives them}
NODES = {
    "CorpusGen": (("documents",), {}),
    "VocabularyGen": (("vocabulary_artifact",), {"documents": "CorpusGen"}),
    "MaskedExamplesGen": (("examples",), {"documents": "CorpusGen", "vocabulary_artifact": "VocabularyGen"}),
    "Trainer": (("model", "model_run"), {"examples": "MaskedExamplesGen"}),
    "Baseline": (("baseline",), {"candidate": "Trainer"}),
    "Evaluator": (("evaluation", "blessing"), {"model": "Trainer", "baseline_model": "Baseline"}),
    "Pusher": (("pushed_model",), {"model": "Trainer"}),
}


class SmallHome:
    """`run()` adds a run of NODES; gives the version that it pushed."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps({"name": "bert"}))
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = str(folder / "metadata.sqlite")
        config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = MetadataStore(config)
        self.serving = str(folder / "serving" / "bert")
        self.latest: dict[str, list] = {}  # artifacts of a node's newest execution
        self.count = self.made = 0  # runs, executions
        self._types = {}

    def _type(self, kind, name):
        if (kind, name) not in self._types:
            message = getattr(mlmd, f"{kind}Type")(name=name)
            self._types[kind, name] = getattr(self.store, f"put_{kind.lower()}_type")(message)
        return self._types[kind, name]

    def _context(self, kind, name):
        return mlmd.Context(type_id=self._type("Context", kind), name=name)

    def run(
        self, *, name=None, begins_with="CorpusGen", kept=True, blessed=True, stops_at=None, state="failed", **custom
    ):
        """A run whose nodes before `begins_with` come from the cache, and which ends at `stops_at` with `state`.

        `custom`: more settings of the training. `kept`: whether it leaves the records that runs leave now.
        """
        self.count += 1
        name = name or f"2026-01-{self.count:02d}T00:00:00-run"
        run = self._context("pipeline_run", name)
        nodes, cached, version = [], True, None
        for node in NODES:
            cached &= node != begins_with
            status = (
                State.FAILED if node == stops_at and state == "failed" else State.CACHED if cached else State.COMPLETE
            )
            status = State.RUNNING if node == stops_at and state == "running" else status
            execution = self._execute(node, run, status, custom)
            said = {State.FAILED: "failed", State.CACHED: "cached", State.RUNNING: "running"}.get(status, "ran")
            nodes.append({"node": node, "state": said, "seconds": 1.5})
            if node == stops_at:
                break
            if not cached:
                self._fill(node, execution, blessed, custom)
            if node == "Pusher" and blessed:
                version = push(self.uri("Trainer", 0) + "/Format-Serving", self.serving)
        if kept:
            self._keep(name, nodes, version, blessed, "done" if stops_at is None else state, custom)
        return version and pathlib.Path(version).name

    def uri(self, node, which=0):
        return self.latest[node][which].uri

    def _execute(self, node, run, status, custom):
        outputs, inputs = NODES[node]
        execution = mlmd.Execution(type_id=self._type("Execution", f"x.{node}"), last_known_state=status)
        given = execution.custom_properties
        if node in SETTINGS:
            given["settings"].string_value = json.dumps(SETTINGS[node])
            given["code"].string_value = f"code of {node}"
        if node == "Trainer":
            training = {"encoder": {"num_layers": 2, "hidden_size": 32}, "init": None}
            training |= {"training": {"steps": 20, "batch_size": 16, "learning_rate": 1e-3}} | custom
            config = {"settings": json.dumps(training), "fingerprint": "f00d"}
            given["custom_config"].string_value = json.dumps(config)
        self.made += 1
        links = [(self.latest[source][0], key, mlmd.Event.INPUT) for key, source in inputs.items()]
        if status == State.COMPLETE:
            self.latest[node] = []
            for key in outputs:
                uri = self.folder / "artifacts" / node / key / str(self.made)
                uri.mkdir(parents=True)
                kind = self._type("Artifact", f"T{key}")
                self.latest[node].append(mlmd.Artifact(type_id=kind, uri=str(uri), state=mlmd.Artifact.LIVE))
        if status in (State.COMPLETE, State.CACHED):
            links += [
                (artifact, key, mlmd.Event.OUTPUT) for artifact, key in zip(self.latest[node], outputs, strict=True)
            ]
        pairs = []
        for artifact, key, kind in links:
            event = mlmd.Event(type=kind)
            event.path.steps.add(key=key)
            pairs.append((artifact, event))
        contexts = [run, self._context("node", f"bert.{node}")]
        number, ids, _ = self.store.put_execution(execution, pairs, contexts, reuse_context_if_already_exist=True)
        assert number == self.made
        for artifact, given_id in zip((artifact for artifact, *_ in links), ids, strict=True):
            artifact.id = given_id
        return number

    def _note(self, node, which, **properties):
        artifact = self.latest[node][which]
        for name, value in properties.items():
            kind = "int_value" if isinstance(value, int) else "string_value"
            setattr(artifact.custom_properties[name], kind, value)
        self.store.put_artifacts([artifact])

    def _fill(self, node, execution, blessed, custom):
        """What a node writes."""
        folder = pathlib.Path(self.uri(node))
        if node == "CorpusGen":
            (folder / "report.json").write_text(json.dumps({"documents_train": 9, "documents_eval": 1}))
            (folder / "inputs.jsonl").write_text(
                json.dumps({"file": "/data/a.txt", "bytes": 3, "sha256": "ab" * 32}) + "\n"
            )
        elif node == "VocabularyGen":
            (folder / "vocab.txt").write_text("a\n")
            (folder / "report.json").write_text(json.dumps({"size": 8, "unknown_share": 0.0125}))
        elif node == "MaskedExamplesGen":
            (folder / "report.json").write_text(json.dumps({"examples": 1234, "tokens": 56789}))
        elif node == "Trainer":
            model = folder / "Format-Serving"
            model.mkdir()
            for file in ("saved_model.pb", "fingerprint.pb"):
                (model / file).write_text(f"{execution} {custom}")
            (pathlib.Path(self.uri(node, 1)) / "model").mkdir()
        elif node == "Baseline":
            versions = pushed.versions(self.serving)
            self._note(node, 0, baseline=versions[max(versions)] if versions else "none")
        elif node == "Evaluator":
            self._note(node, 1, blessed=int(blessed))
        elif node == "Pusher" and blessed:
            self._note(node, 0, pushed_version="4711")

    def _keep(self, name, nodes, version, blessed, state, custom):
        began = datetime.datetime(2026, 1, self.count, tzinfo=datetime.timezone.utc)
        header = {"run": name, "pipeline": "bert", "state": state}
        run = header | {"started": began.isoformat(), "nodes": nodes, "settings": {"gate": {"min_loss_gain": 0.5}}}
        run["settings"]["recipe"] = "short"
        run["code"] = {"commit": "c0ffee" * 6, "changed": False}
        if state == "failed":
            run["error"] = header["error"] = "a.txt:3: broken"
        report = header
        if state == "done":
            metrics = {"masked_lm_loss": 5.5, "unigram_loss": 6.0, "masked_lm_accuracy": 0.25}
            report = header | {
                "blessed": blessed,
                "pushed_to": version,
                "model": self.uri("Trainer"),
                "metrics": metrics,
            }
            report |= {"refusals": [], "rolled_back": False}
        for folder in (self.folder / "reports", self.folder / "reports" / "runs" / name):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "run.json").write_text(json.dumps(run))
            (folder / "report.json").write_text(json.dumps(report))
