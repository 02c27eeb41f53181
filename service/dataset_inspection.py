"""What a dataset's folder holds: its format is found by looking, its samples are counted, nothing is decoded or run."""

from pathlib import PurePosixPath

from service.captions import captioned_images, metadata_files, prompts
from service.data_names import IMAGES
from service.dataset_folder import DataFolder, Facts, class_names, refuse, some
from service.folder import CODE, PICKLES
from service.saved_datasets import saved_dataset
from service.shards import shards

COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".zip")
COLUMNAR = (".arrow", ".parquet")
TEXTS = (".txt", ".jsonl")
PACK = "Images are found as a folder of them, as WebDataset tars, or as a Hugging Face dataset; prompts as a .txt."


def inspect(folder: DataFolder) -> Facts:
    """Find the format of a folder and count its samples. DataInvalid names the file and the fix.

    Reads names, texts and headers; of tars and Arrow files it walks from header to header.
    """
    tars, images, columnar = folder.of(".tar"), folder.of(*IMAGES), folder.of(*COLUMNAR)
    kinds = [kind[0] for kind in (tars, images, columnar) if kind]
    if len(kinds) > 1:
        refuse(
            f"It holds several kinds of data, such as {' and '.join(kinds)}: put one kind into a folder of the store."
        )
    if tars:
        return shards(folder)
    if columnar:
        return saved_dataset(folder)
    if images:
        return _images(folder, images)
    return _prompts(folder)


def _images(folder: DataFolder, images: list[str]) -> Facts:
    metadata = metadata_files(folder)
    if metadata:
        return captioned_images(folder, metadata, images)
    stems = {str(PurePosixPath(image).with_suffix("")) for image in images}
    beside = [text for text in folder.of(".txt") if str(PurePosixPath(text).with_suffix("")) in stems]
    if beside:
        refuse(
            f"{beside[0]} looks like a caption, and captions are not read from a .txt beside an image: write them into "
            "a metadata.jsonl with file_name and text, or pack images and texts as tars."
        )
    parents = {str(PurePosixPath(image).parent) for image in images}
    if len(parents) == 1:
        return Facts("images", "nothing", len(images), folder.size)
    if "." in parents:
        bare = [image for image in images if "/" not in image]
        refuse(f"{some(bare)} lie beside the folders of the classes: put them into one of these, or take them out.")
    classes = class_names({PurePosixPath(parent).name for parent in parents})
    return Facts("images", "classes", len(images), folder.size, classes)


def _prompts(folder: DataFolder) -> Facts:
    packed = folder.of(*COMPRESSED)
    if packed:
        refuse(f"{packed[0]} is compressed: unpack it; tars stay as they are without compression.")
    if metadata_files(folder):
        refuse(f"It has captions and 0 images, whose names would end in {', '.join(IMAGES)}: put them beside it.")
    texts, unsafe = folder.of(*TEXTS), folder.of(*PICKLES, *CODE)
    if not texts and unsafe:
        refuse(f"There are 0 images, but {some(unsafe)}: pickles and code are not opened here. {PACK}")
    if not texts:
        there = f"but {some(list(folder.files))}" if folder.files else "and no other files"
        refuse(f"There are 0 images, {there}. {PACK}")
    return prompts(folder, texts)
