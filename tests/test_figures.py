import numpy as np
import pytest
from PIL import Image

from pulse_exp.errors import UserError
from pulse_exp.figures import (
    KINDS,
    _on_common_steps,
    draw,
    main,
    severity_figure,
    steps_figure,
    time_figure,
)
from pulse_exp.image_grids import diversity_figure, samples_figure
from pulse_exp.results import load_results
from tests.synthetic_runs import record, write_images, write_run, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), images=3)


def severity_runs(folder):
    """Two methods whose PSNR falls by 1 dB for each 10 of the noise's std, exactly."""
    for method, best in (("pulse", 20.0), ("csgm", 15.0)):
        for std in (0, 10, 50):
            rows = [
                record(image, method=method, config_hash=f"{method}{std}", psnr=best - std / 10)
                for image in "ab"
            ]
            run = write_run(folder / f"{method}-{std}", rows, [])
            (run / ".hydra" / "config.yaml").write_text(f"degradation:\n  std: {std}\n")
    return load_results([folder])


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_writes_a_png_and_a_pdf_with_the_same_bytes_twice(study, tmp_path, kind, capsys):
    arguments = [str(study), kind, "--by", "prior", "--images", "2"]
    for name in ("one", "two.png"):
        assert main([*arguments, "--output", str(tmp_path / "sub" / name)]) == 0
    for suffix in (".png", ".pdf"):
        one, two = ((tmp_path / "sub" / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two
        assert len(one) > 2000
    with Image.open(tmp_path / "sub" / "one.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert "24 records used" in capsys.readouterr().err


def test_severity_draws_the_means_at_their_severity(tmp_path):
    figure = severity_figure(severity_runs(tmp_path))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "Degradation, std"
    assert axes.get_ylabel() == "PSNR (dB), higher is better"
    lines = [container[0].get_xydata().tolist() for container in axes.containers]
    assert lines == [[[0, 15], [10, 14], [50, 10]], [[0, 20], [10, 19], [50, 15]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["csgm", "pulse"]


def test_eps_is_on_a_logarithmic_axis_with_its_own_values(tmp_path):
    rows = [record("a", eps=e, config_hash=str(e)) for e in (0.0005, 0.001, 0.008)]
    write_run(tmp_path, rows)
    axes = severity_figure(load_results([tmp_path]), "psnr", x="eps").axes[0]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.0005", "0.001", "0.008"]


def test_severity_over_words_draws_points_side_by_side(study):
    (axes,) = severity_figure(load_results([study]), metric="niqe").axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["none", "gaussian_noise"]
    at = [container[0].get_xdata().tolist() for container in axes.containers]
    assert np.allclose(at, [[-0.06, 0.94], [0.06, 1.06]])


def test_a_shorter_curve_keeps_its_last_error():
    curves = [{"step": [0, 2], "lr_mse": [4.0, 2.0]}, {"step": [0, 1, 4], "lr_mse": [3.0, 2, 1]}]
    steps, errors = _on_common_steps(curves)
    assert steps.tolist() == [0, 1, 2, 4]
    assert errors.tolist() == [[4, 3, 2, 2], [3, 2, pytest.approx(5 / 3), 1]]


def test_steps_says_how_many_searches_have_a_curve(study):
    (axes,) = steps_figure(load_results([study])).axes
    assert axes.get_title(loc="left") == "Median and quartiles of 23 searches. 1 without a curve."
    assert axes.get_yscale() == "log"


def test_time_counts_unsolved_and_failed_searches_in_the_share(tmp_path):
    rows = [
        record("a", seconds=10.0, steps=100, solved_step=20),
        record("b", seconds=10.0, steps=100, solved_step=60),
        record("c", seconds=10.0, status="unsolved"),
        record("d", seconds=1.0, status="failed"),
    ]
    rows.append(record("e", steps=0, solved_step=None))  # a baseline's result: no search
    (axes,) = time_figure(load_results([write_run(tmp_path, rows)])).axes
    points = axes.lines[0].get_xydata().tolist()
    assert points == [[0, 0], [2, 0.25], [6, 0.5], [10, 0.5]]


def test_samples_have_rows_between_input_and_truth(study):
    figure = samples_figure(load_results([study]), by=["prior"])
    rows = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert rows == ["Low-res", "prior none", "sphere+cross", "Truth"]
    columns = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert columns == ["face-0", "face-1", "face-2"]


def test_samples_show_the_selected_restart_and_say_what_is_missing(tmp_path):
    rows = [
        record("a", 0, lr_mse=0.003),
        record("a", 1, lr_mse=0.001),
        record("b", status="failed"),
        record("c"),
    ]
    run = write_run(tmp_path, rows)
    write_images(run, rows)
    (run / "sr" / "c-0.png").unlink()
    figure = samples_figure(load_results([run]))
    middle = figure.axes[3:6]
    shown = np.asarray(Image.open(run / "sr" / "a-1.png"), dtype=float) / 255
    assert np.array_equal(middle[0].images[0].get_array(), shown)
    assert [axes.texts[0].get_text() for axes in middle[1:]] == ["failed", "no picture"]


def test_more_images_than_columns_continue_below(tmp_path):
    rows = [record(image) for image in "abcde"]
    run = write_run(tmp_path, rows)
    write_images(run, rows)
    figure = samples_figure(load_results([run]), images=5, columns=2)
    titles = [axes.get_title() for axes in figure.axes]
    names = [axes.get_ylabel() for axes in figure.axes]
    assert titles == [*"ab", *[""] * 4, *"cd", *[""] * 4, "e", *[""] * 5]
    assert names[::2] == ["Low-res", "pulse", "Truth"] * 3
    assert not any(names[1::2])
    shown = [len(axes.images) for axes in figure.axes]
    assert shown == [*[1] * 12, *[1, 0] * 3]
    assert [axes.axison for axes in figure.axes[12:]] == [True, False] * 3


def test_images_that_continue_below_are_spread_evenly(tmp_path):
    rows = [record(image) for image in "abcdef"]
    run = write_run(tmp_path, rows)
    write_images(run, rows)
    figure = samples_figure(load_results([run]), images=6, columns=4)
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == list("abcdef")
    assert len(figure.axes) == 2 * 3 * 3
    assert all(axes.axison for axes in figure.axes)


def test_rows_and_images_stand_in_the_order_that_is_asked_for(study):
    where = {"prior": ["sphere+cross", "none"], "image": ["face-2", "face-0"]}
    figure = samples_figure(load_results([study]), by=["prior"], where=where)
    rows = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert rows == ["Low-res", "sphere+cross", "prior none", "Truth"]
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["face-2", "face-0"]


def test_inputs_that_a_group_lacks_are_taken_from_the_others(tmp_path):
    for method, images in (("pulse", "ab"), ("csgm", "bc")):
        rows = [record(image, method=method, config_hash=method) for image in images]
        write_images(write_run(tmp_path / method, rows), rows)
    figure = samples_figure(load_results([tmp_path]))
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["Low-res", "csgm", "pulse", "Truth"]
    assert all(axes.images for axes in figure.axes[:3])


def test_a_sheet_of_photographs_may_be_one_jpeg(study, tmp_path, capsys):
    arguments = [str(study), "samples", "--output", str(tmp_path / "sub" / "sheet.jpg")]
    assert main(arguments) == 0
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["sheet.jpg"]
    with Image.open(tmp_path / "sub" / "sheet.jpg") as picture:
        assert picture.format == "JPEG"
    assert capsys.readouterr().out.endswith("sheet.jpg\n")


def test_each_degradation_shows_its_own_input(tmp_path):
    for number, name in enumerate(("none", "noise")):
        rows = [record("a", degradation=name, config_hash=name)]
        run = write_run(tmp_path / name, rows)
        write_images(run, rows)
        pixels = np.full((8, 8, 3), 60 * number, np.uint8)
        Image.fromarray(pixels).save(run / "lr" / "a.png")
    figure = samples_figure(load_results([tmp_path]), by=["degradation"])
    rows = [axes.get_ylabel() for axes in figure.axes]
    assert rows == [
        "Low-res,\ndegradation none",
        "degradation none",
        "Low-res,\nnoise",
        "noise",
        "Truth",
    ]


def test_results_of_one_input_stand_below_it_whatever_is_named_first(tmp_path):
    for method in ("csgm", "pulse"):
        for number, name in enumerate(("jpeg", "noise")):
            rows = [record("a", degradation=name, method=method, config_hash=method + name)]
            run = write_run(tmp_path / (method + name), rows)
            write_images(run, rows)
            pixels = np.full((8, 8, 3), 60 * number, np.uint8)
            Image.fromarray(pixels).save(run / "lr" / "a.png")
    figure = samples_figure(load_results([tmp_path]), by=["method", "degradation"])
    assert [axes.get_ylabel().replace("\n", " ") for axes in figure.axes] == [
        "Low-res, jpeg",
        "csgm, jpeg",
        "pulse, jpeg",
        "Low-res, noise",
        "csgm, noise",
        "pulse, noise",
        "Truth",
    ]


def test_rows_say_only_the_settings_that_their_runs_have(tmp_path):
    settings = {
        "jpeg": "search:\n  blur: estimated\ndegradation:\n  jpeg:\n    quality: 30\n",
        "gaussian_noise": "search:\n  blur: ignored\ndegradation:\n  noise:\n    std: 10\n",
    }
    for name, text in settings.items():
        rows = [record("a", degradation=name, config_hash=name)]
        run = write_run(tmp_path / name, rows, [])
        write_images(run, rows)
        (run / ".hydra" / "config.yaml").write_text(text)
    by = ["degradation", "degradation.jpeg.quality", "degradation.noise.std", "search.blur"]
    figure = samples_figure(load_results([tmp_path]), by=by)
    said = [axes.get_ylabel().replace("\n", " ") for axes in figure.axes]
    assert said[1:-1] == [
        "gaussian_noise, std 10, blur ignored",
        "jpeg, quality 30, blur estimated",
    ]


def test_diversity_is_the_standard_deviation_over_restarts(tmp_path):
    rows = [record("a", 0), record("a", 1), record("a", 2, status="failed"), record("b", 0)]
    run = write_run(tmp_path, rows)
    write_images(run, rows)
    figure = diversity_figure(load_results([run]))
    pictures = [
        np.asarray(Image.open(run / "sr" / f"a-{r}.png"), dtype=float) / 255 for r in (0, 1)
    ]
    expected = (abs(pictures[0] - pictures[1]) / 2).mean(axis=-1)
    assert np.allclose(figure.axes[2].images[0].get_array(), expected, atol=1e-6)
    assert figure.axes[3].texts[0].get_text() == "no two results"


def test_what_cannot_be_drawn_is_refused_in_one_line(tmp_path, capsys):
    run = write_run(tmp_path, [record("a", status="unsolved")])
    results = load_results([run])
    for kind, message in (
        ("severity", "no number varies"),
        ("steps", "curves.jsonl"),
        ("time", "within eps"),
        ("diversity", "two restarts"),
    ):
        with pytest.raises(UserError, match=message):
            draw(kind, results)
    arguments = [str(run), "severity", "--output", str(tmp_path / "x")]
    assert main([*arguments, "--x", "sevrity"]) == 2
    assert main([*arguments, "--x", "eps", "--metric", "nique"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    with pytest.raises(SystemExit):
        main([str(run), "samples", "--columns", "0", "--output", str(tmp_path / "x")])
    assert "--columns: '0' is not a number of at least 1" in capsys.readouterr().err
