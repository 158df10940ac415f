"""Places that are written to: by one run at a time; and local ones past Beam, which takes every path for a glob."""

import contextlib
import errno
import fcntl
import functools
import glob
import os
import pathlib
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, BinaryIO

from preprocessing.errors import InputError


def is_remote(path: str) -> bool:
    return "://" in path


def listed(folder: str) -> list[str]:
    """Paths of what a folder holds, hidden things aside; sorted."""
    from apache_beam.io.filesystems import FileSystems

    if is_remote(folder):
        return sorted(file.path for file in FileSystems.match([FileSystems.join(folder, "*")])[0].metadata_list)
    return sorted(glob.glob(os.path.join(glob.escape(folder), "*")))


def is_file(path: str) -> bool:
    """Whether there is such a file, on any filesystem of Beam's. Raises InputError for one that does not answer."""
    if not is_remote(path):
        return os.path.isfile(path)
    from apache_beam.io.filesystems import FileSystems

    with reading(path):
        return FileSystems.exists(path)


@functools.cache
def local(path: str) -> str:
    """A file itself; of a remote one a copy without a name, which is made once and gone with the process, however that
    ends. Raises InputError."""
    if not is_remote(path):
        return path
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    copy = tempfile.TemporaryFile()  # noqa: SIM115
    with reading(path), FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source:
        shutil.copyfileobj(source, copy)
        copy.flush()
    _COPIES.append(copy)
    return f"/proc/{os.getpid()}/fd/{copy.fileno()}"


_COPIES: list[IO[bytes]] = []


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns what goes wrong in the block into InputError: each filesystem has errors of its own. Says so on standard
    error where a remote one takes long: without a network a cloud's client tries for minutes."""
    said = f"bert: {name}: still reading after {SILENCE} s\n"
    timer = threading.Timer(SILENCE, lambda: sys.stderr.write(said))
    timer.daemon = True
    try:
        if is_remote(name):
            timer.start()
        yield
    except InputError:
        raise
    except Exception as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name}: cannot be read: {cause}") from error
    finally:
        timer.cancel()


SILENCE = 10  # seconds


def as_glob(pattern: str) -> str:
    """A local pattern, where the folders at its beginning that exist by that very name are no globs."""
    literal, rest = "", pattern
    while rest:
        head, slash, tail = rest.partition("/")
        if not os.path.exists(literal + head + slash):
            break
        literal, rest = literal + head + slash, tail
    return glob.escape(literal) + rest


def without_glob(path: str) -> tuple[tempfile.TemporaryDirectory | None, str]:
    """(what keeps it there, another path of a local folder, or of files by their prefix): TensorFlow takes the name of
    a checkpoint for a pattern, and finds none where it has one of its signs."""
    if is_remote(path) or not re.search(r"[*?[\]\\]", path):
        return None, path
    holder = tempfile.TemporaryDirectory(prefix="bert-")
    alias = os.path.join(holder.name, "link")
    if os.path.isdir(path):
        os.symlink(os.path.abspath(path), alias)
    for file in () if os.path.isdir(path) else glob.glob(f"{glob.escape(os.path.abspath(path))}*"):
        os.symlink(file, alias + file.removeprefix(os.path.abspath(path)))
    return holder, alias


def delete(path: str) -> None:
    """Removes a file, or a folder with what it holds."""
    from apache_beam.io.filesystems import FileSystems

    if is_remote(path):
        FileSystems.delete([path])
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


@contextlib.contextmanager
def alone(lock: str, output: str, leftovers: str = "") -> Iterator[None]:
    """Holds a lock file of a local filesystem while the block runs; a killed process holds none any more, and the
    folders that such ones left, a glob, are removed. Raises InputError where another process holds it."""
    try:
        file, held = hold(lock)
    except BlockingIOError as error:
        raise InputError(f"{output}: one run at a time may write there. Received: a second one") from error
    except OSError as error:
        raise unwritable(output, error) from error
    with file:
        try:
            for path in glob.glob(leftovers) if held else ():
                shutil.rmtree(path, ignore_errors=True)
            yield
        finally:
            pathlib.Path(lock).unlink(missing_ok=True)


def hold(lock: str, shared: bool = False) -> tuple[BinaryIO, bool]:
    """The open lock file, and whether it is locked, for this process alone or for all that share it: some filesystems
    have no locks. Raises BlockingIOError where another process has locked it."""
    while True:
        file = open(lock, "ab")  # noqa: SIM115
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:
            return file, False
        with contextlib.suppress(FileNotFoundError):  # who held it before may have removed it since
            if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                return file, True
        file.close()


@contextlib.contextmanager
def unfinished(parent: pathlib.Path, prefix: str) -> Iterator[pathlib.Path]:
    """A new folder in `parent` (made where it is absent) under a name of its own, which is removed if it still has
    that name at the end. Those that killed processes left, by the same prefix, are removed first. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with _held(parent, fcntl.LOCK_EX):  # what is new is held before another process looks for what is left
            for left in parent.glob(f"{glob.escape(prefix)}*"):
                with contextlib.suppress(OSError), _held(left) as alone:
                    if alone:
                        shutil.rmtree(left)
            folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            held.enter_context(_held(folder))
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def _held(folder: pathlib.Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> Iterator[bool]:
    """Holds a folder itself, without a file beside it; False where the filesystem has no locks. Raises BlockingIOError
    where another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, how)
            alone = True
        except BlockingIOError:
            raise
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def write_whole(text: str, path: str | os.PathLike) -> None:
    """Writes a text file under another name and then renames it, so that no half-written file has the name."""
    name = os.fspath(path)
    scratch = f"{name}.{os.getpid()}.tmp"
    try:
        if is_remote(name):
            with gfiles() as gfile:
                with gfile.GFile(scratch, "w") as file:
                    file.write(text)
                gfile.rename(scratch, name, overwrite=True)
            return
        try:
            with open(scratch, "w", encoding="utf-8", newline="") as written:
                written.write(text)
                written.flush()
                os.fsync(written.fileno())  # a name that outlives a loss of power must not be of an empty file
            os.replace(scratch, name)
        finally:
            pathlib.Path(scratch).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(name, error) from error


def unwritable(name: str, error: OSError) -> InputError:
    """What a person is told of a place that cannot be written to."""
    if error.errno == errno.ENOSPC:
        return InputError(f"{name}: no space left on the device; make room")
    return InputError(f"{name}: cannot be written ({error.strerror or error})")


def read(name: str) -> bytes:
    """The content of a file, on any filesystem of TensorFlow's. Raises OSError."""
    if not is_remote(name):
        return pathlib.Path(name).read_bytes()
    with gfiles() as gfile:
        if gfile.isdir(name):
            raise IsADirectoryError(name)
        with gfile.GFile(name, "rb") as file:
            return file.read()


@contextlib.contextmanager
def gfiles():
    """TensorFlow's files, their errors as OSError. Imported where needed: it takes seconds."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
