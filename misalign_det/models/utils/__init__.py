"""General tools of heads and assigners: levels, bipartite matching, block-wise IoU."""
