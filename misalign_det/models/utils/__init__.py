"""Parts of heads and assigners that are about no paper: levels, matching, IoU in blocks."""
