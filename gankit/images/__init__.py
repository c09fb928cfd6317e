"""Images as arrays: decoding, what is known of them, grey levels, resizing, pictures to look at."""
