import csv
import io
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from pulse_exp.errors import UserError
from pulse_exp.results import load_results
from pulse_exp.table_formats import FORMATS, html_table, number, render
from pulse_exp.tables import build_table, main
from tests.synthetic_runs import record, write_run, write_study

HERE = ((), (), ())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), images=8, pictures=False)


def table_of(tmp_path, records, **arguments):
    return build_table(load_results([write_run(tmp_path / "run", records)]), **arguments)


def only_cell(table, metric):
    return table.cells[(table.blocks[0], table.rows[0], table.cols[0]), metric]


def test_means_and_tests_agree_with_a_straight_line(study):
    results = load_results([study])
    table = build_table(
        results, rows=["prior"], cols=["degradation"], metrics=["niqe"], baseline="prior=none"
    )
    frame = results.frame[results.frame["status"] != "failed"]
    best = frame.loc[frame.groupby(["prior", "degradation", "image"])["lr_mse"].idxmin()]
    p_values = []
    for degradation in ("none", "gaussian_noise"):
        one = best[best["degradation"] == degradation].pivot(
            index="image", columns="prior", values="niqe"
        )
        for prior in ("none", "sphere+cross"):
            cell = table.cells[((), (prior,), (degradation,)), "niqe"]
            assert cell.mean == pytest.approx(one[prior].mean())
            assert cell.n == 8
            assert cell.low < cell.mean < cell.high
        p_values.append(scipy.stats.wilcoxon(one["sphere+cross"] - one["none"]).pvalue)
    expected = [min(1, 2 * min(p_values)), max(2 * min(p_values), max(p_values))]
    adjusted = [
        table.cells[((), ("sphere+cross",), (d,)), "niqe"].p for d in ("none", "gaussian_noise")
    ]
    assert sorted(adjusted) == pytest.approx(expected)
    assert table.cells[((), ("sphere+cross",), ("none",)), "niqe"].best
    assert not table.cells[((), ("none",), ("none",)), "niqe"].best


def test_the_selected_restart_is_the_one_with_the_lowest_error_not_the_best_truth(tmp_path):
    rows = [
        record("a", 0, lr_mse=0.002, psnr=30.0),
        record("a", 1, lr_mse=0.001, psnr=20.0),
        record("a", 2, status="failed"),
    ]
    assert only_cell(table_of(tmp_path, rows, metrics=["psnr"]), "psnr").mean == 20.0
    averaged = table_of(tmp_path, rows, metrics=["psnr", "solved"], restarts="mean")
    assert only_cell(averaged, "psnr").mean == 25.0
    assert only_cell(averaged, "solved").mean == pytest.approx(2 / 3)


def test_failures_lower_the_success_rate_and_are_counted(tmp_path):
    rows = [
        record("a", psnr=20.0),
        record("b", status="unsolved", psnr=22.0),
        record("c", status="failed", reason="NaN"),
        record("d", status="failed", reason="NaN"),
    ]
    table = table_of(tmp_path, rows, metrics=["psnr", "solved", "steps_to_solve"])
    assert only_cell(table, "solved").mean == 0.25
    assert only_cell(table, "psnr").mean == 21.0
    (group,) = table.groups.values()
    assert (group.images, group.failed, group.searches, group.failed_searches) == (2, 2, 4, 2)
    text = render(table, "md")
    assert "| 2, 2 failed |" in text
    assert "0.25 ± 0.50 (n = 4)" in text
    assert "40 (n = 1)" in text
    assert "2 of 4 searches failed" in text
    unsolved = [record("a", status="unsolved")]
    text = render(table_of(tmp_path / "none", unsolved, metrics=["steps_to_solve"]), "md")
    assert "| pulse | none solved |" in text
    baseline = [record("a", method="bicubic", steps=0, solved_step=None)]
    text = render(table_of(tmp_path / "no", baseline, metrics=["solved", "steps_to_solve"]), "md")
    assert "| bicubic | 1.00 | – |" in text


def test_cells_that_are_missing_say_so(tmp_path):
    rows = [
        record("a", config_hash="1", method="pulse", degradation="none", niqe=None),
        record("b", config_hash="1", method="pulse", degradation="none", niqe=None),
        record("a", config_hash="2", method="csgm", degradation="jpeg"),
        record("a", config_hash="3", method="csgm", degradation="none", status="failed"),
    ]
    arguments = {"rows": ["method"], "cols": ["degradation"], "metrics": ["niqe"]}
    table = table_of(tmp_path, rows, **arguments)
    lines = render(table, "md").splitlines()
    assert lines[0] == (
        "| method | degradation none · n | degradation none · NIQE ↓ | jpeg · n | jpeg · NIQE ↓ |"
    )
    assert lines[2] == "| csgm | 0, 1 failed | all failed | 1 | 4.00 |"
    assert lines[3] == "| pulse | 2 | not measured | – | no records |"
    tidy = table.tidy().set_index(["method", "degradation"])
    assert tidy.loc[("pulse", "jpeg"), "n"] == 0
    assert np.isnan(tidy.loc[("pulse", "jpeg"), "mean"])


def test_no_interval_for_one_image_or_equal_values(tmp_path):
    table = table_of(tmp_path, [record("a"), record("b")], metrics=["psnr", "solved"])
    assert np.isnan(only_cell(table, "psnr").low)
    assert "| pulse | 20.00 | 1.00 |" in render(table, "md")


def test_best_respects_the_direction_and_ties_and_needs_a_direction(tmp_path):
    rows = [
        record("a", config_hash="1", method="m1", psnr=20.001, niqe=3.0, skin_tone=10.0, ssim=0.5),
        record("a", config_hash="2", method="m2", psnr=20.002, niqe=4.0, skin_tone=20.0, ssim=0.5),
        record("a", config_hash="3", method="m3", psnr=19.000, niqe=5.0, skin_tone=30.0, ssim=0.5),
    ]
    metrics = ["psnr", "niqe", "skin_tone", "ssim"]
    table = table_of(tmp_path, rows, rows=["method"], metrics=metrics)
    best = {
        key: [labels[0] for labels in table.rows if table.cells[((), labels, ()), key].best]
        for key in metrics
    }
    assert best == {"psnr": ["m1", "m2"], "niqe": ["m1"], "skin_tone": [], "ssim": []}


def test_a_metric_of_a_whole_run_has_no_interval_and_no_test(tmp_path):
    rows = [
        record(image, config_hash=method, method=method, fid=value)
        for method, value in (("m1", 40.0), ("m2", 50.0))
        for image in "abcdefgh"
    ]
    table = table_of(tmp_path, rows, rows=["method"], metrics=["fid"], baseline="m1")
    cell = table.cells[((), ("m2",), ()), "fid"]
    assert (cell.mean, cell.pairs) == (50.0, 0)
    assert np.isnan(cell.low)
    assert "| m2 | 50.0 |" in render(table, "md")


def test_an_image_counts_once_however_many_runs_have_it(tmp_path):
    rows = [
        record("a", config_hash="1", factor=8, psnr=10.0),
        record("a", config_hash="2", factor=16, psnr=20.0),
        record("b", config_hash="1", factor=8, psnr=30.0),
    ]
    table = table_of(tmp_path, rows, rows=["method"], metrics=["psnr"])
    assert only_cell(table, "psnr").mean == pytest.approx((15 + 30) / 2)
    assert "Cells average over factor: 8, 16." in table.notes


def test_a_baseline_on_one_of_two_row_keys_pairs_like_with_like(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        record(f"i{i}", config_hash=m + d, method=m, degradation=d, psnr=float(p + rng.normal()))
        for m, p in (("bicubic", 20), ("pulse", 25))
        for d in ("none", "jpeg")
        for i in range(8)
    ]
    table = table_of(
        tmp_path, rows, rows=["degradation", "method"], metrics=["psnr"], baseline="bicubic"
    )
    tested = {labels: table.cells[((), labels, ()), "psnr"].pairs for labels in table.rows}
    assert tested == {
        ("none", "bicubic"): 0,
        ("none", "pulse"): 8,
        ("jpeg", "bicubic"): 0,
        ("jpeg", "pulse"): 8,
    }
    assert table.cells[((), ("jpeg", "pulse"), ()), "psnr"].p == pytest.approx(2 * 2 / 2**8)
    assert "over the 2 comparisons" in table.notes[-1]


def test_a_test_too_small_to_find_anything_is_said(tmp_path):
    rows = [record(i, config_hash=m, method=m) for m in ("x", "y") for i in "abcde"]
    table = table_of(tmp_path, rows, rows=["method"], metrics=["psnr"], baseline="x")
    assert "With 5 images no difference, however large, could reach that." in table.notes[-1]
    assert "p < 0.05 (one comparison a metric)." in table.notes[-1]
    rows = [record(i, config_hash=m, method=m) for m in "wxyz" for i in "abcdef"]
    table = table_of(tmp_path / "more", rows, rows=["method"], metrics=["psnr"], baseline="x")
    assert "over the 3 comparisons of a metric. With 6 images no" in table.notes[-1]
    rows = [record(i, config_hash=m, method=m) for m in "wxyz" for i in "abcdefg"]
    table = table_of(tmp_path / "enough", rows, rows=["method"], metrics=["psnr"], baseline="x")
    assert table.notes[-1].endswith("over the 3 comparisons of a metric.")
    rows = [record(m, config_hash=m, method=m) for m in ("x", "y")]
    table = table_of(tmp_path / "apart", rows, rows=["method"], metrics=["psnr"], baseline="x")
    assert "nothing was tested" in table.notes[-1]


def test_default_rows_are_the_choices_that_vary_without_what_they_imply(study, tmp_path):
    assert build_table(load_results([study])).row_keys == ("prior", "degradation")
    assert build_table(load_results([study]), cols=["degradation"]).row_keys == ("prior",)
    rows = [
        record("a", config_hash="1", method="pulse", prior="sphere"),
        record("a", config_hash="2", method="csgm", prior="gaussian"),
    ]
    assert table_of(tmp_path, rows).row_keys == ("method",)


def test_rivals_solve_the_same_problem(tmp_path):
    rows = [
        record("a", config_hash=f"{method}{noise}", method=method, degradation=noise, psnr=psnr)
        for method, noise, psnr in (("x", "none", 30.0), ("y", "none", 29.0),
                                    ("x", "jpeg", 20.0), ("y", "jpeg", 21.0))
    ]  # fmt: skip
    results = load_results([write_run(tmp_path, rows)])

    def best(**arguments):
        table = build_table(results, metrics=["psnr"], **arguments)
        return {
            frozenset(label for axis in place for label in axis)
            for (place, _), cell in table.cells.items()
            if cell.best
        }

    expected = {frozenset(("none", "x")), frozenset(("jpeg", "y"))}
    assert best(rows=["method", "degradation"]) == expected
    assert best(rows=["method"], cols=["degradation"]) == expected
    assert best(rows=["degradation"], cols=["method"]) == expected
    assert best(rows=["method"], blocks=["degradation"]) == expected
    assert best(rows=["degradation"], where={"method": ["x"]}) == set()


def test_settings_serve_as_rows(tmp_path):
    for name, rate in (("0", 0.4), ("1", 0.05)):
        run = write_run(tmp_path / name, [record("a", config_hash=name)], [])
        (run / ".hydra" / "config.yaml").write_text(f"optimizer:\n  learning_rate: {rate}\n")
    table = build_table(load_results([tmp_path]))
    assert table.row_keys == ("optimizer.learning_rate",)
    assert table.rows == [("0.05",), ("0.4",)]


def test_what_a_cell_averages_over_is_said(tmp_path):
    for name, rate in (("0", 0.4), ("1", 0.05)):
        run = write_run(tmp_path / name, [record("a", config_hash=name)], [])
        text = f"optimizer:\n  learning_rate: {rate}\n  _target_: X{name}\ntrainer:\n  n: {name}\n"
        (run / ".hydra" / "config.yaml").write_text(text)
    notes = build_table(load_results([tmp_path]), rows=["method"]).notes
    assert [note for note in notes if note.startswith("Cells average")] == [
        "Cells average over optimizer.learning_rate: 0.05, 0.4."
    ]


def test_a_metric_that_could_not_be_measured_says_why(tmp_path):
    rows = [record(image, lpips=None, missing="lpips: no weights; fid: none") for image in "ab"]
    text = render(table_of(tmp_path, rows, metrics=["psnr", "lpips"]), "md")
    assert "| pulse | 20.00 | not measured |" in text
    assert "- Not measured: lpips: no weights." in text
    assert "fid" not in text


def test_where_selects_and_orders(study):
    results = load_results([study])
    where = {"prior": ["sphere+cross", "none"], "degradation": ["none"]}
    table = build_table(results, rows=["prior"], metrics=["psnr"], where=where)
    assert table.rows == [("sphere+cross",), ("none",)]
    assert sum(group.searches for group in table.groups.values()) == 32


def test_common_images_are_those_of_which_all_rivals_have_a_value(tmp_path):
    rows = [
        record(image, method=method, config_hash=method + d, degradation=d, identity=value)
        for method, d, values in (
            ("pulse", "none", {"a": 0.1, "b": 0.3, "c": 0.8}),
            ("bicubic", "none", {"a": 0.5, "b": None, "c": 0.7}),
            ("pulse", "jpeg", {"a": 0.2, "b": 0.4}),
            ("bicubic", "jpeg", {"b": 0.6, "c": 0.9}),
        )
        for image, value in values.items()
    ]
    options = {"rows": ["method"], "cols": ["degradation"], "metrics": ["identity", "solved"]}
    plain = table_of(tmp_path, rows, **options)
    table = table_of(tmp_path, rows, **options, baseline="bicubic", common=True)
    expected = {"none": (0.45, 0.6, 2), "jpeg": (0.4, 0.6, 1)}
    for degradation, (pulse, bicubic, n) in expected.items():
        for method, mean in (("pulse", pulse), ("bicubic", bicubic)):
            cell = table.cells[((), (method,), (degradation,)), "identity"]
            assert (cell.mean, cell.n) == (pytest.approx(mean), n)
    there = ((), ("pulse",), ("none",))
    assert table.cells[there, "identity"].pairs == 2
    assert table.cells[there, "solved"].n == 3
    text = "Cells do not all hold the same images"
    assert any(text in note for note in plain.notes)
    assert not any(text in note for note in table.notes)
    assert any("all cells that compete" in note for note in table.notes)


def test_what_has_no_value_at_all_takes_none_from_its_rivals(tmp_path):
    rows = [record(i, method="pulse", config_hash="p", solved_step=9) for i in "ab"]
    rows += [record(i, method="bicubic", config_hash="b", solved_step=None) for i in "ab"]
    table = table_of(tmp_path, rows, rows=["method"], metrics=["solved_step"], common=True)
    pulse = table.cells[((), ("pulse",), ()), "solved_step"]
    assert (pulse.mean, pulse.n) == (9, 2)
    assert table.cells[((), ("bicubic",), ()), "solved_step"].n == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": ["priro"]}, r"--rows: the records have no 'priro'. Did you mean prior\?"),
        ({"metrics": ["nique"]}, r"no metric 'nique'. Did you mean niqe"),
        ({"metrics": ["lpips"]}, r"none of these records has lpips.*task=measure"),
        ({"metrics": ["status"]}, "no metric 'status'"),
        ({"rows": ["prior"], "cols": ["prior"]}, "prior spans two axes"),
        ({"rows": ["prior"], "baseline": "l1"}, "no 'l1'; it has prior=none, prior=sphere"),
        ({"baseline": "none"}, "say prior=none or degradation=none"),
        ({"where": {"prior": ["l1"]}}, "no record has prior=l1; they have none, sphere"),
        ({"where": {"prio": ["l1"]}}, "--where: the records have no 'prio'"),
    ],
)
def test_mistakes_are_named_with_what_there_is(study, arguments, message):
    with pytest.raises(UserError, match=message):
        build_table(load_results([study]), **arguments)


@pytest.mark.parametrize("format", FORMATS)
def test_same_table_same_text_whatever_the_order_of_folders(study, format):
    arguments = {"cols": ["degradation"], "baseline": "prior=none"}
    one = render(build_table(load_results([study]), **arguments), format)
    folders = [study / name for name in ("3", "0", "2", "1")]
    other = render(build_table(load_results(folders), **arguments), format)
    assert one == other
    assert one.endswith("\n")
    assert "†" in one or "dagger" in one or format == "csv"


def test_latex_is_escaped_and_balanced(tmp_path):
    name = r"100%_#&{$}~^\x"
    rows = [record("a", config_hash="1", method=name), record("a", config_hash="2", method="b")]
    text = render(
        table_of(tmp_path, rows, rows=["method"], cols=["degradation"], blocks=["prior"]), "tex"
    )
    assert r"100\%\_\#\&\{\$\}\textasciitilde{}\textasciicircum{}\textbackslash{}x &" in text
    assert r"\toprule" in text
    assert r"\multicolumn{6}{l}{\textit{prior = sphere+cross}} \\" in text
    assert text.isascii()
    body = text.split(r"\midrule")[1].splitlines()
    widths = {line.replace(r"\&", "").count("&") for line in body if line.endswith(r"\\")}
    assert widths == {0, 5}  # the block's title, and rows of six columns


def test_csv_reads_back_as_one_line_a_cell(study):
    table = build_table(load_results([study]), cols=["degradation"], metrics=["niqe", "solved"])
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert len(lines) == 2 * 2 * 2
    for line in lines:
        cell = table.cells[((), (line["prior"],), (line["degradation"],)), line["metric"]]
        assert float(line["mean"]) == pytest.approx(cell.mean)
        assert int(line["n"]) == cell.n


def test_html_and_markdown_are_escaped(tmp_path):
    rows = [record("a", method="<b>|x*")]
    table = table_of(tmp_path, rows, rows=["method"])
    assert "&lt;b&gt;|x*" in html_table(table)
    assert r"\<b>\|x\*" in render(table, "md")


def test_numbers_are_typeset():
    assert number(-0.001, 2) == "0.00"
    assert number(-1.5, 1) == "−1.5"
    assert number(12345.6, 0) == "12\u2009346"


def test_odd_records_are_told_below_the_table(tmp_path):
    run = write_run(tmp_path, [record("a")])
    with (run / "records.jsonl").open("a") as file:
        file.write('{"image": ')
    notes = build_table(load_results([run])).notes
    assert notes[-2] == "1 record used of 2 lines in 1 file."
    assert notes[-1].endswith("records.jsonl:2: cut short.")


def test_wandb_takes_the_tidy_form(study):
    pytest.importorskip("wandb")
    from pulse_exp.tables import to_wandb

    table = build_table(load_results([study]), metrics=["psnr"])
    logged = to_wandb(table)
    assert logged.columns == list(table.tidy().columns)
    assert len(logged.data) == 4


def test_command_line(study, tmp_path, capsys):
    arguments = [str(study), "--cols", "degradation", "--metrics", "niqe,psnr,solved"]
    output = tmp_path / "new" / "table.md"
    code = main([*arguments, "--format", "md", "--output", str(output), "--where", "prior=none"])
    assert code == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("64 records used of 64 lines in 4 files")
    assert output.read_text(encoding="utf-8").count("\n| pulse |") == 1
    assert main([*arguments, "--rows", "priro"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1


def test_runs_as_a_module_without_torch(study):
    code = (
        "import sys, pulse_exp.tables as t; "
        f"t.main([{str(study)!r}]); assert not {{'torch', 'matplotlib'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Success rate" in done.stdout
