"""Train on images that ever more raters agree on, and judge the generators: tables, controls and a report."""
