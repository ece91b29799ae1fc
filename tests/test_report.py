import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pulse_exp.errors import UserError
from pulse_exp.gallery import gallery_data, thumbnail
from pulse_exp.report import write_report
from pulse_exp.results import load_results
from tests import browser
from tests.synthetic_runs import record, write_images, write_run, write_study


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("a study & more"), images=3)
    return write_report(study)


def embedded(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []
        self.balance = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "link", "input", "img", "br"):
            self.balance.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.balance.pop() == tag


def test_the_page_is_whole_and_asks_nothing_of_a_network(page):
    text = page.read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert links.balance == []
    outside = [link for link in links.found if re.match(r"(\w+:)?//", link)]
    assert outside == []
    assert "@import" not in text
    assert not re.search(r"url\((?!['\"]?(#|data:))", text)


def test_every_relative_link_opens_something(page):
    links = Links()
    links.feed(page.read_text(encoding="utf-8"))
    relative = [link for link in links.found if not link.startswith(("#", "data:"))]
    assert relative
    assert all((page.parent / link).exists() for link in relative)


def test_the_page_tells_what_was_run_and_what_failed_and_how_to_repeat_it(page):
    text = page.read_text(encoding="utf-8")
    assert "<title>a study &amp; more" in text
    assert "loss became NaN at step 3" in text
    assert "python run.py prior=sphere+cross degradation=gaussian_noise" in text
    assert "24 records used of 24 lines in 4 files; 1 of them failed." in text
    for heading in ("What was run", "Tables", "Figures", "Gallery", "Failed searches", "Commands"):
        assert f"<h2>{heading}</h2>" in text


def test_every_cell_knows_the_commands_behind_it(page):
    data = embedded(page)
    cells = re.findall(r'data-place="([\d-]+)"', page.read_text(encoding="utf-8"))
    assert cells
    for cell in data["tables"][0].values():
        wanted = dict(cell["options"])
        assert len(cell["runs"]) == 1
        command = data["runs"][cell["runs"][0]]["command"]
        assert (
            command == f"python run.py prior={wanted['prior']} degradation={wanted['degradation']}"
        )


def test_the_same_records_give_the_same_page(tmp_path):
    rows = [record("a"), record("b")]
    run = write_run(tmp_path, rows, [])
    write_images(run, rows)
    before = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == before


def test_hostile_names_stay_text(tmp_path):
    rows = [record("a", method="</script><script>alert(1)</script>", config_hash="1")]
    rows += [record("b", status="failed", reason="<img src=x onerror=alert(2)>", config_hash="2")]
    text = write_report(write_run(tmp_path, rows, [])).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("</script>") == 2


def test_a_single_run_without_pictures_or_curves_still_gives_a_page(tmp_path):
    page = write_report(write_run(tmp_path, [record("a", status="failed", reason="no face")]))
    text = page.read_text(encoding="utf-8")
    assert "no face" in text
    assert "no .hydra/overrides.yaml" in text
    assert embedded(page)["cards"][0]["pictures"] == [-1, -1, -1]


def test_places_without_records_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no records\.jsonl"):
        write_report(tmp_path)


def test_thumbnails_are_small_shared_and_keep_the_pixels_of_low_res(tmp_path):
    rows = [record("a", restart, config_hash=str(run)) for run in range(2) for restart in range(2)]
    for number in range(2):
        mine = rows[2 * number : 2 * number + 2]
        write_images(write_run(tmp_path / str(number), mine), mine, side=512)
    frame = load_results([tmp_path]).frame
    runs = frame.groupby(["run_folder", "config_hash"]).groups
    data = gallery_data(frame, {run: number for number, run in enumerate(runs)})
    assert len(data["thumbnails"]) == 4  # lr, hr and two restarts, the same in both runs
    assert {card["pictures"][0] for card in data["cards"]} == {0}
    assert all(len(uri) < 40_000 for uri in data["thumbnails"])
    small = tmp_path / "small.png"
    Image.new("RGB", (8, 8), "red").save(small)
    assert thumbnail(small, 256).startswith("data:image/png")
    assert thumbnail(tmp_path / "none.png", 256) is None


@pytest.fixture(scope="module")
def chromium():
    if browser.missing():
        pytest.skip(browser.missing())
    with browser.Browser(1280, 900) as window:
        yield window


def looks_like(shot, path, resampling):
    expected = Image.open(path).convert("RGB").resize(shot.size, resampling)
    difference = np.asarray(shot, dtype=float) - np.asarray(expected, dtype=float)
    return abs(difference[5:-5, 5:-5]).mean() < 4


def test_a_click_on_the_slider_uncovers_low_res_result_and_truth(page, tmp_path, chromium):
    # A folder whose name needs quoting, opened as a file.
    folder = shutil.copytree(page.parent, tmp_path / "moved to #2")
    chromium.open(folder / "report.html")
    link = "return decodeURI(document.querySelector('.card .stack').href)"
    assert "/0/sr/face-0-0.png" in chromium.run(link)
    result = chromium.picture_of(".card .stack")

    width = chromium.run("return document.querySelector('.card .stops input').clientWidth")
    chromium.click(".card .stops input", right_of_centre=width // 2 - 2)
    assert "/0/hr/face-0.png" in chromium.run(link)
    truth = chromium.picture_of(".card .stack")
    assert looks_like(truth, folder / "0" / "hr" / "face-0.png", Image.Resampling.BICUBIC)
    assert not np.array_equal(np.asarray(truth), np.asarray(result))

    chromium.click(".sweep [data-stop='0']")
    assert "/0/lr/face-0.png" in chromium.run(link)
    low = chromium.picture_of(".card .stack")
    assert looks_like(low, folder / "0" / "lr" / "face-0.png", Image.Resampling.NEAREST)
    assert chromium.complaints() == []


def test_filters_and_cells_answer_to_clicks(page, chromium):
    shown = "return document.querySelectorAll('.card').length"
    chromium.open(page)
    assert chromium.run(shown) == 24
    chromium.choose("[data-filter=prior]", "sphere+cross")
    count = chromium.run("return document.getElementById('count').textContent")
    assert count == "12 of 24 searches"
    chromium.type("#filter-image", "FACE-2")
    assert chromium.run(shown) == 4
    chromium.choose("[data-filter=status]", "failed")
    assert chromium.run(shown) == 0

    chromium.click("td[data-place='1-0-0']")
    assert chromium.run("return document.querySelector('dialog').open")
    command = chromium.run("return document.querySelector('dialog pre').textContent")
    assert command == "python run.py prior=none degradation=gaussian_noise"
    chromium.click("dialog [value=gallery]")
    assert not chromium.run("return document.querySelector('dialog').open")
    assert chromium.run(shown) == 6
    assert chromium.complaints() == []


def test_on_a_phone_nothing_is_wider_than_the_page_and_paper_gets_every_card(
    page, tmp_path, chromium
):
    chromium.metrics(390, 844, phone=True)
    chromium.open(page)
    assert chromium.run("return document.documentElement.scrollWidth") <= 390
    chromium.screenshot(tmp_path / "phone.png")
    with Image.open(tmp_path / "phone.png") as shot:
        assert len(shot.convert("RGB").getcolors(maxcolors=1 << 20)) > 20
    chromium.pdf(tmp_path / "paper.pdf")
    assert (tmp_path / "paper.pdf").read_bytes().count(b"/Type /Page\n") > 2
    told = chromium.run("return document.getElementById('printed').textContent")
    assert told == "Low-res, result and truth of 24 of 24 searches."
