"""Runs of the pipeline in seconds: forked, each into a process group of its own, from one process that has imported
what takes long. Reads a line of JSON (home, settings, log), answers with the id of the process, and when that has ended
with its status."""

import json
import os
import sys
import traceback

from pipeline import local_runner
from pipeline.runs import lean


def main() -> None:
    lean.without_all_components()
    import tensorflow  # noqa: F401
    import tensorflow_model_analysis  # noqa: F401
    import tensorflow_text  # noqa: F401

    from pipeline import trainer  # noqa: F401
    from pipeline.graphs import pretraining  # noqa: F401
    from pipeline.runs import launching, page, runner, summary  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            os.setsid()
            log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for descriptor in (1, 2):
                os.dup2(log, descriptor)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ |= {"BERT_HOME": asked["home"], "BERT_SETTINGS": asked["settings"], **asked["environment"]}
            status = 70
            try:
                local_runner.main()
                status = 0
            except SystemExit as ended:
                status = int(ended.code or 0)
            except BaseException:  # whose traceback the log shows
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
