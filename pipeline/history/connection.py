"""The store of ML Metadata that knows what ran in a home: `metadata.sqlite` there, or a database that is named.

BERT_METADATA           mysql://USER@HOST[:PORT]/DATABASE (MySQL, MariaDB), a database that is there and this home's
                        alone; TLS as `?ca=/ca.pem`. The home notes it in `metadata.url`, for who comes without it
BERT_METADATA_PASSWORD  its password, which stands nowhere else: in no compiled run, and in no log
"""

import contextlib
import os
import pathlib
import re
import socket
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator

from ml_metadata import MetadataStore, errors
from ml_metadata.proto import metadata_store_pb2
from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig

from pipeline.history.homes import StoreError
from preprocessing import storage
from preprocessing.errors import InputError

VARIABLE, PASSWORD = "BERT_METADATA", "BERT_METADATA_PASSWORD"
FILE, NOTE = "metadata.sqlite", "metadata.url"
PATIENCE = 120.0  # seconds for which a database may be away, as one that is started anew is
_LOCKED_SECONDS = 15.0
_REFUSED_SECONDS = 10.0
_KINDS = {"mysql": ("database", "ssl_options", 3306)}
_FORM = "must be mysql://USER@HOST[:PORT]/DATABASE, without a password, which is"
_DAMAGED = re.compile(r"malformed|not a database|disk I/O error")
_LOST = re.compile(r"[Ll]ost connection|gone away")
_FULL = re.compile(r"database or disk is full|No space left on device")
_WAY_OUT = "Put a copy back, or move it away: the versions that were pushed stay, and each step runs anew"


def url(home: pathlib.Path) -> str:
    """Of the home's database; empty for the file. Raises InputError where another one is asked for than it has."""
    note, asked = home / NOTE, os.environ.get(VARIABLE, "")
    known = note.read_text().strip() if note.exists() else ""
    if asked and (home / FILE).exists() and not known:
        raise InputError(
            f"{home}: what ran there is known to {FILE}. Received: {VARIABLE}={_shown(asked)}; move that file away to "
            "begin with a database, where each step runs anew, or unset the variable"
        )
    if asked and known and asked != known:
        raise InputError(
            f"{home}: what ran there is known to {known}. Received: {VARIABLE}={_shown(asked)}; where it is the same "
            f"database by another name, write that into {note}"
        )
    return asked or known


def config(home: pathlib.Path) -> ConnectionConfig:
    """How MLMD is told of the home's store, without the password. Raises InputError for what is no URL of one."""
    made, asked = ConnectionConfig(), url(home)
    if not asked:
        made.sqlite.filename_uri = str(home / FILE)
        made.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        return made
    if asked.startswith("postgres"):
        raise InputError(
            f"{VARIABLE} must be of MySQL or MariaDB: ML Metadata puts no text with a backslash into PostgreSQL, "
            f"and the steps' settings have some. Received: {_shown(asked)}"
        )
    try:
        parts = urllib.parse.urlsplit(asked)
        database, tls, port = _KINDS[parts.scheme]
        given = getattr(made, parts.scheme)
        given.host, given.port = parts.hostname or "", parts.port or port
        given.user = urllib.parse.unquote(parts.username or "")
        setattr(given, database, urllib.parse.unquote(parts.path[1:]))
        given.skip_db_creation = True
        for name, value in urllib.parse.parse_qsl(parts.query, strict_parsing=bool(parts.query)):
            setattr(getattr(given, tls), name, value)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{VARIABLE} {_FORM} {PASSWORD}. Received: {_shown(asked)} ({error})") from None
    if parts.password is not None or not (given.host and given.user and parts.path[1:]):
        raise InputError(f"{VARIABLE} {_FORM} {PASSWORD}. Received: {_shown(asked)}")
    return made


def _shown(asked: str) -> str:
    return re.sub(r"(://[^/@:]*):[^@]*@", r"\1:...@", asked)


def place(of: ConnectionConfig) -> str:
    """A store's name for a person."""
    if of.HasField("sqlite"):
        return of.sqlite.filename_uri
    kind = str(of.WhichOneof("config"))
    given = getattr(of, kind)
    return f"{kind}://{given.user}@{given.host}:{given.port}/{getattr(given, _KINDS[kind][0])}"


def connect(of: ConnectionConfig, patience: float = PATIENCE) -> MetadataStore:
    """Opens a store; the tables are made where there are none. Raises StoreError for one that cannot be reached for so
    many seconds, or is locked or full, InputError for a file that is damaged."""
    whole = ConnectionConfig()
    whole.CopyFrom(of)
    if not whole.HasField("sqlite"):
        getattr(whole, str(whole.WhichOneof("config"))).password = os.environ.get(PASSWORD, "")
    began, wait = time.monotonic(), 0.5
    until = began + patience
    while True:
        try:
            return MetadataStore(whole)
        except RuntimeError as error:
            if _answers(of):  # and refuses: it may just be starting, no longer
                until = min(until, began + _REFUSED_SECONDS)
            if whole.HasField("sqlite") or time.monotonic() + wait > until:
                raise _told(of, error) from error
        time.sleep(wait)
        wait = min(2 * wait, 10.0)


@contextlib.contextmanager
def telling(of: ConnectionConfig) -> Iterator[None]:
    """Says of what MLMD raises in the block which store it is, and what to do."""
    try:
        yield
    except (errors.StatusError, sqlite3.Error) as error:
        raise _told(of, error) from error


def _told(of: ConnectionConfig, error: Exception) -> Exception:
    said = str(error)  # the cause may stand behind a whole query
    cause = said.removeprefix("Error when executing query: ").split(" query:")[0].strip()
    if of.HasField("sqlite") and _DAMAGED.search(said):
        return InputError(f"{place(of)}: must be a whole SQLite database. Received: {cause}. {_WAY_OUT}")
    if _FULL.search(said):
        return StoreError(f"{place(of)}: no space left on the device; make room, or set BERT_HOME")
    if "Concurrent writes aborted" in said or "is locked" in said:
        return StoreError(f"{place(of)}: another process holds it locked. End that one (`fuser` names it), or wait")
    if of.HasField("sqlite"):
        return StoreError(f"{place(of)}: {cause}")
    if _LOST.search(cause):
        rule, way = "its connection must last", "run again, which goes on where it stopped"
    elif _answers(of):
        rule, way = "the database must be there and let this user in", f"look at {PASSWORD}, and at its log"
    else:
        rule, way = "a server must listen there", "start it; the run goes on where it stopped"
    return StoreError(f"{place(of)}: {rule}. Received: {' '.join(cause.split())}. Way out: {way}")


def _answers(of: ConnectionConfig) -> bool:
    """Whether a server listens at the place of a database; MLMD does not tell that from one that refuses."""
    if of.HasField("sqlite"):
        return False
    given = getattr(of, str(of.WhichOneof("config")))
    with contextlib.suppress(OSError):
        socket.create_connection((given.host, int(given.port)), timeout=5).close()
        return True
    return False


def begin(home: pathlib.Path) -> ConnectionConfig:
    """Before a run, which is alone: the store is whole, it is this home's, and the numbers that it will give are not
    those of folders in `artifacts` that it does not know, as of an older copy or one that is gone."""
    of = config(home)
    with telling(of):
        if of.HasField("sqlite"):
            _check_file(pathlib.Path(of.sqlite.filename_uri))
        store = connect(of)
        if not of.HasField("sqlite"):
            _claim(store, of, home)
            storage.write_whole(url(home) + "\n", home / NOTE)
        _leave_out_numbers(store, home / "artifacts")
    return of


def _check_file(path: pathlib.Path) -> None:
    if not path.exists():
        return
    with contextlib.closing(sqlite3.connect(path, timeout=_LOCKED_SECONDS)) as database:
        database.execute("BEGIN IMMEDIATE")
        (said,), *_ = database.execute("PRAGMA quick_check(1)")
        if said != "ok":
            raise sqlite3.DatabaseError(f"malformed: {said.splitlines()[-1]}")


def _claim(store: MetadataStore, of: ConnectionConfig, home: pathlib.Path) -> None:
    """Two homes in one database would take each other's artifacts from the cache."""
    kind = store.put_context_type(metadata_store_pb2.ContextType(name="bert_home"))
    others = [found.name for found in store.get_contexts_by_type("bert_home") if found.name != str(home)]
    if others:
        raise InputError(f"{place(of)}: a database is one home's, that of {others[0]}. Received: {home}")
    if not store.get_contexts_by_type("bert_home"):
        store.put_contexts([metadata_store_pb2.Context(type_id=kind, name=str(home))])


def _leave_out_numbers(store: MetadataStore, artifacts: pathlib.Path) -> None:
    """What a number's folder holds would be taken for what the next execution of that number has written, and a version
    that came from there for the next one's."""
    numbers = [int(path.name) for path in artifacts.glob("*/*/*/") if path.name.isdecimal()]
    newest = store.get_executions(_newest())
    missing = max(numbers, default=0) - max((execution.id for execution in newest), default=0)
    if missing > 0:
        kind = store.put_execution_type(metadata_store_pb2.ExecutionType(name="bert_unknown"))
        state = metadata_store_pb2.Execution.CANCELED
        gone = metadata_store_pb2.Execution(type_id=kind, last_known_state=state)
        store.put_executions([gone] * missing)


def _newest():
    from ml_metadata import ListOptions, OrderByField

    return ListOptions(limit=1, order_by=OrderByField.ID, is_asc=False)
