"""Source: finding, checking, reading, cutting and sampling the input."""
