"""The published tables, reached under honest rules: search, recovery, one look at test."""
