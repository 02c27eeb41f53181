"""A teacher's folder in the artifact store."""

from pathlib import PurePosixPath

from service.errors import InvalidRequest, Pointer, TeacherInvalid
from service.folder import CODE, CONVERT, PICKLES, Folder, refuse
from service.storage import Storage


class StoredFolder(Folder):
    """A folder in the store. TeacherInvalid where there is none, or it holds pickles or code."""

    def __init__(self, store: Storage, path: str) -> None:
        self._store = store
        try:
            store.url_of(path)
            self._path = str(PurePosixPath(path))
            if not store.is_folder(self._path):
                refuse(f"'{self._path}' is not a folder in the store; {self._fix()}.")
            files = {file.removeprefix(f"{self._path}/") for file in store.files(self._path)}
        except InvalidRequest as error:
            raise TeacherInvalid(error.detail, [Pointer("/source", error.detail)]) from error
        for file in sorted(files):
            if file.lower().endswith(PICKLES):
                refuse(
                    f"{file} is a pickle, which can run code when it is loaded: convert it to safetensors, remove it."
                )
            if file.lower().endswith(CODE):
                refuse(f"{file} is code, which a teacher may not bring: remove it.")
        super().__init__(files, files)

    def _fix(self) -> str:
        if self._path.endswith((*PICKLES, ".safetensors")) and self._store.exists(self._path):
            return f"one file is no pipeline: {CONVERT}"
        return "put the teacher there and give its path"

    def read(self, file: str) -> bytes:
        return self._store.read(f"{self._path}/{file}")

    def header(self, file: str) -> tuple[bytes, int]:
        """The whole file is read, for the digest."""
        with self._store.open(f"{self._path}/{file}") as source:
            return self.read_header(file, source)
