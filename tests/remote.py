"""A filesystem of Beam's that is not this machine's, to tests: `shelf://` and an absolute path."""

from apache_beam.io.localfilesystem import LocalFileSystem

SCHEME = "shelf"


class Shelf(LocalFileSystem):
    @classmethod
    def scheme(cls):
        return SCHEME

    def open(self, path, *arguments, **options):
        return super().open(own(path), *arguments, **options)

    def exists(self, path):
        return super().exists(own(path))

    def match(self, patterns, limits=None):
        found = super().match([own(pattern) for pattern in patterns], limits)
        for metadata in (metadata for result in found for metadata in result.metadata_list):
            metadata.path = f"{SCHEME}:/{metadata.path}"
        return found


def own(path: str) -> str:
    return path.removeprefix(f"{SCHEME}:/")


def shelved(path) -> str:
    return f"{SCHEME}:/{path}"
