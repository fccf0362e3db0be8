"""`make bench`: what Postroom does on this machine, as ratios against baselines run in turn. See README.md here."""
