import torch

from pulse_exp.conjugate_gradients import conjugate_gradients

RNG = torch.Generator().manual_seed(0)


def test_conjugate_gradients_solve_in_as_many_iterations_as_unknowns():
    root = torch.randn(12, 12, generator=RNG, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(12, dtype=torch.float64)
    right = torch.randn(3, 4, generator=RNG, dtype=torch.float64)
    found = conjugate_gradients(lambda x: (matrix @ x.flatten()).view(3, 4), right, 12)
    torch.testing.assert_close(found.flatten(), torch.linalg.solve(matrix, right.flatten()))


def test_nothing_on_the_right_side_is_solved_by_nothing():
    zero = torch.zeros(2, 2)
    assert torch.equal(conjugate_gradients(lambda x: 2 * x, zero, 5), zero)
