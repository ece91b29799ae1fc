import json
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage
from skimage import data

from pulse_exp import align, faces, photos, pipeline
from pulse_exp.alignment import crop_quad, quad_from_landmarks, quad_side
from pulse_exp.building import build_dataset
from pulse_exp.complaints import complaints
from pulse_exp.errors import UserError
from pulse_exp.face_remarks import asymmetry, sharpness
from pulse_exp.generators import load
from pulse_exp.overview import overview
from pulse_exp.photo_files import Photo, read_photo
from pulse_exp.photos import aligned, faces_in_photo, find_faces
from pulse_exp.records import RecordFile
from tests.compose import SMALL, job
from tests.portraits import portrait

pytestmark = pytest.mark.skipif(faces.available() is not None, reason=str(faces.available()))


@pytest.fixture(autouse=True)
def one_doubling(monkeypatch):
    """Small pictures are not enlarged twice for the detector: that takes seconds."""
    monkeypatch.setattr(photos, "UPSAMPLED_PIXELS", 2**21)


HAND_PLACED = {
    # Outer and inner corner of the picture's left eye, inner and outer corner of its right eye,
    # left and right corner of the mouth, placed by eye on an enlarged picture.
    "astronaut": "191.8,99.9 213.5,102.7 235.7,104.1 258.6,103.2 202.3,139.7 244.1,140.4",
    "obama": "417.5,223.8 472.1,222.4 521.7,218.8 579.2,218.8 436.4,321.9 557.2,319.4",
    "obama2": "229.2,376.9 279.7,378.2 339.5,382.1 404.9,391.0 244.6,521.8 354.9,528.2",
    "obama3": "701.0,393.6 770.0,391.1 830.2,396.1 891.7,412.4 726.1,516.6 851.5,526.6",
    "biden": "501.5,322.8 563.7,332.4 624.0,343.6 684.7,361.2 514.3,461.5 628.2,477.8",
}


@lru_cache
def half(name):
    """A portrait at half its size."""
    return np.asarray(Image.fromarray(portrait(name)).reduce(2))


@lru_cache
def only_face(name):
    (face,) = find_faces(Photo(half(name), 1.0))
    return face


def rows(image, tmp_path, name="photo", **settings):
    path = tmp_path / f"{name}.png"
    Image.fromarray(image).save(path, **settings.pop("save", {}))
    return faces_in_photo(path, name, **{"small_below": 64, **settings})


@pytest.mark.parametrize("name", HAND_PLACED)
def test_landmarks_and_crop_agree_with_hand_placed_ones(name):
    """Each point within 3.5 % of the crop's side, its corners within 4 % on average."""
    placed = np.array([p.split(",") for p in HAND_PLACED[name].split()], dtype=float)
    if name == "astronaut":
        (face,) = find_faces(Photo(data.astronaut(), 1.0))
    else:
        face, placed = only_face(name), (placed + 0.5) / 2 - 0.5
    quad = quad_from_landmarks(face.landmarks)
    side = quad_side(quad)
    distance = np.hypot(*(face.landmarks[[36, 39, 42, 45, 48, 54]] - placed).T)
    assert distance.max() < 0.035 * side
    by_hand = np.zeros((68, 2))
    by_hand[36:42], by_hand[42:48] = placed[:2].mean(axis=0), placed[2:4].mean(axis=0)
    by_hand[[48, 54]] = placed[4:]
    corners = np.hypot(*(quad_from_landmarks(by_hand) - quad).T)
    assert corners.mean() < 0.04 * side


def test_aligning_an_aligned_face_changes_next_to_nothing():
    photo, quad = Photo(half("obama"), 1.0), quad_from_landmarks(only_face("obama").landmarks)
    once = Photo(aligned(photo, quad, 512), 1.0)
    (again,) = find_faces(once)
    corners = np.array([[0, 0], [0, 512], [512, 512], [512, 0]]) - 0.5
    moved = np.hypot(*(quad_from_landmarks(again.landmarks) - corners).T)
    assert moved.mean() < 0.02 * 512


def test_a_row_has_an_id_a_box_landmarks_and_remarks(tmp_path):
    (row,) = rows(data.astronaut(), tmp_path, small_below=100)
    assert row.id == "photo#1"
    notes = row.notes()
    left, top, right, bottom = map(int, notes["note_face_box"].split(","))
    assert 160 < left < right < 290
    assert 60 < top < bottom < 200
    assert len(notes["note_landmarks"].split()) == 68
    assert notes["note_face"] == "good"
    assert notes["note_photo"] == "photo.png"
    assert all(isinstance(value, str | int | float) for value in notes.values())
    (small,) = rows(data.astronaut(), tmp_path, small_below=200)
    assert small.remarks == ("small",)


@pytest.fixture(scope="module")
def group():
    """The astronaut three times: middle-sized, small, large."""
    head = Image.fromarray(data.astronaut()).crop((120, 0, 340, 240))
    sheet = Image.new("RGB", (900, 480), (120, 130, 125))
    for left, width in ((0, 220), (260, 110), (420, 440)):
        sheet.paste(head.resize((width, width * 240 // 220)), (left, 0))
    return np.asarray(sheet)


def test_faces_come_by_size_or_from_left_to_right(group, tmp_path):
    sizes = [row.face.size for row in rows(group, tmp_path)]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)
    across = rows(group, tmp_path, order="left_to_right")
    assert [row.id for row in across] == ["photo#1", "photo#2", "photo#3"]
    lefts = [row.face.box[0] for row in across]
    assert lefts == sorted(lefts)


def test_the_largest_faces_are_kept(group, tmp_path):
    two = rows(group, tmp_path, max_faces=2, order="left_to_right")
    assert [row.face.box[0] < 220 for row in two] == [True, False]
    assert two[0].notes()["note_faces_in_photo"] == 3
    assert len(rows(group, tmp_path, min_face=60)) == 2
    with pytest.raises(UserError, match=r"largest face is \d+ pixels, below data.min_face=999"):
        rows(group, tmp_path, min_face=999)


def test_a_hundred_faces(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "UPSAMPLED_PIXELS", 2**23)
    head = Image.fromarray(data.astronaut()).crop((120, 0, 340, 220)).resize((110, 110))
    crowd = np.tile(np.asarray(head), (10, 10, 1))
    found = rows(crowd, tmp_path)
    assert len(found) == 100
    assert len({row.id for row in found}) == 100


def test_exif_turned_photos_give_the_same_face(tmp_path):
    (upright,) = rows(data.astronaut(), tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    (turned,) = rows(np.rot90(data.astronaut()), tmp_path, save={"exif": exif})
    np.testing.assert_array_equal(turned.face.landmarks, upright.face.landmarks)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_wrong_exif_flag_is_seen_through(tmp_path, quarter_turns):
    (upright,) = rows(data.astronaut(), tmp_path)
    (turned,) = rows(np.rot90(data.astronaut(), quarter_turns), tmp_path)
    assert turned.remarks == ("sideways",)
    sources = [Photo(np.rot90(data.astronaut(), n).copy(), 1.0) for n in (0, quarter_turns)]
    crops = [
        aligned(photo, row.quad, 64).astype(int)
        for photo, row in zip(sources, (upright, turned), strict=True)
    ]
    assert np.abs(crops[0] - crops[1]).mean() < 8


def test_a_reduced_photo_gives_boxes_of_the_whole_one(tmp_path, monkeypatch):
    (whole,) = rows(data.astronaut(), tmp_path)
    monkeypatch.setattr(read_photo, "__defaults__", (2**17,))
    (reduced,) = rows(data.astronaut(), tmp_path)
    assert read_photo(whole.path).scale == 2
    assert np.hypot(*(whole.quad - reduced.quad).T).max() < 0.05 * quad_side(whole.quad)
    crops = [aligned(read_photo(whole.path, limit), whole.quad, 32) for limit in (None, 2**17)]
    assert np.abs(crops[0].astype(int) - crops[1]).mean() < 4


def test_a_panorama_keeps_its_face(tmp_path):
    wide = np.full((300, 6000, 3), 140, np.uint8)
    wide[:, 3000:3300] = data.astronaut()[:300, 100:400]
    (row,) = rows(wide, tmp_path)
    assert 3000 < row.face.box[0] < 3300


def drawing():
    image = Image.new("RGB", (400, 400), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((100, 80, 300, 330), outline="black", width=4)
    for left in (150, 220):
        pen.ellipse((left, 160, left + 30, 175), outline="black", width=3)
    pen.arc((150, 220, 250, 290), 20, 160, fill="black", width=3)
    return np.asarray(image)


@pytest.mark.parametrize("image", [data.coffee(), drawing(), np.zeros((3, 5, 3), np.uint8)])
def test_a_photo_without_a_face_says_so(image, tmp_path):
    with pytest.raises(UserError, match=r"photo\.png: no face found"):
        rows(image, tmp_path)


def test_remarks(tmp_path):
    (good,) = rows(half("obama"), tmp_path)
    assert good.remarks == ()
    (turned,) = rows(half("obama2"), tmp_path)
    assert turned.remarks == ("turned_away",)
    (cut,) = rows(half("obama_partial_face"), tmp_path)
    assert "cut_off" in cut.remarks
    soft = Image.fromarray(half("obama")).filter(ImageFilter.GaussianBlur(4))
    (blurred,) = rows(np.asarray(soft), tmp_path)
    assert blurred.remarks == ("blurred",)


def test_sharpness_is_of_the_face_not_of_its_pixels():
    face = only_face("obama")
    whole = Photo(portrait("obama"), 0.5)  # the same face in a photo of twice as many pixels
    assert sharpness(whole, face) == pytest.approx(
        sharpness(Photo(half("obama"), 1.0), face), rel=0.2
    )


def test_asymmetry_changes_its_sign_in_the_mirror():
    (mirrored,) = find_faces(Photo(half("obama2")[:, ::-1].copy(), 1.0))
    assert asymmetry(mirrored) == pytest.approx(-asymmetry(only_face("obama2")), abs=0.15)
    assert asymmetry(mirrored) > 0.3


def made_up_face(center, half_side, angle=0.0):
    """A face whose crop has this centre and half side, eyes and mouth in FFHQ's proportions."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = (-0.25, -0.05), (0.25, -0.05)
    points[48], points[54] = (-0.2, 0.45), (0.2, 0.45)
    points[0:17, 0] = np.linspace(-0.5, 0.5, 17)
    points = points @ turn.T * half_side + center
    box = np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(int)
    return faces.Face(tuple(box.tolist()), points, 1.0)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """data=photos on one photo of smooth noise with two made-up faces, for a side of 64."""
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(300, 400, 3)), (4, 4, 0))
    pixels = np.uint8(255 * (noise - noise.min()) / np.ptp(noise))
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    found = [made_up_face((150, 150), 80, 0.2), made_up_face((330, 100), 10)]
    monkeypatch.setattr(photos, "find_faces", lambda photo: found)

    def build(**settings):
        config, _ = job(*SMALL, "data=photos", f"data.root={tmp_path}", *settings.pop("job", []))
        return build_dataset(config, load("toy"))

    return build


def test_evaluation_has_the_aligned_face_as_its_truth(dataset):
    data = dataset()
    assert data.ids == ["noise#1", "noise#2"]
    assert (data.factor(0), data.factor(1)) == (None, None)
    sample = data.load(0)
    assert sample.lr is None
    assert sample.hr.shape == (3, 64, 64)
    quad = data.rows[0].quad
    assert quad_side(quad) == pytest.approx(160)
    expected = crop_quad(read_photo(data.rows[0].path).pixels, quad, 64)
    np.testing.assert_allclose(sample.hr.permute(1, 2, 0).numpy() * 255, expected, atol=0.01)


def test_restoration_reduces_the_face_and_has_no_truth(dataset):
    data = dataset(job=["mode=restore"])
    assert data.factor(0) is None
    sample = data.load(0)
    assert sample.hr is None
    assert sample.lr.shape == (3, 8, 8)
    large = Image.fromarray(crop_quad(read_photo(data.rows[0].path).pixels, data.rows[0].quad, 64))
    reference = np.asarray(large.resize((8, 8), Image.Resampling.BICUBIC)) / 255
    np.testing.assert_allclose(sample.lr.permute(1, 2, 0).numpy(), reference, atol=1.1 / 255)


@pytest.mark.parametrize("mode", ["evaluate", "restore"])
def test_a_face_smaller_than_the_low_res_size_is_used_as_it_is(dataset, mode):
    data = dataset(job=[f"mode={mode}", "downscaler.factor=2"])
    assert data.factor(0) is None
    assert data.factor(1) == 4  # 20 pixels of the photo: 16 of the low-res image, not 32
    sample = data.load(1)
    assert sample.hr is None
    assert sample.lr.shape == (3, 16, 16)
    assert "small" in sample.notes["note_face"]


def test_a_face_without_pixels_and_a_photo_without_faces_say_so(dataset, monkeypatch):
    monkeypatch.setattr(photos, "find_faces", lambda photo: [made_up_face((100, 100), 3)])
    with pytest.raises(UserError, match="has only 6 pixels"):
        dataset().factor(0)
    monkeypatch.setattr(photos, "find_faces", lambda photo: [])
    data = dataset()
    assert data.ids == ["noise"]
    with pytest.raises(UserError, match="no face found"):
        data.factor(0)


def test_without_the_extra_the_remedy_is_named(dataset, monkeypatch):
    monkeypatch.setattr(faces, "available", lambda: "package dlib-bin is not installed: do this")
    with pytest.raises(UserError, match="data=photos needs an extra: package dlib-bin"):
        len(dataset())


def test_a_run_pastes_its_results_back(dataset, tmp_path):
    config, words = job(
        *SMALL,
        *("data=photos", f"data.root={tmp_path}", "mode=restore", "paste_back=true"),
        *("search.steps=2", "metrics=[]"),
    )
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:40])
    dataset()
    out = tmp_path / "run"
    assert pipeline.run(config, words, out) == 1
    records = {row["image"]: row for row in RecordFile(out / "records.jsonl").read()}
    assert set(records) == {"noise#1", "noise#2", "cut"}
    assert records["cut"]["status"] == "failed"
    assert "damaged" in records["cut"]["reason"]
    assert records["noise#2"]["lr_side"] == 8
    assert records["noise#1"]["note_crop_side"] == pytest.approx(160)
    before = read_photo(tmp_path / "noise.png").pixels
    after = read_photo(out / "pasted" / "noise.png").pixels
    assert after.shape == before.shape
    assert (after[120:180, 120:180] != before[120:180, 120:180]).any()
    np.testing.assert_array_equal(after[270:], before[270:])


def test_aligning_writes_faces_and_an_overview(dataset, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    out = tmp_path / "run"
    config, words = job(*SMALL, "task=align", "data=photos", f"data.root={tmp_path}")
    dataset()
    assert align.run(config, words, out) == 1
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.*"))
    assert written == [
        *("aligned/noise#1.png", "aligned/noise#2.png"),
        *("faces.jsonl", "overview/noise.png"),
    ]
    lines = [json.loads(line) for line in (out / "faces.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["found", "found", "failed"]
    assert lines[0]["note_face_box"]
    assert len(lines[0]["note_landmarks"].split()) == 68


@pytest.mark.parametrize("override", ["mode=restore", "paste_back=true", "task=align"])
def test_what_needs_photos_is_refused_without_them(override):
    config, _ = job(*SMALL, "data=generated", override)
    assert [line for line in complaints(config) if "data=photos" in line]


def test_the_overview_shows_the_photo_and_every_face(group, tmp_path):
    found = rows(group, tmp_path)
    sheet = np.asarray(overview(read_photo(found[0].path), found))
    photo = np.asarray(Image.fromarray(group).resize((900, 480)))
    np.testing.assert_array_equal(sheet[300:400, 20:200], photo[288:388, 8:188])
    cell = aligned(read_photo(found[0].path), found[0].quad, 320)
    np.testing.assert_array_equal(sheet[514:800, 22:320], cell[10:296, 10:308])
