from pulse_exp.summary import print_summary


def row(**changes):
    values = {"image": "a", "restart": 0, "status": "solved", "lr_mse": 9e-4, "eps": 1e-3}
    return {**values, "lr_psnr": 30.0, "psnr": 20.0, "niqe": 4.0, "seconds": 1.0, **changes}


def test_the_error_after_refinement_has_a_column_where_there_is_one(tmp_path, capsys):
    print_summary([row()], tmp_path)
    assert "refined" not in capsys.readouterr().out
    print_summary([row(lr_mse_refined=1.5e-4), row(image="b")], tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:6] == ["image", "status", "error", "/", "eps", "refined"]
    assert lines[1].split()[:6] == ["a", "solved", "9.00e-04", "/", "1e-03", "1.50e-04"]
    assert lines[2].split()[5] == "–"


def test_blurred_inputs_are_named_with_what_to_try(tmp_path, capsys):
    print_summary([row(), row(image="b", lr_blur=0.0)], tmp_path)
    assert "blurred" not in capsys.readouterr().out
    blurred = [row(image=name, lr_blur=blur) for name, blur in (("b", 0.9), ("c", 1.3))]
    print_summary([row(lr_blur=0.0), *blurred, {**blurred[0], "restart": 1}], tmp_path)
    line = capsys.readouterr().out.replace("\n", " ")
    assert "blurred b, c: 2 of 3 inputs" in line
    assert "downscaler=gaussian downscaler.sigma=1.1" in line
    print_summary(blurred, tmp_path, known_blur=1.0)
    line = capsys.readouterr().out.replace("\n", " ")
    assert "by some 1.1 low-res pixels" in line
    assert "downscaler.sigma=1.5" in line  # sqrt(1.0² + 1.1²)
    print_summary(blurred, tmp_path, blur_assumed=True)
    line = capsys.readouterr().out.replace("\n", " ")
    assert "by some 1.1 low-res pixels; their searches took it into account" in line
    assert "try" not in line


def test_inputs_saved_as_jpeg_are_named_with_what_to_try(tmp_path, capsys):
    print_summary([row(lr_jpeg=0)], tmp_path)
    assert "JPEG" not in capsys.readouterr().out
    rows = [row(lr_jpeg=0), row(image="b", lr_jpeg=75), row(image="c", lr_jpeg=90)]
    print_summary(rows, tmp_path)
    line = capsys.readouterr().out.replace("\n", " ")
    assert "JPEG b, c: 2 of 3 inputs, of quality 82" in line
    assert "try search.compression=estimated" in line
    print_summary(rows, tmp_path, compression_assumed=True)
    line = capsys.readouterr().out.replace("\n", " ")
    assert "took it into account" in line
    assert "try" not in line
