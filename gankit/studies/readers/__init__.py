"""Ask readers which images are real and what they show: a blinded set with its page, then the analysis of ratings."""
