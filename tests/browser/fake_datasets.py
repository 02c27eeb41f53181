"""The dataset that the fake API knows."""

from fake_data import ago

from api.schemas import DatasetView

DATASET = DatasetView(
    id="dat_pets",
    name="pets",
    source="data/pets",
    format="images",
    content="classes",
    samples=25_000,
    bytes=812_345_678,
    classes=["cat", "dog"],
    created_at=ago(hours=5),
)
