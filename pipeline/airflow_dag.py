"""The pipelines on Airflow (3.3 and 2.11): `bert` pretrains, `bert_finetune` fine-tunes what that pushed last, or
another checkpoint; each is compile, a task for each node, report.

Each task is a process of the project's own environment (`python -m pipeline.runs...`), which Airflow's does not know:
this file takes the nodes and what each waits for from `airflow_dag.json` beside it.

A run of `bert` takes `settings`, `corpus` and `span` as parameters; what is left empty, as in a scheduled run, comes
from the variables `bert_settings` and `bert_corpus`, and the span is the day of the run, `20261126`: a backfill makes
those of its days, one after the other with `--max-active-runs 1`, since each goes on from the one before. One of
`bert_finetune` takes `settings`, by default the variable `bert_finetune_settings`, else the embedded rows. The variable
`bert_home` is the folder that keeps everything, `bert_python` the Python, and `bert_webhook` is told of a task that has
failed for good. BERT_SCHEDULE and BERT_FINETUNE_SCHEDULE, where the file is read, say when (`@daily`, and only when
asked).

A task that failed is tried again after a minute (BERT_RETRY_SECONDS) and then later and later, with the Trainer going
on from its newest checkpoint; bad input and a refused model are not, since another try changes nothing. A task that
lost its caller lives on, and the next try waits for its result.
"""

import datetime
import json
import logging
import os
import pathlib
import urllib.request

try:
    from airflow.sdk import DAG, BaseOperator, Param, TaskGroup, Variable
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # 2.11
    from airflow import DAG
    from airflow.exceptions import AirflowException, AirflowFailException
    from airflow.models import BaseOperator, Param, Variable
    from airflow.utils.task_group import TaskGroup
from airflow.providers.standard.hooks.subprocess import SubprocessHook

FILE = pathlib.Path(__file__).resolve()
ROOT = FILE.parents[1]
GRAPHS = json.loads(FILE.with_suffix(".json").read_text())  # DAG: {group: {node: [nodes before it]}}

GPU = ("Trainer", "Evaluator", "ServingCheck")  # of which as many run at once as the pool `gpu` has slots
TIMEOUTS = {"Trainer": datetime.timedelta(days=14)}
TIMEOUT = datetime.timedelta(days=1)
RETRY = datetime.timedelta(seconds=float(os.environ.get("BERT_RETRY_SECONDS", "60")))
HOPELESS, REFUSED = (1, 2, 3), 3  # exit statuses: see pipeline/runs/process.py

SPAN = "{{ params.span or (dag_run.logical_date or dag_run.run_after).strftime('%Y%m%d') }}"
HOME = f"{{{{ var.value.get('bert_home', {str(ROOT / '.bert')!r}) }}}}"
PYTHON = f"{{{{ var.value.get('bert_python', {str(ROOT / '.venv' / 'bin' / 'python')!r}) }}}}"


class Refused(AirflowFailException):
    """The model is not pushed."""


class Step(BaseOperator):
    """A module of `pipeline.runs` as a process, with no shell in between that would read what a parameter says."""

    template_fields = ("command", "environment")
    hook = None

    def __init__(self, *, module, arguments=(), environment=None, **options):
        super().__init__(**options)
        self.command = [PYTHON, "-m", f"pipeline.runs.{module}", "--run-id", "{{ run_id }}", *arguments]
        self.environment = {"BERT_HOME": HOME, **(environment or {})}

    def execute(self, context):
        self.hook = SubprocessHook()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        done = self.hook.run_command(self.command, env=inherited | self.environment, cwd=str(ROOT))
        if done.exit_code in HOPELESS:
            raise (Refused if done.exit_code == REFUSED else AirflowFailException)(done.output)
        if done.exit_code:
            raise AirflowException(f"exit status {done.exit_code}: {done.output}")

    def on_kill(self):
        if self.hook:
            self.hook.send_sigterm()


def tell(context):
    """A task has failed for good: says which, why and what to do, in its log and to the webhook."""
    task, error = context["task_instance"], context.get("exception")
    notice = {
        "dag": task.dag_id,
        "run": context["run_id"],
        "step": task.task_id,
        "error": str(error),
        "log": task.log_url,
        "next": next_after(error),
    }
    logging.getLogger(__name__).error("failed for good: %s", json.dumps(notice))
    webhook = Variable.get("bert_webhook", None)
    if webhook:
        body, kind = json.dumps({"text": f"{task.task_id} of {task.dag_id} failed", **notice}), "application/json"
        request = urllib.request.Request(webhook, body.encode(), {"Content-Type": kind})
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except (OSError, ValueError) as error:
            logging.getLogger(__name__).error("the webhook did not take it: %s", error)


def next_after(error):
    """What a person is to do."""
    if isinstance(error, Refused):
        return "what is served stays; look at the run's report, and at `gate` in the settings"
    return "mend the cause, then clear the task: the run goes on from there"


def made(dag_id, description, schedule, params, environment):
    """A DAG of `GRAPHS`; `environment`: of its first task, which compiles what the others run."""
    with DAG(
        dag_id=dag_id,
        description=description,
        doc_md=__doc__,
        start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
        schedule=schedule or None,
        catchup=False,
        max_active_runs=1,
        params=params,
        default_args={
            "retries": 3,
            "retry_delay": RETRY,
            "retry_exponential_backoff": True,
            "max_retry_delay": datetime.timedelta(hours=1),
            "execution_timeout": TIMEOUT,
            "on_failure_callback": tell,
            "do_xcom_push": False,
        },
        tags=["bert"],
    ) as dag:
        compiled = Step(task_id="compile", module="compile", environment=environment)
        reported = Step(task_id="report", module="report")
        nodes = {}
        for group, members in GRAPHS[dag_id].items():
            with TaskGroup(group):
                for name, before in members.items():
                    timeout = TIMEOUTS.get(name, TIMEOUT)
                    nodes[name] = Step(
                        task_id=name,
                        module="node",
                        arguments=("--node", name, "--wait", str(timeout.total_seconds())),
                        execution_timeout=timeout,
                        pool="gpu" if name in GPU else "default_pool",
                    )
                    nodes[name].set_upstream([nodes[earlier] for earlier in before] or [compiled])
        reported.set_upstream([node for node in nodes.values() if not node.downstream_list])
    return dag


pretraining = made(
    "bert",
    "Text to a trained, evaluated, pushed model",
    os.environ.get("BERT_SCHEDULE", "@daily"),
    {
        "settings": Param("", type="string", description="demo, smoke, base or a JSON file"),
        "corpus": Param("", type="string", description="files or globs, separated by blanks"),
        "span": Param("", type="string", pattern="^[0-9]*$", description="of the data, for {SPAN} in the corpus"),
    },
    {
        "BERT_SETTINGS": "{{ params.settings or var.value.get('bert_settings', '') }}",
        "BERT_CORPUS": "{{ params.corpus or var.value.get('bert_corpus', '') }}",
        "BERT_SPAN": SPAN,
    },
)
finetuning = made(
    "bert_finetune",
    "Rows of a task to a fine-tuned, evaluated, pushed model",
    os.environ.get("BERT_FINETUNE_SCHEDULE"),
    {"settings": Param("", type="string", description="classification or a JSON file")},
    {
        "BERT_SETTINGS": "{{ params.settings or var.value.get('bert_finetune_settings', '') or 'classification' }}",
        "BERT_CORPUS": "",
    },
)
