"""The Python API: an open index finds look-alikes, classifies and embeds images of every kind."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lookalike
from indexer.embedder import ClassScore
from indexer.errors import NoProbeError, UnknownLabelError
from indexer.learned.probe_fitting import make_probe
from indexer.opening import OpenIndex, open_classifier, open_index
from indexer.search.searcher import Match
from indexer.storage.index import Index
from indexer.storage.manifest import PROBE, IndexDirectoryError, read_manifest
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.remove import remove
from tests.conftest import COLOURS, coloured
from tests.indexer.search.structures import set_kind
from training.devices import Precision
from training.errors import UserError
from training.network.model import ModelCard, ModelError, read_card

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")


@pytest.fixture(scope="module")
def opened(tiny_index: Path) -> OpenIndex:
    return open_index(tiny_index)


@pytest.fixture(scope="module")
def index_with_probe(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = Path(shutil.copytree(tiny_index, tmp_path_factory.mktemp("probe") / "index"))
    make_probe(directory)
    return directory


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("queries") / "cat.png"
    coloured("green", 4242).save(file)
    return file


def forms(file: Path) -> list[Any]:
    """One image as a path string, a Path, bytes, a PIL image and an RGB array."""
    with Image.open(file) as image:
        image.load()
    return [str(file), file, file.read_bytes(), image, np.asarray(image)]


def test_the_python_api_of_the_readme_works(
    index_with_probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index").symlink_to(index_with_probe)
    for name, label in (("cat.jpg", "red"), ("dog.jpg", "blue")):
        coloured(label, 31).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    index = lookalike.open_index("index")
    matches = index.similar("cat.jpg", k=6)
    assert len(matches) == 6
    for match in matches:
        assert (type(match.path), match.label, type(match.distance)) == (str, "red", float)
    scores = index.classify("cat.jpg")
    assert {score.name for score in scores} == set(COLOURS)
    assert all(0 <= score.probability <= 1 for score in scores)
    assert [type(score) for score in scores] == [ClassScore] * 3
    names = read_card(index_with_probe / "model").class_names
    assert [names[score.index] for score in scores] == [score.name for score in scores]
    features = index.features(["cat.jpg", "dog.jpg"])
    assert features.shape == (2, 4096)
    assert features.dtype == np.float32


def test_one_image_in_every_form_has_the_same_answers(opened: OpenIndex, cat: Path) -> None:
    images = forms(cat)
    matches = [opened.similar(image) for image in images]
    assert all(others == matches[0] for others in matches)
    assert all(isinstance(match, Match) for match in matches[0])
    scores = [opened.classify(image) for image in images]
    assert all(others == scores[0] for others in scores)
    features = [opened.features(image) for image in images]
    assert all(np.array_equal(others, features[0]) for others in features)
    assert features[0].shape == (1, 4096)


@pytest.mark.parametrize("as_sequence", [list, tuple])
def test_a_list_of_mixed_forms_gives_a_list_with_one_answer_each(
    opened: OpenIndex, cat: Path, as_sequence: type
) -> None:
    images = as_sequence(forms(cat))
    alone = opened.similar(cat, 3)
    answers = opened.similar(images, 3)
    assert len(answers) == len(images)
    for matches in answers:
        assert {match.label for match in matches} == {"green"}
        distances = [match.distance for match in matches]
        # The network rounds differently in a batch.
        assert distances == pytest.approx([match.distance for match in alone], rel=1e-3)
    assert [len(scores) for scores in opened.classify(images, 2)] == [2] * len(images)
    assert opened.features(images).shape == (len(images), 4096)


def test_empty_lists_have_empty_answers(opened: OpenIndex) -> None:
    assert (opened.similar([]), opened.classify([])) == ([], [])
    features = opened.features([])
    assert features.shape == (0, 4096)
    assert features.dtype == np.float32


def test_the_nearest_items_of_a_colour_have_that_colour(opened: OpenIndex, tmp_path: Path) -> None:
    files = []
    for label in ("blue", "green", "red"):
        files.append(tmp_path / f"{label}.png")
        coloured(label, 4242).save(files[-1])
    for file, matches in zip(files, opened.similar(files), strict=True):
        assert {match.label for match in matches} == {file.stem}
        distances = [match.distance for match in matches]
        assert distances == sorted(distances)


def test_a_label_restricts_the_matches(opened: OpenIndex, cat: Path) -> None:
    matches = opened.similar(cat, 20, label="blue", metric="cosine")
    assert [match.label for match in matches] == ["blue"] * 6
    matches = opened.similar(cat, 20, label=["blue", "red"])
    assert sorted(str(match.label) for match in matches) == ["blue"] * 6 + ["red"] * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "taxi"}, "the metric must be one of euclidean, cosine, hamming, got 'taxi'"),
        ({"rerank": 10}, "rerank works with the metric hamming only"),
        ({"metric": "cosine", "flips": 1}, "flips works with the metric hamming only"),
        ({"metric": "hamming", "flips": 5}, "flips must be from 0 to 4, got 5"),
        ({"metric": "hamming"}, "has no codes; make them with: lookalike index encode"),
        ({"label": "pink"}, "no item has the label pink; the labels are: blue, green, red"),
        ({"label": ["red", "pink"]}, "no item has the label pink; the labels are: blue, green"),
        ({"k": 0}, "k must be 1 or more, got 0"),
    ],
)
def test_options_of_a_search_that_cannot_be_met_are_user_errors(
    opened: OpenIndex, cat: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        opened.similar(cat, **options)


@pytest.mark.parametrize("method", ["similar", "classify", "features"])
@pytest.mark.parametrize(
    "image", ["nowhere.png", b"", np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), 7]
)
def test_queries_that_are_not_images_are_user_errors(
    opened: OpenIndex, method: str, image: Any
) -> None:
    for query in (image, [image]):
        with pytest.raises(UserError):
            getattr(opened, method)(query)


def test_classification_by_items_answers_with_the_labels_of_the_items(
    index_with_probe: Path, cat: Path
) -> None:
    opened = open_index(index_with_probe)
    assert opened.classify(cat, 1, by="items")[0].name == "green"
    assert open_classifier(index_with_probe, by="items").classify([cat], 1)[0][0].name == "green"


def test_classification_by_items_needs_a_probe(opened: OpenIndex, cat: Path) -> None:
    assert opened.probe is None
    with pytest.raises(NoProbeError, match="fit one with: lookalike index probe"):
        opened.classify(cat, by="items")
    with pytest.raises(NoProbeError, match="fit one with: lookalike index probe"):
        open_classifier(opened.index.directory, by="items")


def test_options_of_a_classification_that_cannot_be_met_are_user_errors(
    opened: OpenIndex, cat: Path
) -> None:
    unknown: Any = "labels"
    with pytest.raises(UserError, match="`by` must be one of classes, items, got 'labels'"):
        opened.classify(cat, by=unknown)
    with pytest.raises(UserError, match="k must be 1 or more, got -1"):
        opened.classify(cat, -1)


def test_threads_may_ask_for_the_probe_at_the_same_time(index_with_probe: Path, cat: Path) -> None:
    opened = open_index(index_with_probe)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: opened.classify(cat, by="items"), range(8)))
    assert all(scores == answers[0] for scores in answers)


def test_a_damaged_probe_stops_only_those_who_ask_for_it(
    index_with_probe: Path, cat: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(index_with_probe, tmp_path / "index"))
    (directory / read_manifest(directory).artefacts[PROBE].file).write_bytes(b"damaged")
    opened = open_index(directory)
    assert len(opened.similar(cat)) == 6
    assert len(opened.classify(cat)) == 3
    with pytest.raises(IndexDirectoryError, match="to fit it again, run: lookalike index probe"):
        opened.classify(cat, by="items")


def test_a_model_that_is_not_the_indexs_is_refused_with_both_ids(
    tiny_index: Path, tiny_model: Path, other_model: Path
) -> None:
    ids = [
        json.loads((model / "model.json").read_text())["id"][:12]
        for model in (tiny_model, other_model)
    ]
    with pytest.raises(IndexDirectoryError) as refusal:
        open_index(tiny_index, other_model)
    assert all(id in str(refusal.value) for id in ids)
    open_index(tiny_index, tiny_model)


def test_an_index_with_a_copy_of_another_model_is_refused(
    tiny_index: Path, other_model: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    shutil.copytree(other_model, directory / "model", dirs_exist_ok=True)
    for open_directory in (open_index, open_classifier):
        with pytest.raises(IndexDirectoryError, match="was built with model"):
            open_directory(directory)


def test_the_card_of_the_model_is_read_once(
    tiny_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def count(directory: Path) -> ModelCard:
        reads.append(directory)
        return read_card(directory)

    for module in ("indexer.opening", "indexer.embedder"):
        monkeypatch.setattr(f"{module}.read_card", count)
    open_index(tiny_index)
    assert reads == [tiny_index / "model"]
    open_classifier(tiny_index)
    assert reads == [tiny_index / "model"] * 2


def test_a_classifier_opens_a_model_or_an_index(
    tiny_index: Path, tiny_model: Path, cat: Path
) -> None:
    by_model = open_classifier(tiny_model).classify([cat])
    assert by_model == open_classifier(tiny_index).classify([cat])
    assert by_model == [open_index(tiny_index).classify(cat)]


def test_what_is_neither_a_model_nor_an_index_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(IndexDirectoryError, match="lookalike index build"):
        open_index(tmp_path)
    with pytest.raises(ModelError, match=r"has no model\.json"):
        open_classifier(tmp_path)
    with pytest.raises(IndexDirectoryError, match="is not an index; pass an index, or leave out"):
        open_classifier(tiny_model, by="items")


def test_a_structure_that_is_replaced_while_an_index_opens_is_read_from_the_next_commit(
    own_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_kind(own_index, "ivf-sq8")
    earlier = Index.open(own_index)
    compact(own_index, kind="ivf-fp16")
    set_kind(own_index, None)  # the next writer removes the files that the last one replaced
    assert not (own_index / earlier.manifest.artefacts["euclidean"].file).exists()
    indexes = iter([earlier, Index.open(own_index)])
    monkeypatch.setattr("indexer.opening.Index.open", lambda _: next(indexes))
    assert open_index(own_index).index.manifest.kind == "ivf-fp16"


def test_an_index_with_a_damaged_structure_is_refused(own_index: Path) -> None:
    set_kind(own_index, "ivf-sq8")
    file = own_index / read_manifest(own_index).artefacts["cosine"].file
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(IndexDirectoryError, match=rf"{file.name} should hold .*index verify"):
        open_index(own_index)


def test_a_reopened_index_has_the_newest_commit_and_the_same_network(own_index: Path) -> None:
    opened = open_index(own_index)
    remove(own_index, ids=[1])
    reopened = opened.reopened()
    assert (opened.index.count(), reopened.index.count()) == (18, 17)
    assert reopened.embedder is opened.embedder
    assert reopened.searcher.index is reopened.index
    remove(own_index, ids=[2])
    assert reopened.reopened().index.count() == 16
    assert opened.index.item(1) is not None


def test_a_reopened_index_has_the_network_of_an_index_in_its_place(
    own_index: Path, tiny_model: Path, other_model: Path, own_colour_folder: Path, tmp_path: Path
) -> None:
    own, given = open_index(own_index), open_index(own_index, tiny_model)
    assert own.model_directory == own_index / "model"
    assert given.model_directory == tiny_model
    build(str(own_colour_folder), other_model, tmp_path / "other", device="cpu")
    own_index.rename(tmp_path / "old")
    (tmp_path / "other").rename(own_index)
    image = own_colour_folder / "red" / "0.png"
    reopened = own.reopened()
    assert reopened.embedder.card.id == read_card(other_model).id
    (match,) = reopened.similar(image, k=1)
    assert match.distance == pytest.approx(0, abs=1e-2)
    with pytest.raises(IndexDirectoryError, match="pass the --model that it was built with"):
        given.reopened()


def test_an_index_that_is_damaged_or_gone_cannot_be_reopened(own_index: Path) -> None:
    opened = open_index(own_index)
    (own_index / read_manifest(own_index).files["features"].file).write_bytes(b"")
    with pytest.raises(IndexDirectoryError, match="should hold"):
        opened.reopened()
    shutil.rmtree(own_index)
    with pytest.raises(IndexDirectoryError, match="does not exist"):
        opened.reopened()


def test_an_index_with_many_labels_names_ten_of_them() -> None:
    error = UnknownLabelError("purple", [f"label {number}" for number in range(12)])
    assert "label 9 and 2 more" in str(error)
    assert "label 10" not in str(error)


@pytest.fixture(scope="module")
def int8_index(
    int8_model: Path, colour_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An index with features in float32, and a model that has a network in int8."""
    directory = tmp_path_factory.mktemp("int8") / "index"
    build(str(colour_folder), int8_model, directory, device="cpu")
    return directory


def test_queries_have_the_precision_that_is_asked_for(int8_index: Path, cat: Path) -> None:
    in_float32, in_int8 = (lookalike.open_index(int8_index, precision=one) for one in PRECISIONS)
    assert (in_float32.embedder.precision, in_int8.embedder.precision) == PRECISIONS
    assert not np.array_equal(in_float32.features(cat), in_int8.features(cat))
    assert in_int8.reopened().embedder is in_int8.embedder
    for directory in (int8_index, int8_index / "model"):
        for precision in PRECISIONS:
            classifier = open_classifier(directory, precision=precision)
            assert classifier.embedder.precision == precision


def test_new_items_have_the_precision_of_the_index_whatever_the_queries_have(
    int8_index: Path,
) -> None:
    for precision in PRECISIONS:
        opened = open_index(int8_index, precision=precision)
        assert opened.item_embedder.precision == "float32"
        assert (opened.item_embedder is opened.embedder) == (precision == "float32")
        assert opened.reopened().item_embedder is opened.item_embedder


def test_an_index_whose_model_has_no_int8_refuses_it(tiny_index: Path) -> None:
    assert open_index(tiny_index).embedder.precision == "float32"
    with pytest.raises(ModelError, match=r"model has no model\.int8\.onnx"):
        open_index(tiny_index, precision="int8")
