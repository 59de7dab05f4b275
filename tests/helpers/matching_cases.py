"""Random cases for tests of the bipartite matching."""

import torch

from misalign_det.models.utils.bipartite_matching import least_loss


def random_case(seed):
    """Arguments of ``match_locations``; in every other case some pairs are matched already."""
    generator = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    num_gts, num_locations = number(1, 12), number(1, 14)
    width = min(num_locations, number(1, 5))
    order = torch.rand(num_gts, num_locations, generator=generator).argsort(dim=1)
    losses = torch.rand(num_gts, width, generator=generator).sort(dim=1).values
    candidates = torch.rand(num_gts, width, generator=generator) < 0.8
    chosen = candidates & (torch.rand(num_gts, width, generator=generator) < 0.7 * (seed % 2))
    prior_inds = order[:, :width]
    held = least_loss(losses, prior_inds, chosen, num_locations)
    return losses, prior_inds, candidates, held, num_locations
